#pragma once
// The least that a step on a GPU must move and launch, counted on the graph as it was written (composites whole, nothing fused), so that
// plans can be held against it. It knows nothing of kernels:
//   - a contraction reads its operands and writes its result once, in one launch; what is done to its result, with one other large tensor
//     at most, goes along with it;
//   - batch norm over a batch reads x twice and writes once, its gradient reads x and dy twice and writes dx: two launches each. What is
//     done to its result goes along, and what gives its dy alone (the mask of a relu follows from x) costs nothing;
//   - any other op that meets more than one element at a time (a pooling, a loss) reads and writes once, in one launch;
//   - elementwise ops, moves and sums between these that belong together read what they need and write what others need, once: one launch,
//     none where they go along with one of the above. Those that end in outputs are updates: one launch for all of them.
#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "ir/graph.h"
#include "op/norm.h"

namespace espalier::test {

struct TrafficBound {
  int64_t bytes = 0, launches = 0;
};

class TrafficCounter {
 public:
  explicit TrafficCounter(const ir::Graph& graph) : nodes_(graph.nodes()) {
    for (const ir::Node* n : nodes_)
      for (const ir::Value& v : n->inputs()) users_[v].insert(n);
    for (const ir::Output& o : graph.outputs) outputs_.insert(o.value);
  }

  TrafficBound count() {
    find_groups();
    for (const ir::Node* n : nodes_)
      if (is_heavy(*n)) count_heavy(*n);
    bool updates = false;
    for (const auto& [root, g] : groups_) {
      for (const ir::Value& v : g.reads) bound_.bytes += v.type().bytes();
      for (const ir::Value& v : g.writes)
        if (!g.prologue) bound_.bytes += v.type().bytes();
      updates = updates || (g.ends && !g.free);
      bound_.launches += !g.ends && !g.free;
    }
    bound_.launches += updates;
    return bound_;
  }

 private:
  struct Less {
    bool operator()(const ir::Value& a, const ir::Value& b) const {
      return std::pair(a.node().id(), a.result()) < std::pair(b.node().id(), b.result());
    }
  };
  using Values = std::set<ir::Value, Less>;
  /// Light ops that belong together.
  struct Group {
    Values reads, writes;
    bool ends = true;       ///< in outputs alone
    bool free = false;      ///< goes along with another launch,
    bool prologue = false;  ///< with one that reads what it reads
  };

  static bool is_norm(const ir::Node& n) { return &n.op() == &op::batch_norm_train_op; }
  static bool is_norm_grad(const ir::Node& n) { return &n.op() == &op::batch_norm_grad_op; }
  static bool is_light(const ir::Node& n) {
    const ir::Kind k = n.op().kind;
    return k == ir::Kind::elementwise || k == ir::Kind::movement || k == ir::Kind::reduction ||
           k == ir::Kind::random || &n.op() == &op::batch_norm_op;  // statistics are known
  }
  static bool is_heavy(const ir::Node& n) { return n.op().kind != ir::Kind::leaf && !is_light(n); }
  static bool is_number(const ir::Value& v) { return v.type().elements() == 1; }

  /// Computed from its own index alone: nobody need store that.
  bool is_free(const ir::Value& v) {
    const auto known = free_.find(v);
    if (known != free_.end()) return known->second;
    bool free = ir::constant_value(v) && is_number(v);
    if (is_light(v.node()))
      free = std::ranges::all_of(v->inputs(), [&](const ir::Value& w) { return is_free(w); });
    return free_[v] = free;
  }
  bool heavy_reads(const ir::Value& v) const {
    const auto it = users_.find(v);
    return it != users_.end() &&
           std::ranges::any_of(it->second, [](const ir::Node* n) { return is_heavy(*n); });
  }
  const ir::Node* root(const ir::Node* n) const {
    const auto it = parent_.find(n);
    return it == parent_.end() || it->second == n ? n : root(it->second);
  }

  void find_groups() {
    for (const ir::Node* n : nodes_)
      if (is_light(*n))
        for (const ir::Value& v : n->inputs())
          if (is_light(v.node()) && !heavy_reads(v) && !is_free(v))
            if (const ir::Node* a = root(&v.node()), *b = root(n); a != b) parent_[a] = b;
    for (const ir::Node* n : nodes_) {
      if (!is_light(*n) || is_free(n->value())) continue;
      Group& g = groups_[root(n)];
      for (const ir::Value& v : n->inputs())
        if ((!is_light(v.node()) || heavy_reads(v)) && !is_free(v)) g.reads.insert(v);
      if (!heavy_reads(n->value()) && !outputs_.contains(n->value())) continue;
      g.writes.insert(n->value());
      g.ends = g.ends && !heavy_reads(n->value());
    }
    for (const ir::Node* n : nodes_)
      if (is_light(*n) && !is_free(n->value())) go_along(groups_.at(root(n)));
  }

  /// With the op whose result only this group reads, or with the norm's gradient that alone reads what the group makes.
  void go_along(Group& g) {
    if (g.free || g.ends) return;
    int64_t largest = 0;
    for (const ir::Value& v : g.writes) largest = std::max(largest, v.type().elements());
    const auto large =
        std::ranges::count_if(g.reads, [&](const ir::Value& v) { return v.type().elements() * 2 > largest; });
    for (const ir::Value& v : g.reads) {
      const bool contraction = v.node().op().kind == ir::Kind::contraction;
      if ((!contraction && !is_norm(v.node())) || outputs_.contains(v) || v.result() != 0) continue;
      if ((contraction && large > 2) || v.type().elements() < largest) continue;
      const auto other = [&](const ir::Node* user) {
        return is_heavy(*user) || &groups_.at(root(user)) != &g;
      };
      if (contraction && std::ranges::any_of(users_[v], other)) continue;
      if (!followed_.insert(v).second) continue;
      g.free = true;
      g.reads.erase(v);
      return;
    }
    if (g.writes.size() != 1) return;
    const ir::Value made = *g.writes.begin();
    const std::set<const ir::Node*>& readers = users_[made];
    if (readers.size() != 1 || !is_norm_grad(**readers.begin()) || outputs_.contains(made)) return;
    g.free = g.prologue = true;
    g.reads.clear();
  }

  void count_heavy(const ir::Node& n) {
    const bool norm = is_norm(n), norm_grad = is_norm_grad(n);
    for (const ir::Value& v : Values(n.inputs().begin(), n.inputs().end())) {
      const bool twice = (norm && v == n.input(0)) || (norm_grad && (v == n.input(0) || v == n.input(4)));
      bound_.bytes += is_free(v) ? 0 : v.type().bytes() * (twice ? 2 : 1);
    }
    for (int r = 0; r < n.results(); ++r)
      if (!followed_.contains(n.value(r)) && (users_.contains(n.value(r)) || outputs_.contains(n.value(r))))
        bound_.bytes += n.value(r).type().bytes();
    bound_.launches += norm || norm_grad ? 2 : 1;
  }

  const std::vector<const ir::Node*> nodes_;
  std::map<ir::Value, std::set<const ir::Node*>, Less> users_;
  std::map<ir::Value, bool, Less> free_;
  Values outputs_, followed_;
  std::map<const ir::Node*, const ir::Node*> parent_;
  std::map<const ir::Node*, Group> groups_;
  TrafficBound bound_;
};

inline TrafficBound traffic_bound(const ir::Graph& graph) { return TrafficCounter(graph).count(); }

}  // namespace espalier::test
