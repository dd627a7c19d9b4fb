#pragma once
// Runner: a program with its memory and the cells it shares with others, wherever it runs. What is above run/ needs to know no more.
#include "run/device_executor.h"
#include "run/elements.h"
#include "run/targets.h"

namespace espalier::run {

/// A cell that a program reads as one of its inputs, and writes where that is a state's.
struct BoundCell {
  size_t input = 0;
  std::shared_ptr<Elements> elements;
};

struct RunnerOptions {
  int slots = 2;  ///< of a device: runs that may be under way
  /// Of a device: a stream of the caller's (CUstream) to compute in; null is the default stream.
  std::optional<void*> stream{};
  bool sync = false;   ///< of a device: wait after every record, so that an error names its step
  bool graphs = true;  ///< of a device: launch a whole run as one
};

/// One thread at a time may use a runner.
class Runner {
 public:
  virtual ~Runner() = default;

  virtual const Program& program() const = 0;
  /// "cpu" for the host, "cuda:0".
  virtual std::string place() const { return "cpu"; }
  /// Where the next run reads input `i` from, row-major, to be written before submit(). On the host always the same place, on a device
  /// as long as every run is waited for before the next. Null for a cell and for what is bound to a device's memory.
  virtual void* input(size_t i) = 0;
  /// Read input `i` from memory where the program runs (64-byte aligned, else UserError), which stays the caller's.
  virtual void bind_input(size_t i, const void* data) = 0;
  /// Write output `o` to memory where the program runs (64-byte aligned, else UserError), which stays the caller's, from the next run on.
  virtual void bind_output(size_t o, void* data) = 0;
  /// Output `o` of the run that was last waited for, on the host; until the next submit(). UserError before any, and for one that is bound to a
  /// device's memory.
  virtual const void* output(size_t o) const = 0;

  /// Have the cells' newest elements where the next run reads them; submit() does so by itself.
  virtual void bring_cells() {}
  /// Begin a run. On the host it is over when this returns; on a device, it waits while as many runs are under way as there are slots.
  /// UserError: an input out of its declared range. DeviceError: from the device.
  virtual Ticket submit() = 0;
  /// Until that run is over. DeviceError: what went wrong in it, or before.
  virtual void wait(Ticket ticket) = 0;
  /// submit() and wait().
  virtual void run() = 0;

  /// The executor behind it: one of the two, the other is null.
  virtual Executor* on_host() { return nullptr; }
  virtual DeviceExecutor* on_device() { return nullptr; }
};

/// A runner of `program`, which was compiled for the target of `place`. UserError: too little memory there, with all figures.
std::unique_ptr<Runner> make_runner(std::shared_ptr<const Program> program, const Location& place,
                                    std::vector<BoundCell> cells, const RunnerOptions& options = {});

}  // namespace espalier::run
