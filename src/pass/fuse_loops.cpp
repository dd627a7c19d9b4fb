// Greedy clustering. Every op that can be a loop starts as a cluster of its own; walking operands first, a cluster joins
// those it reads from, then those it shares a big operand with, where
//   - both walk the same iteration space (a reduction walks its operand's), or one only works on what the other reduced,
//   - no path between them leads through a third, and
//   - the target lowers the union to one kernel.
// Ops that cost nothing to repeat (broadcasts, iota, widening casts) belong to no cluster: each reader has its own copy.
//
// Where bytes are what a step costs (TargetSpec::batching), small slices of large values are such copies too, and a cluster computes a
// value of another one again when that takes cheap ops on what it reads anyway, or on no more bytes that lie in memory anyway: x minus its
// mean and the mask of a relu in the gradient of batch norm are not stored for it. There small work that only new states wait for (updates of
// parameters and statistics) keeps apart from what it reads, so that batch_nests can gather it; and what is numbers alone is computed beside
// another number.
#include <algorithm>
#include <numeric>
#include <set>
#include <unordered_set>

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

constexpr size_t most_again = 12;  // nodes that are computed again for one value
constexpr int64_t piece = 16,
                  piece_bytes = 1 << 16;  // a small slice has at most one in 16 elements, and so many bytes

/// A slice of a few elements, or a reshape of one.
bool is_piece(const Node& n) {
  if (&n.op() == &op::reshape_op) return is_piece(n.input(0).node());
  return &n.op() == &op::slice_op && n.value().type().is_static() && n.input(0).type().is_static() &&
         n.value().type().elements() * piece <= n.input(0).type().elements() &&
         n.value().type().bytes() <= piece_bytes;
}

/// One or two operations of a processor.
bool is_cheap(const Node& n) {
  static const std::set<const ir::OpDef*> ops{&op::add_op,  &op::sub_op,  &op::mul_op,   &op::neg_op,
                                              &op::relu_op, &op::max_op,  &op::min_op,   &op::lt_op,
                                              &op::le_op,   &op::gt_op,   &op::ge_op,    &op::eq_op,
                                              &op::ne_op,   &op::cast_op, &op::select_op};
  return ops.contains(&n.op());
}

/// Is it of 16 bits and not exact? Computed again it would not be rounded as what lies in memory, and eq() would see that.
bool rounds(const Node& n) {
  const ir::Dtype d = n.value().dtype();
  if (d != ir::Dtype::bf16 && d != ir::Dtype::f16) return false;
  return &n.op() == &op::add_op || &n.op() == &op::sub_op || &n.op() == &op::mul_op ||
         &n.op() == &op::cast_op;
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
    again_.resize(order_.size());
    loops_.resize(order_.size());
    for (size_t i = 0; i < order_.size(); ++i) loops_[i] = can_be_loop(*order_[i]);
    for (const ir::StatePair& s : graph.state)
      new_states_.insert(graph.outputs[*graph.find_output(s.output)].value);
    late_.resize(order_.size());
    for (size_t i = order_.size(); i-- > 0;) late_[i] = is_late(*order_[i]);
  }

  ir::Graph run() {
    for (size_t i = 0; i < order_.size(); ++i)
      if (loops_[i] && !repeats_free(*order_[i]))
        for (const int producer : producers(static_cast<int>(i)))
          try_merge(unit_[i], unit_[static_cast<size_t>(producer)], false);
    merge_siblings();
    if (context_.spec.batching()) merge_numbers();
    if (context_.spec.batching())
      for (size_t i = 0; i < order_.size(); ++i)
        if (unit_[i] == static_cast<int>(i) && is_cluster(unit_[i])) compute_again(unit_[i]);
    find_needed();
    return emit();
  }

 private:
  bool can_be_loop(const Node& n) const {
    const ir::Kind kind = n.op().kind;
    if (context_.spec.batching() && is_piece(n)) return accepts(extract({&n}, {n.value()}, "loop"));
    if (&n.op() == &op::reshape_op || &n.op() == &op::dim_size_op || n.results() != 1) return false;
    if (kind != ir::Kind::elementwise && kind != ir::Kind::movement && kind != ir::Kind::reduction &&
        kind != ir::Kind::indexed && kind != ir::Kind::random && kind != ir::Kind::window)
      return false;
    return accepts(extract({&n}, {n.value()}, "loop"));
  }

  bool repeats_free(const Node& n) const {
    if (&n.op() == &op::broadcast_to_op || &n.op() == &op::iota_op) return true;
    if (&n.op() == &op::cast_op && ir::dtype_size(n.value().dtype()) > ir::dtype_size(n.input(0).dtype()))
      return true;
    return context_.spec.batching() && is_piece(n);
  }

  /// Is it small, of small operands, and do only such nodes and the new values of states wait for it?
  bool is_late(const Node& n) const {
    const kernel::BatchLimits* limits = context_.spec.batching();
    const ir::Kind kind = n.op().kind;
    if (!limits || n.results() != 1 || (kind != ir::Kind::elementwise && kind != ir::Kind::movement))
      return false;
    const auto small = [&](const Value& v) {
      return v.type().is_static() && v.type().bytes() <= limits->member_bytes;
    };
    if (uses_.outputs(n.value()) > 0 && !new_states_.contains(n.value())) return false;
    const auto& users = uses_.of(n.value());
    return small(n.value()) && std::ranges::all_of(n.inputs(), small) &&
           std::ranges::all_of(users,
                               [&](const Node* u) { return late_[static_cast<size_t>(index_.at(u))] != 0; });
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

  /// The members of a cluster, the free repeats they read and what is computed again, operands first.
  std::vector<const Node*> with_repeats(const std::vector<int>& members,
                                        const std::set<int>& again = {}) const {
    std::set<int> all(members.begin(), members.end());
    const auto add = [&](auto& self, const Node& n) -> void {
      for (const Value& v : n.inputs()) {
        const int i = index_.at(&v.node());
        const bool copied = (loops_[static_cast<size_t>(i)] && repeats_free(v.node())) || again.contains(i);
        if (copied && all.insert(i).second) self(self, v.node());
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
    if (siblings ? space_of(consumer) != space_of(producer) : !spaces_fit(consumer, producer)) return;
    join(consumer, producer, siblings);
  }

  /// Make one of two clusters, where nothing between them forbids it and the target takes it.
  void join(int consumer, int producer, bool siblings) {
    if (consumer == producer) return;
    const auto &a = members_[static_cast<size_t>(consumer)], &b = members_[static_cast<size_t>(producer)];
    if (a.size() + b.size() > largest_cluster) return;
    if (late_[static_cast<size_t>(a[0])] != late_[static_cast<size_t>(b[0])]) return;
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

  /// Clusters that compute nothing but numbers (the corrections of Adam) go along with another that ends in one (a loss).
  void merge_numbers() {
    const auto is_number = [&](int i) {
      return node(i).value().type().is_static() && node(i).value().type().elements() == 1;
    };
    const auto units = [&](auto&& fits) {
      std::vector<int> out;
      for (size_t i = 0; i < order_.size(); ++i)
        if (unit_[i] == static_cast<int>(i) && is_cluster(unit_[i]) && fits(members_[i]))
          out.push_back(unit_[i]);
      return out;
    };
    const auto numbers = [&](const auto& m) { return std::ranges::all_of(m, is_number); };
    for (const int small : units(numbers))
      for (const int other : units([&](const auto& m) { return std::ranges::any_of(m, is_number); })) {
        const bool gone = members_[static_cast<size_t>(small)].empty();
        if (gone || members_[static_cast<size_t>(other)].empty() || small == other) continue;
        join(std::max(small, other), std::min(small, other), true);
        if (unit_[static_cast<size_t>(small)] == unit_[static_cast<size_t>(other)]) break;
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

  // ---- what is computed again ------------------------------------------------------------------------------------------

  bool is_cluster(int unit) const {
    const auto& m = members_[static_cast<size_t>(unit)];
    return !m.empty() && loops_[static_cast<size_t>(m[0])] && !repeats_free(node(m[0]));
  }

  Extracted body_again(int unit, const std::set<int>& again) const {
    const auto& members = members_[static_cast<size_t>(unit)];
    return extract(with_repeats(members, again), results_of(members), "loops");
  }

  /// Values that the cluster reads and can compute itself.
  void compute_again(int unit) {
    std::set<int>& again = again_[static_cast<size_t>(unit)];
    Extracted body = body_again(unit, again);
    std::vector<Value> read = body.operands;
    std::ranges::stable_sort(read, std::greater{}, [](const Value& v) { return v.type().bytes(); });
    for (const Value& v : read) {
      const std::optional<std::set<int>> more = nodes_again(unit, v, body);
      if (!more) continue;
      std::set<int> both = again;
      both.insert(more->begin(), more->end());
      Extracted next = body_again(unit, both);
      if (next.operands.size() + next.body->outputs.size() > most_operands || !accepts(next)) continue;
      again = std::move(both);
      body = std::move(next);
    }
  }

  /// The nodes by which the cluster, which is `body`, computes its operand `v`: cheap ones on what it has, on small values, and on as many
  /// bytes of others at most as it then need not read.
  std::optional<std::set<int>> nodes_again(int unit, const Value& v, const Extracted& body) const {
    std::set<int> own;
    for (const Node* n : with_repeats(members_[static_cast<size_t>(unit)], again_[static_cast<size_t>(unit)]))
      own.insert(index_.at(n));
    std::set<int> nodes;
    std::set<uint64_t> leaves;
    int64_t bytes = 0;
    const auto take = [&](auto& self, const Value& w) -> bool {
      const int i = index_.at(&w.node());
      if (own.contains(i) || nodes.contains(i) || ir::constant_value(w)) return true;
      if (w != v && std::ranges::count(body.operands, w) > 0) return true;
      if (!w.type().is_static()) return false;
      if (w.type().elements() * piece <= v.type().elements()) return true;
      const bool loop = loops_[static_cast<size_t>(i)] != 0;
      if (loop && !rounds(w.node()) && (is_cheap(w.node()) || &w.node().op() == &op::broadcast_to_op)) {
        nodes.insert(i);
        return nodes.size() <= most_again &&
               std::ranges::all_of(w->inputs(), [&](const Value& x) { return self(self, x); });
      }
      if (loop || w == v) return false;
      if (leaves.insert(w.node().id()).second) bytes += w.type().bytes();
      return bytes <= v.type().bytes();
    };
    if (!v.type().is_static() || !is_cheap(v.node())) return std::nullopt;
    return take(take, v) ? std::optional(nodes) : std::nullopt;
  }

  /// What is read of other units, from the outputs backwards.
  void find_needed() {
    std::vector<Value> stack = graph_.output_values();
    std::set<int> seen;
    while (!stack.empty()) {
      const Value v = stack.back();
      stack.pop_back();
      needed_.insert(v);
      const int unit = unit_[static_cast<size_t>(index_.at(&v.node()))];
      if (!seen.insert(unit).second) continue;
      const auto& members = members_[static_cast<size_t>(unit)];
      if (!loops_[static_cast<size_t>(members[0])]) {
        for (const Value& w : node(members[0]).inputs()) stack.push_back(w);
        continue;
      }
      const std::vector<const Node*> all = with_repeats(members, again_[static_cast<size_t>(unit)]);
      const std::set<const Node*> own(all.begin(), all.end());
      for (const Node* n : all)
        for (const Value& w : n->inputs())
          if (!own.contains(&w.node())) stack.push_back(w);
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
      if (loops) e = body_of_unit(unit);
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

  /// Its results that are read.
  std::vector<Value> needed_of(const std::vector<int>& members) const {
    std::vector<Value> out;
    for (const int i : members)
      if (needed_.contains(node(i).value())) out.push_back(node(i).value());
    return out;
  }

  Extracted body_of_unit(int unit) const {
    const auto& members = members_[static_cast<size_t>(unit)];
    return extract(with_repeats(members, again_[static_cast<size_t>(unit)]), needed_of(members), "loops");
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
    const std::vector<Value> old = needed_of(members);
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
  std::vector<char> loops_;  // can this node be a loop?
  std::unordered_set<Value, ir::ValueHash> new_states_;
  std::vector<char> late_;                           // is it small work that only states wait for?
  std::vector<int> unit_;                            // node -> unit
  std::vector<std::vector<int>> members_;            // unit -> nodes, rising
  std::vector<std::set<int>> again_;                 // unit -> nodes of others that it computes for itself
  std::unordered_set<Value, ir::ValueHash> needed_;  // what some unit reads of another, and outputs
};

}  // namespace

ir::Graph fuse_loops(const ir::Graph& graph, const PassContext& context) {
  return rewrite::with_bodies(graph, [&](const ir::Graph& g) { return LoopFuser(g, context).run(); });
}

}  // namespace espalier::pass
