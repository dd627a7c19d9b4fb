#include "pass/buffer_plan.h"

#include <algorithm>
#include <unordered_map>

#include "pass/storage.h"

namespace espalier::pass {

namespace {

using ir::Node;
using ir::Value;

bool is_constant(const Value& v) { return &v->op() == &ir::constant_op; }

class BufferPlanner {
 public:
  BufferPlanner(const ir::Graph& g, const Schedule& s, std::span<const StepFacts> facts,
                const ArenaOptions& options)
      : graph_(g), schedule_(s), facts_(facts), options_(options) {
    ESPALIER_CHECK(facts.size() == s.order.size(), "one entry of facts per step");
    for (size_t i = 0; i < g.inputs.size(); ++i)
      places_[g.inputs[i]] = {Place::Kind::input, static_cast<int>(i), 0};
  }

  BufferPlan plan() {
    count_readers();
    list_targets();
    choose_homes();
    copies_before();
    for (size_t i = 0; i < schedule_.order.size(); ++i) add_step(*schedule_.order[i], facts_[i]);
    copies_after();
    place_arena();
    return std::move(plan_);
  }

 private:
  struct Target {
    Value made;  ///< the storage of an output
    Place to;
    bool state;   ///< the new side of a state pair
    bool direct;  ///< a step may write it there
    Place aside;  ///< where it waits, when it is another state's old side
  };
  int now() const { return static_cast<int>(plan_.steps.size()); }
  /// The number of an arena buffer is held in `index` until the arena is laid out.
  Place new_buffer(int64_t bytes) {
    lifetimes_.push_back({bytes, now(), now()});
    return {Place::Kind::arena, static_cast<int>(lifetimes_.size()) - 1, 0};
  }
  void used_now(const Place& p) {
    if (p.kind == Place::Kind::arena) lifetimes_[static_cast<size_t>(p.index)].last = now();
  }

  void count_readers() {
    for (const Node* n : schedule_.order)
      for (const Value& operand : n->inputs()) ++unread_[storage_of(operand)];
    for (const ir::Output& o : graph_.outputs) ++unread_[storage_of(o.value)];
  }

  /// May the step that makes `made` write it over input slot `slot`, given what the step reads of it?
  bool may_overwrite(const Value& made, const Value& old) const {
    const auto at = std::find(schedule_.order.begin(), schedule_.order.end(), &made.node());
    const StepFacts& facts = facts_[static_cast<size_t>(at - schedule_.order.begin())];
    return allows_in_place(made.node(), made.result(), old, facts);
  }

  /// Every operand of `n` whose bytes are those of `storage` may be written over by `result`.
  static bool allows_in_place(const Node& n, int result, const Value& storage, const StepFacts& facts) {
    for (size_t i = 0; i < n.inputs().size(); ++i)
      if (storage_of(n.inputs()[i]) == storage &&
          std::find(facts.in_place.begin(), facts.in_place.end(), std::pair(result, static_cast<int>(i))) ==
              facts.in_place.end())
        return false;
    return true;
  }

  /// Where each output has to be at the end of a run: states first, so that a value that is both is made in the state.
  void list_targets() {
    std::vector<char> is_state(graph_.inputs.size());
    plan_.output_has_slot.assign(graph_.outputs.size(), 1);
    for (size_t s = 0; s < graph_.state.size(); ++s) {
      const size_t in = *graph_.find_input(graph_.state[s].input),
                   out = *graph_.find_output(graph_.state[s].output);
      ESPALIER_CHECK(!is_state[in], "two new values for the state " + graph_.state[s].input);
      is_state[in] = 1;
      plan_.output_has_slot[out] = 0;
      targets_.push_back({storage_of(graph_.outputs[out].value),
                          {Place::Kind::input, static_cast<int>(in), 0},
                          true,
                          schedule_.shared[s] != 0,
                          {}});
    }
    for (size_t o = 0; o < graph_.outputs.size(); ++o)
      if (plan_.output_has_slot[o])
        targets_.push_back({storage_of(graph_.outputs[o].value),
                            {Place::Kind::output, static_cast<int>(o), 0},
                            false,
                            true,
                            {}});
  }

  /// Values made by a step that lie where they have to be from the start.
  void choose_homes() {
    for (const Target& t : targets_) {
      if (is_constant(t.made) || places_.contains(t.made) || !t.direct) continue;
      if (t.state && !may_overwrite(t.made, graph_.inputs[static_cast<size_t>(t.to.index)])) continue;
      places_[t.made] = t.to;
    }
  }

  void copy(const Place& from, const Place& to, int64_t bytes) {
    used_now(from);
    used_now(to);
    plan_.steps.push_back({nullptr, {from}, {to}, {}, bytes});
  }

  /// Outputs that are inputs or constants; the old side of another state pair is put aside before it is overwritten.
  void copies_before() {
    for (Target& t : targets_) {
      const int64_t bytes = t.made.type().bytes();
      if (is_constant(t.made)) {
        if (!t.state) copy(constant_place(t.made), t.to, bytes);
      } else if (ir::is_input(t.made) && places_.at(t.made) != t.to) {
        t.aside = t.state ? new_buffer(bytes) : t.to;
        copy(places_.at(t.made), t.aside, bytes);
      }
    }
  }

  /// What is not yet where it has to be.
  void copies_after() {
    for (const Target& t : targets_) {
      Place from = places_.contains(t.made) ? places_.at(t.made) : Place{};
      if (is_constant(t.made)) {
        if (!t.state) continue;
        from = constant_place(t.made);
      } else if (ir::is_input(t.made)) {
        from = t.aside.kind == Place::Kind::none ? t.to : t.aside;
      }
      if (from != t.to) copy(from, t.to, t.made.type().bytes());
    }
  }

  Place constant_place(const Value& v) {
    const auto [it, added] =
        places_.try_emplace(v, Place{Place::Kind::constant, static_cast<int>(plan_.constants.size()), 0});
    if (added) plan_.constants.push_back(v);
    return it->second;
  }

  void add_step(const Node& n, const StepFacts& facts) {
    PlannedStep step{&n, {}, {}, {}, 0};
    for (size_t i = 0; i < n.inputs().size(); ++i) {
      const Value v = storage_of(n.inputs()[i]);
      const bool read = i >= facts.reads.size() || facts.reads[i];
      if (is_constant(v)) step.operands.push_back(read ? constant_place(v) : Place{});
      else step.operands.push_back(places_.at(v));
      used_now(step.operands.back());
      --unread_[v];
    }
    std::vector<char> taken(n.inputs().size());
    for (int r = 0; r < n.results(); ++r) {
      const Value v = n.value(r);
      if (!places_.contains(v)) places_[v] = place_result(n, r, facts, step, taken);
      used_now(places_[v]);
      step.results.push_back(places_[v]);
    }
    if (facts.scratch_bytes > 0) step.scratch = new_buffer(facts.scratch_bytes);
    plan_.steps.push_back(std::move(step));
  }

  /// Over an operand that dies here, or in a new buffer.
  Place place_result(const Node& n, int result, const StepFacts& facts, const PlannedStep& step,
                     std::vector<char>& taken) {
    const int64_t bytes = n.types()[static_cast<size_t>(result)].bytes();
    for (const auto& [r, operand] : facts.in_place) {
      const auto o = static_cast<size_t>(operand);
      if (r != result || step.operands[o].kind != Place::Kind::arena) continue;
      const Value v = storage_of(n.inputs()[o]);
      if (unread_[v] != 0 || v.type().bytes() != bytes || !allows_in_place(n, result, v, facts)) continue;
      if (is_taken(step, taken, step.operands[o])) continue;
      taken[o] = 1;
      return step.operands[o];
    }
    return new_buffer(bytes);
  }

  static bool is_taken(const PlannedStep& step, const std::vector<char>& taken, const Place& place) {
    for (size_t i = 0; i < taken.size(); ++i)
      if (taken[i] && step.operands[i] == place) return true;
    return false;
  }

  void place_arena() {
    const MemoryPlan memory = plan_memory(lifetimes_, options_);
    verify(memory, lifetimes_, options_);
    for (size_t i = 0; i < lifetimes_.size() && options_.red_zone > 0; ++i) {
      const int64_t end = lifetimes_[i].bytes + options_.red_zone;
      plan_.red_zones.push_back(
          {memory.offsets[i] + lifetimes_[i].bytes, round_up(end, options_.alignment) - lifetimes_[i].bytes});
    }
    for (size_t i = 0; i < lifetimes_.size() && options_.apart; ++i)
      plan_.buffers.push_back({memory.offsets[i], lifetimes_[i].bytes});
    plan_.arena_bytes = memory.bytes;
    plan_.largest_live_bytes = memory.largest_live_bytes;
    const auto settle = [&](Place& p) {
      if (p.kind == Place::Kind::arena)
        p = {Place::Kind::arena, 0, memory.offsets[static_cast<size_t>(p.index)]};
    };
    for (PlannedStep& s : plan_.steps) {
      std::for_each(s.operands.begin(), s.operands.end(), settle);
      std::for_each(s.results.begin(), s.results.end(), settle);
      settle(s.scratch);
    }
  }

  const ir::Graph& graph_;
  const Schedule& schedule_;
  std::span<const StepFacts> facts_;
  const ArenaOptions options_;
  std::unordered_map<Value, Place, ir::ValueHash> places_;
  std::unordered_map<Value, int, ir::ValueHash> unread_;
  std::vector<Target> targets_;
  std::vector<Lifetime> lifetimes_;
  BufferPlan plan_;
};

}  // namespace

std::string Place::text() const {
  switch (kind) {
    case Kind::none: return "none";
    case Kind::arena: return "arena+" + std::to_string(offset);
    case Kind::input: return "input " + std::to_string(index);
    case Kind::output: return "output " + std::to_string(index);
    case Kind::constant: return "constant " + std::to_string(index);
  }
  return "";
}

BufferPlan plan_buffers(const ir::Graph& graph, const Schedule& schedule, std::span<const StepFacts> facts,
                        const ArenaOptions& options) {
  return BufferPlanner(graph, schedule, facts, options).plan();
}

}  // namespace espalier::pass
