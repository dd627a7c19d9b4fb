#include <algorithm>
#include <memory>
#include <set>
#include <unordered_map>

#include "kernel/bit_mask.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "pass/extract.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"
#include "rewrite/uses.h"

namespace espalier::pass {

namespace {

using ir::Node;
using ir::Value;

constexpr size_t largest_region = 24;  // gelu and its gradient's share
constexpr int lookahead = 3;  // an epilogue may be accepted only as a whole: bias, then activation, then cast

bool is_root(const Node& n) {
  return n.op().kind == ir::Kind::contraction ||
         (kernel::fusion_body(n) && n.attrs<kernel::FusionAttrs>().kind == kernel::FusionKind::contraction);
}

/// Broadcasts, and the reshapes and casts under them, come along with the op that reads them.
bool comes_along(const Node& n) { return &n.op() == &op::broadcast_to_op; }

void add_with_broadcasts(const Value& v, std::vector<const Node*>& members) {
  const Node& n = v.node();
  if (!comes_along(n) || std::find(members.begin(), members.end(), &n) != members.end()) return;
  const Node& under = n.input(0).node();
  if (&under.op() == &op::reshape_op && under.value().rank() <= 2 && under.input(0).rank() == 1 &&
      std::find(members.begin(), members.end(), &under) == members.end())
    members.push_back(&under);
  members.push_back(&n);
}

class ContractionFuser {
 public:
  ContractionFuser(const ir::Graph& graph, const PassContext& context)
      : graph_(graph), context_(context), uses_(graph), nodes_(graph.nodes()) {
    for (const Node* n : nodes_) order_.emplace(n, static_cast<int>(order_.size()));
  }

  ir::Graph run() {
    for (const Node* n : nodes_)
      if (is_root(*n) && !taken_.contains(n)) grow(*n);
    if (groups_.empty()) return graph_;
    ir::ValueMap done;
    ir::Graph out =
        ir::transform(graph_, [&](const Node& n, const std::vector<Value>& operands) -> std::vector<Value> {
          std::vector<Value> results;
          if (const auto it = groups_.find(&n); it != groups_.end()) {
            results = {result_of(*it->second.group, it->second.value, done)};
          } else if (&n.op() != &ir::input_op && operands != n.inputs()) {
            results = ir::make_all(n.op(), operands, n.attrs());
          }
          for (size_t i = 0; i < results.size(); ++i) done.set(n.value(static_cast<int>(i)), results[i]);
          return results;
        });
    out.level = ir::Level::fused;
    return out;
  }

 private:
  /// What becomes one fusion: members, operands first, and the values it gives.
  struct Group {
    std::vector<const Node*> members;
    std::vector<Value> results;
    std::vector<Value> made{};
  };
  /// Where what stands in place of a node's value comes from.
  struct Source {
    std::shared_ptr<Group> group;
    Value value;  ///< one of its results
  };

  /// What the fusion has for `value`; it is made when the first of its results is asked for. A mask, which is no value of the graph, is found in
  /// `done` from then on.
  static Value result_of(Group& g, const Value& value, ir::ValueMap& done) {
    if (g.made.empty()) {
      Extracted e = extract(g.members, g.results, std::string(kernel_name(g.members)));
      for (Value& v : e.operands) v = done.of(v);
      g.made = kernel::fusion(kernel::FusionKind::contraction, e.body, std::move(e.operands));
      for (size_t i = 1; i < g.made.size(); ++i) done.set(g.results[i], g.made[i]);
    }
    return g.made[static_cast<size_t>(std::ranges::find(g.results, value) - g.results.begin())];
  }

  static std::string_view kernel_name(const std::vector<const Node*>& members) {
    for (const Node* n : members)
      if (is_root(*n))
        return kernel::fusion_body(*n) ? std::string_view(kernel::fusion_body(*n)->name) : n->op().name;
    return "contraction";
  }

  kernel::Verdict verdict(const std::vector<const Node*>& members, const std::vector<Value>& results) const {
    const Extracted e = extract(members, results, "body");
    if (!operands_come_first(e, results))
      return kernel::Refusal{"order", "an operand of one result is computed after another result"};
    return context_.spec.accepts(kernel::FusionKind::contraction, *e.body, e.constant(), context_.exact);
  }
  bool accepts(const std::vector<const Node*>& members, const std::vector<Value>& results) const {
    return !verdict(members, results);
  }

  /// Of several results the first is made where the others' operands must be there; so none of those depends on a result either.
  bool operands_come_first(const Extracted& e, const std::vector<Value>& results) const {
    if (results.size() == 1) return true;
    int first = order_.at(&results[0].node());
    for (const Value& v : results)
      if (const auto at = order_.find(&v.node()); at != order_.end()) first = std::min(first, at->second);
    return std::ranges::all_of(e.operands, [&](const Value& v) { return order_.at(&v.node()) < first; });
  }

  /// Casts of the root's operands (weights to the low dtype) as members before it, where the target takes them.
  std::vector<const Node*> with_operand_casts(const Node& root) const {
    std::vector<const Node*> members{&root};
    for (const Value& v : root.inputs()) {
      const Node& n = v.node();
      if (&n.op() != &op::cast_op || std::find(members.begin(), members.end(), &n) != members.end()) continue;
      std::vector<const Node*> longer = members;
      longer.insert(longer.begin(), &n);
      if (accepts(longer, {root.value()})) members = std::move(longer);
    }
    return members;
  }

  /// Is the other operand of `next` computed for it alone, from what a step begins with (a momentum times a number)? That would be a loop
  /// before the contraction; where each step costs, one loop after it does both.
  bool waits_for_loop(const Node& next, const Node& tail) const {
    if (!context_.spec.batching()) return false;
    const auto known = [](const Value& v) { return v->op().kind == ir::Kind::leaf || comes_along(v.node()); };
    return std::ranges::any_of(next.inputs(), [&](const Value& v) {
      return &v.node() != &tail && v->op().kind == ir::Kind::elementwise && &v->op() != &op::cast_op &&
             uses_.only(v) && std::ranges::all_of(v->inputs(), known);
    });
  }

  void grow(const Node& root) {
    std::vector<const Node*> members = with_operand_casts(root);
    Group best{members, {root.value()}};
    const Node* tail = &root;
    for (int refused = 0; refused < lookahead && best.results.size() == 1;) {
      const Node* next = uses_.only(tail->value());
      if (!next || next->op().kind != ir::Kind::elementwise || taken_.contains(next) ||
          next->results() != 1 || waits_for_loop(*next, *tail)) {
        if (!context_.spec.wide_epilogues() || !grow_beyond(*tail, members, best)) break;
        tail = &best.results[0].node();
        members = best.members;
        continue;
      }
      for (const Value& v : next->inputs()) add_with_broadcasts(v, members);
      members.push_back(next);
      tail = next;
      if (accepts(members, {tail->value()})) {
        best = {members, {tail->value()}};
        refused = 0;
      } else {
        ++refused;
      }
    }
    if (context_.spec.wide_epilogues()) {
      add_relu(best);
      add_sums(root, best);
    }
    if (best.members.size() == 1) return;
    const std::shared_ptr<Group> group = take(std::move(best));
    for (const Value& v : group->results) groups_.emplace(&v.node(), Source{group, v});
  }

  std::shared_ptr<Group> take(Group&& group) {
    for (const Node* n : group.members)
      if (!comes_along(*n) && &n->op() != &op::cast_op) taken_.insert(n);
    return std::make_shared<Group>(std::move(group));
  }

  /// A relu behind the product whose mask only its own gradients read, each of them behind a product: where the target takes all of these, the mask
  /// is a second result, in bits.
  void add_relu(Group& best) {
    if (best.results.size() != 1 || !best.results[0].type().is_static()) return;
    const Node* relu = uses_.only(best.results[0]);
    if (!relu || &relu->op() != &op::relu_op || taken_.contains(relu)) return;
    const Value y = relu->value();
    const std::vector<Value> masks = masks_of(y);
    if (masks.empty() || std::ranges::any_of(masks, [&](const Value& m) { return uses_.outputs(m) > 0; }))
      return;
    const Value packed = kernel::pack_bits(op::gt(y, op::zeros_like(y)));
    Group longer{best.members, {y, packed}};
    longer.members.push_back(relu);
    add_between(y, packed, longer.members);
    if (const auto refusal = verdict(longer.members, longer.results)) return note_relu(best, *refusal);
    std::vector<std::pair<const Node*, Group>> gradients;
    for (const Value& mask : masks)
      for (const Node* user : uses_.of(mask)) {
        Group g = relu_gradient(*user, mask, packed);
        if (g.members.empty()) return note_relu(best, {"gradient", "it is not of a product's result"});
        if (const auto refusal = verdict(g.members, g.results)) return note_relu(best, *refusal);
        gradients.emplace_back(user, std::move(g));
      }
    best = std::move(longer);
    for (auto& [select, g] : gradients) {
      const Value value = g.results[0];
      groups_.emplace(select, Source{take(std::move(g)), value});
      taken_.insert(select);
    }
  }

  /// Why a relu and its gradients do not go along with products; whoever asks for an exact program knows.
  void note_relu(const Group& behind, const kernel::Refusal& why) const {
    const bool product =
        std::ranges::any_of(behind.members, [](const Node* n) { return &n->op() == &op::dot_op; });
    if (context_.note && product && !context_.exact)
      context_.note("relu behind a product and its gradient are launches of their own (" + why.by + ": " +
                    why.reason + ")");
  }

  /// What the graph has of where `y` is above 0: of itself, or of what only widens it.
  std::vector<Value> masks_of(const Value& y) const {
    std::vector<Value> of{y}, out;
    for (const Node* user : uses_.of(y))
      if (&user->op() == &op::cast_op && user->value().dtype() == ir::Dtype::f32) of.push_back(user->value());
    for (const Value& v : of) {
      const Value mask = op::gt(v, op::zeros_like(v));
      if (!uses_.of(mask).empty() || uses_.outputs(mask) > 0) out.push_back(mask);
    }
    return out;
  }

  /// `select` as relu's gradient by the mask in bits, with the product whose result it keeps or not; no members where it is something else.
  Group relu_gradient(const Node& select, const Value& mask, const Value& packed) const {
    if (&select.op() != &op::select_op || select.input(0) != mask || taken_.contains(&select) ||
        rewrite::splat_value(select.input(2)) != 0.0)
      return {};
    Value v = select.input(1);
    std::vector<const Node*> casts;
    for (; &v->op() == &op::cast_op && uses_.only(v); v = v->input(0)) casts.insert(casts.begin(), &v.node());
    if (!is_root(v.node()) || kernel::fusion_body(v.node()) || taken_.contains(&v.node()) || !uses_.only(v))
      return {};
    const Value kept = kernel::unpack_bits(packed, mask.dims().back().value());
    const Value result = op::select(kept, select.input(1), select.input(2));
    Group g{with_operand_casts(v.node()), {result}};
    g.members.insert(g.members.end(), casts.begin(), casts.end());
    add_between(packed, kept, g.members);
    add_with_broadcasts(select.input(2), g.members);
    g.members.push_back(&result.node());
    return g;
  }

  /// The nodes by which `end` is made of `begin`, operands first.
  static void add_between(const Value& begin, const Value& end, std::vector<const Node*>& members) {
    const Node& n = end.node();
    if (end == begin || n.op().kind == ir::Kind::leaf ||
        std::find(members.begin(), members.end(), &n) != members.end())
      return;
    for (const Value& v : n.inputs()) add_between(begin, v, members);
    members.push_back(&n);
  }

  /// Go on behind `tail`, which is used more than once, to a value that depends on nothing else that varies: the first one that the target
  /// takes. What else is made of the nodes between is made once more, of the last value before them, which is then a second result.
  bool grow_beyond(const Node& tail, const std::vector<const Node*>& members, Group& best) const {
    const Value before = best.results[0];
    std::vector<const Node*> region{&tail};
    const auto is_inside = [&](const Value& v) {
      return std::ranges::find(region, &v.node()) != region.end() || comes_along(v.node()) ||
             ir::constant_value(v);
    };
    for (auto i = static_cast<size_t>(order_.at(&tail)) + 1;
         i < nodes_.size() && region.size() <= largest_region; ++i) {
      const Node* n = nodes_[i];
      if (n->op().kind != ir::Kind::elementwise || n->results() != 1 || taken_.contains(n)) continue;
      const bool reads = std::ranges::any_of(
          n->inputs(), [&](const Value& v) { return std::ranges::find(region, &v.node()) != region.end(); });
      if (!reads || !std::ranges::all_of(n->inputs(), is_inside)) continue;
      region.push_back(n);
      Group longer{members, {n->value()}};
      for (const Node* m : between(region, *n)) {
        for (const Value& v : m->inputs()) add_with_broadcasts(v, longer.members);
        longer.members.push_back(m);
      }
      if (is_read_outside(before, longer)) longer.results.push_back(before);
      if (!accepts(longer.members, longer.results)) continue;
      best = std::move(longer);
      return true;
    }
    return false;
  }

  /// The nodes of `region` behind its first that `end` depends on, and `end`.
  static std::vector<const Node*> between(const std::vector<const Node*>& region, const Node& end) {
    std::set<const Node*> needed{&end};
    std::vector<const Node*> out;
    for (size_t i = region.size(); i-- > 1;) {
      if (!needed.contains(region[i])) continue;
      out.insert(out.begin(), region[i]);
      for (const Value& v : region[i]->inputs()) needed.insert(&v.node());
    }
    return out;
  }

  /// Is `before`, or what members make of it on the way to the result, read by others?
  bool is_read_outside(const Value& before, const Group& g) const {
    const auto is_member = [&](const Node* n) { return std::ranges::find(g.members, n) != g.members.end(); };
    std::set<const Node*> inner{&before.node()};
    for (const Node* n : g.members)
      if (std::ranges::any_of(n->inputs(), [&](const Value& v) { return inner.contains(&v.node()); }))
        inner.insert(n);
    inner.erase(&g.results[0].node());
    return std::ranges::any_of(inner, [&](const Node* n) {
      return uses_.outputs(n->value()) > 0 || !std::ranges::all_of(uses_.of(n->value()), is_member);
    });
  }

  /// Sums of the root's operands over what it contracts, as second results where the target gives them.
  void add_sums(const Node& root, Group& best) {
    if (kernel::fusion_body(root)) return;
    const auto add = [&](const Node* cast, const Node* sum) {
      if (&sum->op() != &op::reduce_sum_op || taken_.contains(sum)) return;
      Group longer = best;
      if (cast) longer.members.push_back(cast);
      longer.members.push_back(sum);
      longer.results.push_back(sum->value());
      if (accepts(longer.members, longer.results)) best = std::move(longer);
    };
    for (const Value& v : root.inputs())
      for (const Node* user : uses_.of(v)) {
        add(nullptr, user);
        if (&user->op() == &op::cast_op)
          for (const Node* of_cast : uses_.of(user->value())) add(user, of_cast);
      }
  }

  const ir::Graph& graph_;
  const PassContext& context_;
  const rewrite::Uses uses_;
  std::set<const Node*> taken_;
  const std::vector<const Node*> nodes_;
  std::unordered_map<const Node*, int> order_;
  std::map<const Node*, Source> groups_;  // by the nodes whose values come from a fusion
};

}  // namespace

ir::Graph fuse_contractions(const ir::Graph& graph, const PassContext& context) {
  return rewrite::with_bodies(graph, [&](const ir::Graph& g) { return ContractionFuser(g, context).run(); });
}

}  // namespace espalier::pass
