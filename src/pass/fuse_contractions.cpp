#include <algorithm>
#include <set>

#include "op/elementwise.h"
#include "op/movement.h"
#include "pass/extract.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"
#include "rewrite/uses.h"

namespace espalier::pass {

namespace {

using ir::Node;
using ir::Value;

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
      : graph_(graph), context_(context), uses_(graph) {}

  ir::Graph run() {
    for (const Node* n : graph_.nodes())
      if (is_root(*n) && !taken_.contains(n)) grow(*n);
    if (groups_.empty()) return graph_;
    ir::ValueMap done;
    ir::Graph out =
        ir::transform(graph_, [&](const Node& n, const std::vector<Value>& operands) -> std::vector<Value> {
          std::vector<Value> results;
          if (const auto it = groups_.find(&n); it != groups_.end()) {
            Extracted e = extract(it->second, {n.value()}, std::string(kernel_name(it->second)));
            for (Value& v : e.operands) v = done.of(v);
            results = kernel::fusion(kernel::FusionKind::contraction, e.body, std::move(e.operands));
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
  static std::string_view kernel_name(const std::vector<const Node*>& members) {
    for (const Node* n : members)
      if (is_root(*n))
        return kernel::fusion_body(*n) ? std::string_view(kernel::fusion_body(*n)->name) : n->op().name;
    return "contraction";
  }

  bool accepts(const std::vector<const Node*>& members, const Node& tail) const {
    const Extracted e = extract(members, {tail.value()}, "body");
    return !context_.spec.accepts(kernel::FusionKind::contraction, *e.body, e.constant(), context_.exact);
  }

  /// Casts of the root's operands (weights to the low dtype) as members before it, where the target takes them.
  std::vector<const Node*> with_operand_casts(const Node& root) const {
    std::vector<const Node*> members{&root};
    for (const Value& v : root.inputs()) {
      const Node& n = v.node();
      if (&n.op() != &op::cast_op || std::find(members.begin(), members.end(), &n) != members.end()) continue;
      std::vector<const Node*> longer = members;
      longer.insert(longer.begin(), &n);
      if (accepts(longer, root)) members = std::move(longer);
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
    std::vector<const Node*> members = with_operand_casts(root), best = members;
    const Node *tail = &root, *best_tail = &root;
    for (int refused = 0; refused < lookahead;) {
      const Node* next = uses_.only(tail->value());
      if (!next || next->op().kind != ir::Kind::elementwise || taken_.contains(next) ||
          next->results() != 1 || waits_for_loop(*next, *tail))
        break;
      for (const Value& v : next->inputs()) add_with_broadcasts(v, members);
      members.push_back(next);
      tail = next;
      if (accepts(members, *tail)) {
        best = members;
        best_tail = tail;
        refused = 0;
      } else {
        ++refused;
      }
    }
    if (best.size() == 1) return;
    for (const Node* n : best)
      if (!comes_along(*n) && &n->op() != &op::cast_op) taken_.insert(n);
    groups_.emplace(best_tail, std::move(best));
  }

  const ir::Graph& graph_;
  const PassContext& context_;
  const rewrite::Uses uses_;
  std::set<const Node*> taken_;
  std::map<const Node*, std::vector<const Node*>> groups_;  // by the node whose value the fusion gives
};

}  // namespace

ir::Graph fuse_contractions(const ir::Graph& graph, const PassContext& context) {
  return rewrite::with_bodies(graph, [&](const ir::Graph& g) { return ContractionFuser(g, context).run(); });
}

}  // namespace espalier::pass
