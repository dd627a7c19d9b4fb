#pragma once
// Executor: a Program with its memory, bound and ready. Everything is resolved when it is made: run() walks a flat list of
// calls and allocates nothing, looks nothing up and takes no lock of its own. One thread at a time may use an Executor;
// several Executors of one Program may run at once.
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "run/bindings.h"
#include "run/memory.h"
#include "run/range_check.h"
#include "run/wiring.h"

namespace espalier::run {

struct ExecutorOptions {
  /// Slots of its own for what the caller does not bind. Without them, everything must be bound before the first run().
  bool own_inputs = true, own_outputs = true, own_state = true;
  /// False: every step runs on the calling thread alone, for executors that share a machine (a server's).
  bool parallel = true;
};

class Executor {
 public:
  explicit Executor(std::shared_ptr<const Program> program, ExecutorOptions options = {});
  Executor(Executor&&) noexcept;
  Executor& operator=(Executor&&) noexcept;
  ~Executor();

  const Program& program() const { return *program_; }

  /// Where input `i` is read from; row-major elements, to be written before run(). For a state's input this is the state.
  void* input(size_t i) const { return inputs_[i]; }
  /// Where output `o` is after run(): row-major elements, valid until the next run(). For a state's output this is the state.
  void* output(size_t o) const { return outputs_[o]; }
  /// The bytes of the state of that name (its input's name); UserError lists the names. Zeros until written.
  void* state(std::string_view name) const;

  /// Read input `i` from memory of the caller's (64-byte aligned, else UserError) from now on. It is never written to, unless it is
  /// a state's.
  void bind_input(size_t i, const void* data);
  /// Write output `o` to memory of the caller's (64-byte aligned) from now on. A state's output cannot be bound: bind the state.
  void bind_output(size_t o, void* data);
  /// Use memory of the caller's (64-byte aligned) as the state: several programs can share a parameter's.
  void bind_state(std::string_view name, void* data);

  /// Run every step once. UserError: an input out of its declared range, something unbound, a state or a bound output that shares memory with another
  /// place.
  void run();
  /// The same, and the nanoseconds each step took, one per step of the program.
  void run_timed(std::span<int64_t> step_ns);

  /// Fill the arena and own output slots with NaN patterns: no result can depend on what an earlier run left.
  void poison();
  /// After poison() and runs: InternalError where a step wrote between the buffers of a program compiled with red zones.
  void check_red_zones() const;
  /// Bytes of the one allocation.
  int64_t allocated_bytes() const { return memory_.bytes(); }

 private:
  void start();
  void set_input(size_t i, void* data);
  void set_output(size_t o, void* data);
  uint64_t bound_at(size_t place) const;
  [[noreturn]] void fail_unbound() const;

  std::shared_ptr<const Program> program_;
  ExecutorOptions options_;
  Wiring wiring_;
  Bindings bindings_;
  Memory memory_;
  int64_t output_bytes_ = 0;
  std::vector<void*> pointers_;  ///< of all calls, one after the other
  std::vector<Call> calls_;
  std::vector<void*> inputs_, outputs_;
  std::vector<RangeCheck> checks_;
  size_t unbound_ = 0;
};

}  // namespace espalier::run
