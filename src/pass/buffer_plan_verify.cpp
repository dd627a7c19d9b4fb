// Follows a plan of buffers with labels: which value's bytes are where.
#include <map>
#include <unordered_map>

#include "pass/buffer_plan.h"
#include "pass/storage.h"

namespace espalier::pass {

namespace {

using ir::Value;

/// What every byte holds: labels of ranges of the arena, and one label per slot.
class Memory {
 public:
  Memory(int64_t arena_bytes, int64_t alignment, size_t inputs, size_t outputs)
      : arena_bytes_(arena_bytes), alignment_(alignment), inputs_(inputs), outputs_(outputs) {}

  void write(const Place& p, int64_t bytes, const Value& label) {
    if (bytes == 0 || p.kind == Place::Kind::none) return;
    switch (p.kind) {
      case Place::Kind::input: inputs_.at(static_cast<size_t>(p.index)) = label; return;
      case Place::Kind::output: outputs_.at(static_cast<size_t>(p.index)) = label; return;
      case Place::Kind::arena: break;
      default: ESPALIER_CHECK(false, "a step writes to " + p.text());
    }
    ESPALIER_CHECK(
        p.offset >= 0 && p.offset % alignment_ == 0 && p.offset + bytes <= arena_bytes_,
        p.text() + " of " + std::to_string(bytes) + " bytes is not aligned or not inside the arena");
    forget(p.offset, p.offset + bytes);
    arena_[p.offset] = {p.offset + bytes, label};
  }

  /// Does `p` hold all `bytes` of `label`?
  bool holds(const Place& p, int64_t bytes, const Value& label) const {
    if (bytes == 0) return true;
    if (p.kind == Place::Kind::input) return inputs_.at(static_cast<size_t>(p.index)) == label;
    if (p.kind == Place::Kind::output) return outputs_.at(static_cast<size_t>(p.index)) == label;
    if (p.kind != Place::Kind::arena) return false;
    const auto it = arena_.find(p.offset);
    return it != arena_.end() && it->second.first == p.offset + bytes && it->second.second == label;
  }

 private:
  /// Labels of ranges that [from, to) touches are gone.
  void forget(int64_t from, int64_t to) {
    auto it = arena_.lower_bound(from);
    if (it != arena_.begin() && std::prev(it)->second.first > from) --it;
    while (it != arena_.end() && it->first < to) it = arena_.erase(it);
  }

  int64_t arena_bytes_, alignment_;
  std::vector<Value> inputs_, outputs_;
  std::map<int64_t, std::pair<int64_t, Value>> arena_;  ///< from -> to, label
};

bool overlap(const Place& a, int64_t a_bytes, const Place& b, int64_t b_bytes) {
  if (a.kind != b.kind || a.kind == Place::Kind::none || a.kind == Place::Kind::constant || a_bytes == 0 ||
      b_bytes == 0)
    return false;
  if (a.kind != Place::Kind::arena) return a.index == b.index;
  return a.offset < b.offset + b_bytes && b.offset < a.offset + a_bytes;
}

class Follower {
 public:
  Follower(const BufferPlan& plan, const ir::Graph& g, const Schedule& s, std::span<const StepFacts> facts,
           const ArenaOptions& options)
      : plan_(plan),
        graph_(g),
        schedule_(s),
        facts_(facts),
        memory_(plan.arena_bytes, options.alignment, g.inputs.size(), g.outputs.size()) {}

  void follow() {
    for (size_t i = 0; i < graph_.inputs.size(); ++i)
      memory_.write({Place::Kind::input, static_cast<int>(i), 0}, graph_.inputs[i].type().bytes(),
                    graph_.inputs[i]);
    size_t next = 0;
    for (const PlannedStep& s : plan_.steps) {
      if (!s.node) {
        follow_copy(s);
        continue;
      }
      ESPALIER_CHECK(next < schedule_.order.size() && schedule_.order[next] == s.node,
                     "the plan leaves the schedule's order");
      follow_step(s, facts_[next++]);
    }
    ESPALIER_CHECK(next == schedule_.order.size(), "the plan leaves out steps");
    check_results();
  }

 private:
  std::string name(const PlannedStep& s) const {
    return "step " + std::to_string(&s - plan_.steps.data()) + " (" +
           (s.node ? std::string(s.node->op().name) : "copy") + ")";
  }

  void follow_copy(const PlannedStep& s) {
    const Place& from = s.operands.at(0);
    if (from.kind == Place::Kind::constant) {
      memory_.write(s.results.at(0), s.bytes, plan_.constants.at(static_cast<size_t>(from.index)));
      return;
    }
    // A copy moves whatever label lies there; find it among the graph's values.
    for (const Value& v : candidates(s.bytes))
      if (memory_.holds(from, s.bytes, v)) {
        memory_.write(s.results.at(0), s.bytes, v);
        return;
      }
    ESPALIER_CHECK(s.bytes == 0, name(s) + ": nothing whole lies at " + from.text());
  }

  /// Values of `bytes` bytes that a copy may be about: storages of the outputs.
  std::vector<Value> candidates(int64_t bytes) const {
    std::vector<Value> values;
    for (const ir::Output& o : graph_.outputs)
      if (const Value v = storage_of(o.value); v.type().bytes() == bytes) values.push_back(v);
    return values;
  }

  void check_operand(const PlannedStep& s, size_t i, const StepFacts& facts) const {
    const Value v = storage_of(s.node->inputs()[i]);
    const Place& p = s.operands[i];
    const std::string what = name(s) + ": operand " + std::to_string(i);
    if (&v->op() == &ir::constant_op) {
      const bool read = i >= facts.reads.size() || facts.reads[i];
      ESPALIER_CHECK(
          !read || (p.kind == Place::Kind::constant && plan_.constants.at(static_cast<size_t>(p.index)) == v),
          what + " is not its constant");
      return;
    }
    ESPALIER_CHECK(memory_.holds(p, v.type().bytes(), v), what + " is not at " + p.text());
  }

  /// A result overlaps no other result, no scratch, and no operand but one that it is allowed to write over in place.
  void check_result(const PlannedStep& s, size_t r, const StepFacts& facts) const {
    const Place& p = s.results[r];
    const int64_t bytes = s.node->types()[r].bytes();
    const std::string what = name(s) + ": result " + std::to_string(r);
    ESPALIER_CHECK(!overlap(p, bytes, s.scratch, facts.scratch_bytes), what + " overlaps the scratch");
    for (size_t k = 0; k < r; ++k)
      ESPALIER_CHECK(!overlap(p, bytes, s.results[k], s.node->types()[k].bytes()),
                     what + " overlaps another result");
    for (size_t i = 0; i < s.operands.size(); ++i) {
      const int64_t operand_bytes = s.node->inputs()[i].type().bytes();
      if (!overlap(p, bytes, s.operands[i], operand_bytes)) continue;
      bool allowed = false;
      for (const auto& [result, operand] : facts.in_place)
        allowed = allowed || (result == static_cast<int>(r) && operand == static_cast<int>(i));
      ESPALIER_CHECK(allowed && p == s.operands[i] && bytes == operand_bytes,
                     what + " overlaps operand " + std::to_string(i) + " and may not");
    }
  }

  void follow_step(const PlannedStep& s, const StepFacts& facts) {
    ESPALIER_CHECK(s.operands.size() == s.node->inputs().size() &&
                       static_cast<int>(s.results.size()) == s.node->results(),
                   name(s) + " has another number of operands or results than its node");
    for (size_t i = 0; i < s.operands.size(); ++i) {
      check_operand(s, i, facts);
      ESPALIER_CHECK(
          !overlap(s.operands[i], s.node->inputs()[i].type().bytes(), s.scratch, facts.scratch_bytes),
          name(s) + ": operand " + std::to_string(i) + " overlaps the scratch");
    }
    for (size_t r = 0; r < s.results.size(); ++r) check_result(s, r, facts);
    memory_.write(s.scratch, facts.scratch_bytes, {});
    for (size_t r = 0; r < s.results.size(); ++r)
      memory_.write(s.results[r], s.node->types()[r].bytes(), s.node->value(static_cast<int>(r)));
  }

  void check_results() const {
    for (const ir::StatePair& pair : graph_.state) {
      const size_t in = *graph_.find_input(pair.input);
      const Value v = storage_of(graph_.outputs[*graph_.find_output(pair.output)].value);
      ESPALIER_CHECK(memory_.holds({Place::Kind::input, static_cast<int>(in), 0}, v.type().bytes(), v),
                     "state " + pair.input + " does not hold its new value at the end");
    }
    for (size_t o = 0; o < graph_.outputs.size(); ++o) {
      const Value v = storage_of(graph_.outputs[o].value);
      ESPALIER_CHECK(!plan_.output_has_slot.at(o) ||
                         memory_.holds({Place::Kind::output, static_cast<int>(o), 0}, v.type().bytes(), v),
                     "output " + graph_.outputs[o].name + " does not hold its value at the end");
    }
    for (size_t i = 0; i < graph_.inputs.size(); ++i) {
      bool state = false;
      for (const ir::StatePair& pair : graph_.state) state = state || pair.input == graph_.input_name(i);
      ESPALIER_CHECK(state || memory_.holds({Place::Kind::input, static_cast<int>(i), 0},
                                            graph_.inputs[i].type().bytes(), graph_.inputs[i]),
                     "input " + graph_.input_name(i) + " is overwritten");
    }
  }

  const BufferPlan& plan_;
  const ir::Graph& graph_;
  const Schedule& schedule_;
  std::span<const StepFacts> facts_;
  Memory memory_;
};

}  // namespace

void verify(const BufferPlan& plan, const ir::Graph& graph, const Schedule& schedule,
            std::span<const StepFacts> facts, const ArenaOptions& options) {
  Follower(plan, graph, schedule, facts, options).follow();
}

}  // namespace espalier::pass
