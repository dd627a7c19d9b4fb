#pragma once
// Program: a graph compiled for one target, immutable. It holds the steps in order, where every operand and result lies, and
// the exact memory a run takes; executors (run/executor.h) run it. Thread-safe: any number of threads may read one Program
// and run it in executors of their own.
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "pass/buffer_plan.h"
#include "pass/pass.h"
#include "target/interface.h"

namespace espalier::run {

/// An input whose elements must be in a range, checked at the start of every run: [low, high) for integers, low to high with both
/// ends for floating dtypes, where NaN is outside.
struct InputRange {
  std::string input;
  int64_t low = 0, high = 0;
  bool operator==(const InputRange&) const = default;
};

struct CompileOptions {
  const target::Target* target = nullptr;  ///< null: the default target
  pass::Precision precision = pass::Precision::f32;
  bool exact = false;  ///< no pass and no kernel that rounds otherwise than the graph says
  /// On a GPU products and convolutions of f32 may round their operands to TF32 (10 bits of fraction, f32's range); sums stay in f32. On
  /// the host it changes nothing. Not with `exact`.
  bool allow_tf32 = false;
  double loss_scale = 1;                   ///< static loss scale for f16 training
  std::map<std::string, int64_t> symbols;  ///< numbers for symbolic dims
  std::vector<InputRange> ranges;
  std::set<std::string, std::less<>> disabled;  ///< passes to skip, by name
  bool verify = true;                           ///< check the graph after every pass, and the plan
  /// Above 0, for finding kernels that write where they must not: so many bytes at least behind every buffer of the arena, which
  /// executors check (check_red_zones()); no two buffers share memory then.
  int64_t red_zone = 0;
  /// For finding kernels that reach outside of their buffers, on a device: each buffer (constants, states, inputs and outputs, those of
  /// bodies, too) is an allocation of its own bytes, so that whatever guards allocations sees it. Aliases of the plan stay. Not with `red_zone`.
  bool apart = false;
  /// With `apart`, above 0: a seed. Each buffer begins at a drawn place that divides by what the records that name it need, and by no more.
  uint64_t offsets = 0;
  std::function<void(std::string_view pass, const std::string& text)>
      print_changed;  ///< called after a pass that changed

  /// All that decides the program, as text; printing hooks do not.
  std::string key() const;
};

/// The bytes by which the addresses of a program's inputs and outputs divide; those not named: 64.
struct SlotAlignment {
  std::vector<int64_t> inputs, outputs;
};

/// A named input or output.
struct Port {
  std::string name;
  ir::Type type;
  int64_t bytes() const { return type.bytes(); }
};

/// A state pair: input and output number of its two sides.
struct State {
  std::string name;  ///< of the input
  int input = 0, output = 0;
  bool in_place =
      false;  ///< the new value is written over the old one; else it is copied there after the last step
};

/// What people should know of a program's steps: a library that is missing and why, a figure that is assumed, what did not go along with what.
struct Note {
  std::string text;
  int64_t steps = 0;  ///< that it is about
};

class Program;

/// How a step of control flow runs its bodies. The step's operands are the carries, then (scan) arrays of which each turn sees a row,
/// then what every turn sees whole; of cond the condition, then what the bodies see. Results are the carries' last values, then
/// (scan) arrays of which each turn writes a row.
struct ControlFlow {
  enum class Kind : uint8_t { none, scan, cond, while_loop };
  Kind kind = Kind::none;
  size_t operands = 0;
  std::vector<int64_t> carry_bytes;                 ///< a carry lives in its result, where it is put first
  std::vector<int64_t> slice_bytes, stacked_bytes;  ///< of a row
  int64_t length = 0;                               ///< turns of a scan
  bool reverse = false;                             ///< the last row first

  size_t carries() const { return carry_bytes.size(); }
  int64_t row(int64_t turn) const { return reverse ? length - 1 - turn : turn; }
};

struct Step {
  std::string op;      ///< "dot", "fusion", "copy"
  std::string detail;  ///< the ops inside a fusion, the result types
  std::string label;   ///< what people called the node, where they did
  std::unique_ptr<target::Kernel> kernel;
  std::vector<pass::Place> buffers;  ///< operands, then results
  size_t operands = 0;
  pass::Place scratch;
  target::Cost cost;
  std::vector<kernel::Refusal> refusals;  ///< of better kernels that declined
  ControlFlow control;
  std::vector<std::shared_ptr<const Program>>
      bodies;  ///< of control flow: the programs that run inside this step
};

/// What people call the step: its op, and its label where it has one.
inline std::string name_of(const Step& s) { return s.label.empty() ? s.op : s.op + " " + s.label; }

/// Bytes, all known before the first run.
struct MemoryUse {
  int64_t arena = 0,
          largest_live_set = 0;  ///< temporary values and scratch; the second bounds the first from below
  int64_t inputs = 0, outputs = 0, state = 0;
  int64_t constants = 0, packed = 0;
  int64_t total() const { return arena + inputs + outputs + state + constants + packed; }
};

class Program {
 public:
  /// Compile a tensor-level graph: bind symbols, run the passes, order, prepare kernels, plan memory.
  /// UserError: an input that is still symbolic, a range for no integer input, `exact` with `allow_tf32`.
  static std::shared_ptr<const Program> compile(const ir::Graph& graph, const CompileOptions& options = {});
  /// Compile a graph as it stands, without passes (a fused-level graph, or a tensor-level one op by op). `notes`: of the passes before.
  static std::shared_ptr<const Program> compile_fused(const ir::Graph& graph,
                                                      const CompileOptions& options = {},
                                                      std::span<const std::string> notes = {});

  const std::string& name() const { return name_; }
  std::string_view target() const { return target_; }
  /// The target with what of the machine its kernels were chosen for (TargetSpec::machine).
  const std::string& machine() const { return machine_; }
  const std::vector<Port>& inputs() const { return inputs_; }
  const std::vector<Port>& outputs() const { return outputs_; }
  const std::vector<State>& state() const { return state_; }
  const std::vector<Step>& steps() const { return steps_; }
  /// Row-major arrays at 64-byte boundaries.
  const std::vector<ir::Array>& constants() const { return constants_; }
  const std::vector<InputRange>& ranges() const { return ranges_; }
  const MemoryUse& memory() const { return memory_; }
  const std::vector<pass::RedZone>& red_zones() const { return red_zones_; }
  /// CompileOptions::apart and ::offsets, and then the arena's buffers, each beginning at another offset.
  bool apart() const { return apart_; }
  uint64_t offsets() const { return offsets_; }
  const std::vector<pass::ArenaBuffer>& arena_buffers() const { return arena_buffers_; }
  /// What the passes did; empty for compile_fused().
  const std::vector<pass::PassReport>& passes() const { return passes_; }
  /// Of its steps and those of their bodies, then of the passes.
  const std::vector<Note>& notes() const { return notes_; }
  /// The input of the state of that name; UserError lists the names.
  size_t state_index(std::string_view name) const;
  /// Is output `o` the new side of a state pair (which then lies in the state, not in a slot of its own)?
  bool is_state_output(size_t o) const { return state_output_[o] >= 0; }
  /// The input whose slot holds output `o`, or -1.
  int state_input(size_t o) const { return state_output_[o]; }
  /// Is input `i` the old side of a state pair?
  bool is_state_input(size_t i) const { return is_state_input_[i] != 0; }

  /// Arena, slots, constants and packed weights, in bytes: what a run needs in all.
  int64_t planned_bytes() const { return memory_.total(); }
  /// Counting direct algorithms, of one run.
  double flops() const;
  /// A hash of what decides the bits of a run beside the machine: the graph after the passes (large constants by their type), the
  /// kernel of every step, its chunks. The same in every process and for any number of threads: scratch, whose size some libraries
  /// choose by their team, and places have no part in it.
  uint64_t identity() const { return identity_; }
  /// Steps, buffers and memory, one per line: the golden text.
  std::string text() const;

 private:
  friend class ProgramBuilder;
  Program() = default;

  std::string name_, target_, machine_;
  std::vector<Port> inputs_, outputs_;
  std::vector<State> state_;
  std::vector<Step> steps_;
  std::vector<ir::Array> constants_;
  std::vector<InputRange> ranges_;
  std::vector<int> state_output_;
  std::vector<char> is_state_input_;
  MemoryUse memory_;
  std::vector<pass::RedZone> red_zones_;
  bool apart_ = false;
  uint64_t offsets_ = 0;
  std::vector<pass::ArenaBuffer> arena_buffers_;
  uint64_t identity_ = 0;
  std::vector<pass::PassReport> passes_;
  std::vector<Note> notes_;
};

}  // namespace espalier::run
