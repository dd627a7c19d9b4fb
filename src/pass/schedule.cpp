#include "pass/schedule.h"

#include <algorithm>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "kernel/fused.h"
#include "pass/storage.h"

namespace espalier::pass {

namespace {

using ir::Node;
using ir::Value;

bool is_leaf(const Node& n) { return &n.op() == &ir::input_op || &n.op() == &ir::constant_op; }

/// A temporary value, or one with a home of its own (output, state), which costs and frees nothing.
struct Stored {
  int64_t bytes = 0;
  bool temporary = true;
  std::vector<int> readers;  ///< steps, each once
};

struct Step {
  const Node* node = nullptr;
  std::vector<int> reads, writes;  ///< stored values
  std::vector<int> after;          ///< steps that must wait for this one
  int waits = 0;                   ///< how many steps this one waits for
};

/// The graph as steps and stored values.
class Problem {
 public:
  explicit Problem(const ir::Graph& g) : graph_(g) {
    for (const Node* n : g.nodes())
      if (!is_leaf(*n) && !is_view(*n)) add_step(n);
    share_state();
    for (const ir::Output& o : g.outputs)
      if (const auto it = value_of_.find(storage_of(o.value)); it != value_of_.end())
        values_[index(it->second)].temporary = false;
    for (Step& s : steps_) {
      std::sort(s.after.begin(), s.after.end());
      s.after.erase(std::unique(s.after.begin(), s.after.end()), s.after.end());
      for (const int later : s.after) ++steps_[index(later)].waits;
    }
  }

  const std::vector<Step>& steps() const { return steps_; }
  const std::vector<Stored>& values() const { return values_; }
  const std::vector<char>& shared() const { return shared_; }

 private:
  static size_t index(int i) { return static_cast<size_t>(i); }

  void add_step(const Node* n) {
    const int me = static_cast<int>(steps_.size());
    steps_.push_back({n, {}, {}, {}, 0});
    step_of_[n] = me;
    for (const Value& operand : n->inputs()) {
      const Value v = storage_of(operand);
      if (const auto it = value_of_.find(v); it != value_of_.end()) {
        Stored& s = values_[index(it->second)];
        if (!s.readers.empty() && s.readers.back() == me) continue;
        s.readers.push_back(me);
        steps_.back().reads.push_back(it->second);
        steps_[index(step_of_.at(&v.node()))].after.push_back(me);
      } else if (ir::is_input(v)) {
        std::vector<int>& readers = input_readers_[v];
        if (readers.empty() || readers.back() != me) readers.push_back(me);
      }
    }
    for (int r = 0; r < n->results(); ++r) {
      const Value v = n->value(r);
      value_of_[v] = static_cast<int>(values_.size());
      steps_.back().writes.push_back(static_cast<int>(values_.size()));
      values_.push_back({v.type().bytes(), true, {}});
    }
  }

  /// Does any of `wanted` come after `from` in every order?
  bool leads_to(int from, const std::unordered_set<int>& wanted) const {
    std::unordered_set<int> seen{from};
    std::vector<int> stack{from};
    while (!stack.empty()) {
      const int s = stack.back();
      stack.pop_back();
      for (const int later : steps_[index(s)].after) {
        if (wanted.contains(later)) return true;
        if (seen.insert(later).second) stack.push_back(later);
      }
    }
    return false;
  }

  void share_state() {
    std::unordered_set<Value, ir::ValueHash> homes;
    for (const ir::StatePair& pair : graph_.state) {
      const Value old = graph_.inputs[*graph_.find_input(pair.input)];
      const Value made = storage_of(graph_.outputs[*graph_.find_output(pair.output)].value);
      const auto step = step_of_.find(&made.node());
      shared_.push_back(0);
      if (step == step_of_.end() || homes.contains(made)) continue;
      const std::vector<int>& readers = input_readers_[old];
      std::unordered_set<int> others(readers.begin(), readers.end());
      others.erase(step->second);
      if (!others.empty() && leads_to(step->second, others)) continue;
      for (const int r : readers)
        if (r != step->second) steps_[index(r)].after.push_back(step->second);
      homes.insert(made);
      shared_.back() = 1;
    }
  }

  const ir::Graph& graph_;
  std::vector<Step> steps_;
  std::vector<Stored> values_;
  std::vector<char> shared_;
  std::unordered_map<const Node*, int> step_of_;
  std::unordered_map<Value, int, ir::ValueHash> value_of_;
  std::unordered_map<Value, std::vector<int>, ir::ValueHash> input_readers_;
};

enum class Preference : uint8_t { depth_first_unless_freeing, depth_first, freeing };

/// One run through the steps by a preference, keeping count of live bytes.
class Walk {
 public:
  Walk(const Problem& problem, Preference preference) : problem_(problem), preference_(preference) {
    for (const Step& s : problem.steps()) waits_.push_back(s.waits);
    for (const Stored& v : problem.values()) unread_.push_back(static_cast<int>(v.readers.size()));
    for (size_t i = 0; i < waits_.size(); ++i)
      if (waits_[i] == 0) ready_.push_back(static_cast<int>(i));
    while (!ready_.empty()) take(choose());
    ESPALIER_CHECK(order.size() == waits_.size(), "the order of steps has a cycle");
  }

  std::vector<int> order;
  int64_t peak = 0;

 private:
  const Step& step(int s) const { return problem_.steps()[static_cast<size_t>(s)]; }
  const Stored& value(int v) const { return problem_.values()[static_cast<size_t>(v)]; }

  int64_t made(int s) const {
    int64_t bytes = 0;
    for (const int v : step(s).writes)
      if (value(v).temporary) bytes += value(v).bytes;
    return bytes;
  }
  int64_t freed(int s) const {
    int64_t bytes = 0;
    for (const int v : step(s).reads)
      if (value(v).temporary && unread_[static_cast<size_t>(v)] == 1) bytes += value(v).bytes;
    for (const int v : step(s).writes)
      if (value(v).temporary && value(v).readers.empty()) bytes += value(v).bytes;
    return bytes;
  }

  /// Position in ready_ of the next step. Depth-first order is the order of the numbers.
  size_t choose() const {
    size_t first = 0, best = 0;
    int64_t best_growth = std::numeric_limits<int64_t>::max();
    for (size_t i = 0; i < ready_.size(); ++i) {
      if (ready_[i] < ready_[first]) first = i;
      if (preference_ == Preference::depth_first) continue;
      const int64_t growth = made(ready_[i]) - freed(ready_[i]);
      if (growth < best_growth || (growth == best_growth && ready_[i] < ready_[best])) {
        best_growth = growth;
        best = i;
      }
    }
    if (preference_ == Preference::depth_first) return first;
    return preference_ == Preference::freeing || best_growth <= 0 ? best : first;
  }

  /// Bytes of results that take the place of an operand that dies.
  int64_t in_place(int s) const {
    const Node& n = *step(s).node;
    const bool pointwise =
        n.op().kind == ir::Kind::elementwise ||
        (kernel::fusion_body(n) && n.attrs<kernel::FusionAttrs>().kind != kernel::FusionKind::contraction);
    if (!pointwise) return 0;
    int64_t bytes = 0;
    std::unordered_set<int> used;
    for (const int w : step(s).writes)
      for (const int r : step(s).reads)
        if (value(w).temporary && value(r).temporary && unread_[static_cast<size_t>(r)] == 1 &&
            value(r).bytes == value(w).bytes && used.insert(r).second) {
          bytes += value(w).bytes;
          break;
        }
    return bytes;
  }

  void take(size_t at) {
    const int s = ready_[at];
    ready_.erase(ready_.begin() + static_cast<std::ptrdiff_t>(at));
    peak = std::max(peak, live_ + made(s) - in_place(s));
    live_ += made(s) - freed(s);
    for (const int v : step(s).reads) --unread_[static_cast<size_t>(v)];
    order.push_back(s);
    for (const int later : step(s).after)
      if (--waits_[static_cast<size_t>(later)] == 0) ready_.push_back(later);
  }

  const Problem& problem_;
  Preference preference_;
  std::vector<int> waits_, unread_, ready_;
  int64_t live_ = 0;
};

}  // namespace

Schedule schedule(const ir::Graph& graph) {
  const Problem problem(graph);
  std::optional<Walk> best;
  for (const Preference p :
       {Preference::depth_first_unless_freeing, Preference::depth_first, Preference::freeing}) {
    Walk walk(problem, p);
    if (!best || walk.peak < best->peak) best.emplace(std::move(walk));
  }
  Schedule result{.order = {}, .shared = problem.shared(), .live_bytes = best->peak};
  for (const int s : best->order) result.order.push_back(problem.steps()[static_cast<size_t>(s)].node);
  return result;
}

}  // namespace espalier::pass
