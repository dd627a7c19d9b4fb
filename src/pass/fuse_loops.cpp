// Greedy clustering. Every op that can be a loop starts as a cluster of its own; walking operands first, a cluster joins
// those it reads from, then those it shares a big operand with, where
//   - both walk the same iteration space (a reduction walks its operand's), or one only works on what the other reduced,
//   - no path between them leads through a third, and
//   - the target lowers the union to one kernel.
// Ops that cost nothing to repeat (broadcasts, iota, widening casts) belong to no cluster: each reader has its own copy.
#include <algorithm>
#include <numeric>
#include <set>

#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/movement.h"
#include "pass/extract.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"
#include "rewrite/uses.h"

namespace espalier::pass {

namespace {

using ir::Node;
using ir::Value;

constexpr size_t largest_cluster = 96, most_operands = 24;

bool repeats_free(const Node& n) {
  if (&n.op() == &op::broadcast_to_op || &n.op() == &op::iota_op) return true;
  return &n.op() == &op::cast_op && ir::dtype_size(n.value().dtype()) > ir::dtype_size(n.input(0).dtype());
}

/// The dims a node's loops walk.
const ir::Dims& space(const Node& n) {
  return n.op().kind == ir::Kind::reduction ? n.input(0).dims() : n.value().dims();
}

class LoopFuser {
 public:
  LoopFuser(const ir::Graph& graph, const PassContext& context)
      : graph_(graph), context_(context), uses_(graph), order_(graph.nodes()) {
    for (size_t i = 0; i < order_.size(); ++i) index_[order_[i]] = static_cast<int>(i);
    unit_.resize(order_.size());
    std::iota(unit_.begin(), unit_.end(), 0);
    members_.resize(order_.size());
    for (size_t i = 0; i < order_.size(); ++i) members_[i] = {static_cast<int>(i)};
    loops_.resize(order_.size());
    for (size_t i = 0; i < order_.size(); ++i) loops_[i] = can_be_loop(*order_[i]);
  }

  ir::Graph run() {
    for (size_t i = 0; i < order_.size(); ++i)
      if (loops_[i] && !repeats_free(*order_[i]))
        for (const int producer : producers(static_cast<int>(i)))
          try_merge(unit_[i], unit_[static_cast<size_t>(producer)], false);
    merge_siblings();
    return emit();
  }

 private:
  bool can_be_loop(const Node& n) const {
    const ir::Kind kind = n.op().kind;
    if (&n.op() == &op::reshape_op || &n.op() == &op::dim_size_op || n.results() != 1) return false;
    if (kind != ir::Kind::elementwise && kind != ir::Kind::movement && kind != ir::Kind::reduction &&
        kind != ir::Kind::indexed && kind != ir::Kind::random && kind != ir::Kind::window)
      return false;
    return accepts(extract({&n}, {n.value()}, "loop"));
  }

  bool accepts(const Extracted& e) const {
    return !context_.spec.accepts(kernel::FusionKind::loops, *e.body, e.constant(), context_.exact);
  }

  /// The clustered nodes a node reads, looking through free repeats.
  std::vector<int> producers(int i) const {
    std::vector<int> out;
    for (const Value& v : order_[static_cast<size_t>(i)]->inputs()) add_producer(v.node(), out);
    return out;
  }
  void add_producer(const Node& n, std::vector<int>& out) const {
    const int i = index_.at(&n);
    if (!loops_[static_cast<size_t>(i)]) return;
    if (!repeats_free(n)) out.push_back(i);
    else
      for (const Value& v : n.inputs()) add_producer(v.node(), out);
  }

  const Node& node(int i) const { return *order_[static_cast<size_t>(i)]; }

  /// The members of `units` and the free repeats they read, operands first.
  std::vector<const Node*> with_repeats(const std::vector<int>& members) const {
    std::set<int> all(members.begin(), members.end());
    const auto add = [&](auto& self, const Node& n) -> void {
      for (const Value& v : n.inputs()) {
        const int i = index_.at(&v.node());
        if (loops_[static_cast<size_t>(i)] && repeats_free(v.node()) && all.insert(i).second)
          self(self, v.node());
      }
    };
    for (const int i : members) add(add, node(i));
    std::vector<const Node*> out;
    for (const int i : all) out.push_back(order_[static_cast<size_t>(i)]);
    return out;
  }

  /// Values of the members that something outside reads (through a free repeat counts as outside).
  std::vector<Value> results_of(const std::vector<int>& members) const {
    const std::set<int> own(members.begin(), members.end());
    std::vector<Value> out;
    for (const int i : members) {
      const Value v = node(i).value();
      if (uses_.outputs(v) > 0 || read_outside(v, own)) out.push_back(v);
    }
    return out;
  }
  bool read_outside(const Value& v, const std::set<int>& own) const {
    for (const Node* user : uses_.of(v)) {
      const int i = index_.at(user);
      if (own.contains(i)) continue;
      if (!loops_[static_cast<size_t>(i)] || !repeats_free(*user)) return true;
      if (uses_.outputs(user->value()) > 0 || read_outside(user->value(), own)) return true;
    }
    return false;
  }

  Extracted body_of(const std::vector<int>& members) const {
    return extract(with_repeats(members), results_of(members), "loops");
  }

  /// The widest space of a cluster.
  const ir::Dims& space_of(int unit) const {
    const ir::Dims* widest = nullptr;
    int64_t most = -1;
    for (const int i : members_[static_cast<size_t>(unit)]) {
      const int64_t n = ir::count(space(node(i))).factor();
      if (n > most) {
        most = n;
        widest = &space(node(i));
      }
    }
    return *widest;
  }

  bool has_reduction(int unit) const {
    const auto& m = members_[static_cast<size_t>(unit)];
    return std::any_of(m.begin(), m.end(), [&](int i) { return node(i).op().kind == ir::Kind::reduction; });
  }

  /// Does every operand of the consumer's cluster that is not external come from reductions of the producer's?
  bool spaces_fit(int consumer, int producer) const {
    if (space_of(consumer) == space_of(producer)) return true;
    return has_reduction(producer) &&
           ir::count(space_of(consumer)).factor() < ir::count(space_of(producer)).factor();
  }

  /// Is there a way from `from` to `to` through a third unit?
  bool indirect_path(int from, int to) const {
    std::vector<char> seen(order_.size(), 0);
    std::vector<int> stack;
    const auto push_operands = [&](int unit, bool skip_from) {
      for (const int i : members_[static_cast<size_t>(unit)])
        for (const Value& v : node(i).inputs()) push(v.node(), unit, skip_from ? from : -1, seen, stack);
    };
    push_operands(to, true);
    while (!stack.empty()) {
      const int unit = stack.back();
      stack.pop_back();
      if (unit == from) return true;
      push_operands(unit, false);
    }
    return false;
  }
  void push(const Node& n, int self, int skip, std::vector<char>& seen, std::vector<int>& stack) const {
    const int i = index_.at(&n);
    if (loops_[static_cast<size_t>(i)] && repeats_free(n)) {  // belongs to its reader
      for (const Value& v : n.inputs()) push(v.node(), self, skip, seen, stack);
      return;
    }
    const int unit = unit_[static_cast<size_t>(i)];
    if (unit == self || unit == skip || seen[static_cast<size_t>(unit)]) return;
    seen[static_cast<size_t>(unit)] = 1;
    stack.push_back(unit);
  }

  void try_merge(int consumer, int producer, bool siblings) {
    if (consumer == producer) return;
    const auto &a = members_[static_cast<size_t>(consumer)], &b = members_[static_cast<size_t>(producer)];
    if (a.size() + b.size() > largest_cluster) return;
    if (siblings ? space_of(consumer) != space_of(producer) : !spaces_fit(consumer, producer)) return;
    if (indirect_path(producer, consumer) || (siblings && indirect_path(consumer, producer))) return;
    std::vector<int> both = a;
    both.insert(both.end(), b.begin(), b.end());
    std::sort(both.begin(), both.end());
    const Extracted e = body_of(both);
    if (e.operands.size() + e.body->outputs.size() > most_operands) return;
    if (!accepts(e)) return;
    for (const int i : both) unit_[static_cast<size_t>(i)] = consumer;
    members_[static_cast<size_t>(producer)].clear();
    members_[static_cast<size_t>(consumer)] = std::move(both);
  }

  /// Join clusters that read the same big value.
  void merge_siblings() {
    for (size_t i = 0; i < order_.size(); ++i)
      for (int r = 0; r < order_[i]->results(); ++r) {
        const Value v = order_[i]->value(r);
        if (v.rank() < 2) continue;
        std::vector<int> readers;
        collect_readers(v, readers);
        for (size_t k = 1; k < readers.size(); ++k) {
          const int first = unit_[static_cast<size_t>(readers[0])],
                    other = unit_[static_cast<size_t>(readers[k])];
          if (first != other && space_of(first) == v.dims())
            try_merge(std::max(first, other), std::min(first, other), true);
        }
      }
  }
  void collect_readers(const Value& v, std::vector<int>& out) const {
    for (const Node* user : uses_.of(v)) {
      const int i = index_.at(user);
      if (!loops_[static_cast<size_t>(i)]) continue;
      if (!repeats_free(*user)) out.push_back(i);
      else if (&user->op() == &op::cast_op) collect_readers(user->value(), out);
    }
  }

  // ---- emission ----------------------------------------------------------------------------------------------------

  struct Unit {
    std::vector<int> members;
    std::vector<Value> results;
    Extracted extracted;
    std::vector<int> needs;  // units
    bool loops = false;
  };

  /// Is a free repeat read by something that is no loop, so that it must exist in memory?
  bool needed_in_memory(int i) const {
    const Value v = node(i).value();
    if (uses_.outputs(v) > 0) return true;
    for (const Node* user : uses_.of(v))
      if (!loops_[static_cast<size_t>(index_.at(user))]) return true;
    return false;
  }

  ir::Graph emit() {
    ir::Graph out = graph_;
    out.level = ir::Level::fused;
    ir::ValueMap made;
    for (const Value& v : graph_.inputs) made.set(v, v);
    std::vector<char> done(order_.size(), 0);
    for (size_t i = 0; i < order_.size(); ++i)
      if (!(loops_[i] && repeats_free(*order_[i])) || needed_in_memory(static_cast<int>(i)))
        emit_unit(unit_[i], made, done);
    for (ir::Output& o : out.outputs) o.value = made.of(o.value);
    return out;
  }

  /// Emit a unit after the units it needs (a stack of our own: graphs are deep).
  void emit_unit(int first, ir::ValueMap& made, std::vector<char>& done) {
    std::vector<int> stack{first};
    while (!stack.empty()) {
      const int unit = stack.back();
      if (done[static_cast<size_t>(unit)]) {
        stack.pop_back();
        continue;
      }
      const auto& members = members_[static_cast<size_t>(unit)];
      const bool loops = loops_[static_cast<size_t>(members[0])];
      Extracted e;
      if (loops) e = body_of_unit(members);
      else e.operands = node(members[0]).inputs();
      bool ready = true;
      for (const Value& v : e.operands)
        if (const int need = unit_[static_cast<size_t>(index_.at(&v.node()))];
            !done[static_cast<size_t>(need)]) {
          stack.push_back(need);
          ready = false;
        }
      if (!ready) continue;
      make_unit(members, loops, e, made);
      done[static_cast<size_t>(unit)] = 1;
      stack.pop_back();
    }
  }

  Extracted body_of_unit(const std::vector<int>& members) const {
    if (members.size() == 1 && repeats_free(node(members[0])))
      return extract(with_repeats(members), {node(members[0]).value()}, "loops");
    return body_of(members);
  }

  void make_unit(const std::vector<int>& members, bool loops, Extracted& e, ir::ValueMap& made) const {
    const Node& only = node(members[0]);
    if (&only.op() == &ir::input_op) return;
    for (Value& v : e.operands) v = made.of(v);
    if (!loops) {
      const std::vector<Value> results = ir::make_all(only.op(), std::move(e.operands), only.attrs());
      for (size_t r = 0; r < results.size(); ++r) made.set(only.value(static_cast<int>(r)), results[r]);
      return;
    }
    const std::vector<Value> old =
        members.size() == 1 && repeats_free(only) ? std::vector{only.value()} : results_of(members);
    if (old.empty()) return;  // nothing reads it any more
    const std::vector<Value> results =
        kernel::fusion(kernel::FusionKind::loops, e.body, std::move(e.operands));
    for (size_t r = 0; r < results.size(); ++r) made.set(old[r], results[r]);
  }

  const ir::Graph& graph_;
  const PassContext& context_;
  const rewrite::Uses uses_;
  const std::vector<const Node*> order_;
  std::unordered_map<const Node*, int> index_;
  std::vector<char> loops_;                // can this node be a loop?
  std::vector<int> unit_;                  // node -> unit
  std::vector<std::vector<int>> members_;  // unit -> nodes, rising
};

}  // namespace

ir::Graph fuse_loops(const ir::Graph& graph, const PassContext& context) {
  return rewrite::with_bodies(graph, [&](const ir::Graph& g) { return LoopFuser(g, context).run(); });
}

}  // namespace espalier::pass
