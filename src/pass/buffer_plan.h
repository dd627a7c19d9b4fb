#pragma once
// The planned level: where every value's bytes lie, and what is copied.
//
// Inputs and outputs have slots of their own for the whole run; the two sides of a state pair share the input's slot where
// the schedule allows it and the kernel that makes the new value does not read the old one, or may write over it.
// Constants lie outside. Everything else, kernels' scratch included, lies in one arena (memory_plan.h); a result takes the
// bytes of an operand that dies with the step where the kernel allows that.
//
// What cannot be had by placing alone is copied: before the first step an output (or the new side of a state pair) that is
// an input or a constant, after the last step one whose value lies elsewhere.
#include <utility>

#include "pass/memory_plan.h"
#include "pass/schedule.h"

namespace espalier::pass {

/// What the planner must know of the kernel of a step.
struct StepFacts {
  std::vector<std::pair<int, int>>
      in_place;  ///< (result, operand): that result may be written over that operand
  int64_t scratch_bytes = 0;
  std::vector<char> reads;  ///< per operand; a constant that is not read is not placed
};

/// Where bytes lie.
struct Place {
  enum class Kind : uint8_t {
    none,      ///< nowhere: a constant that its kernel has packed; no scratch
    arena,     ///< at `offset`
    input,     ///< slot of input `index` (the state itself, for the input of a state pair)
    output,    ///< slot of output `index`
    constant,  ///< constant `index`
  };
  Kind kind = Kind::none;
  int index = 0;
  int64_t offset = 0;
  bool operator==(const Place&) const = default;
  std::string text() const;  ///< "arena+64", "input 2"
};

struct PlannedStep {
  const ir::Node* node = nullptr;  ///< null for a copy of operand 0 to result 0
  std::vector<Place> operands, results;
  Place scratch;
  int64_t bytes = 0;  ///< of a copy
};

/// Bytes of the arena that are one buffer's at all times.
struct ArenaBuffer {
  int64_t offset = 0, bytes = 0;
};

/// Bytes of the arena that nobody writes to.
struct RedZone {
  int64_t offset = 0, bytes = 0;
};

struct BufferPlan {
  std::vector<PlannedStep> steps;
  std::vector<ir::Value> constants;  ///< those that some kernel reads
  std::vector<char>
      output_has_slot;  ///< per output: false where it is a state's new side, which lies in the state
  int64_t arena_bytes = 0;
  int64_t largest_live_bytes = 0;    ///< in the arena
  std::vector<RedZone> red_zones;    ///< where options ask for them
  std::vector<ArenaBuffer> buffers;  ///< all of them, where they lie apart: each begins at a place of its own
};

/// The plan of `graph` in the order of `schedule`; `facts` has one entry per node of that order.
BufferPlan plan_buffers(const ir::Graph& graph, const Schedule& schedule, std::span<const StepFacts> facts,
                        const ArenaOptions& options = {});

/// Follow the plan with labels instead of numbers: every step finds in each place the value it means to read, and at the end
/// each output and state holds its value. Independent of how the plan was made. InternalError says what is wrong.
void verify(const BufferPlan& plan, const ir::Graph& graph, const Schedule& schedule,
            std::span<const StepFacts> facts, const ArenaOptions& options = {});

}  // namespace espalier::pass
