#pragma once
// DeviceExecutor: a program on a device, with its memory. A run is asynchronous: submit() puts the copies and launches of one run into
// the device's streams and returns a ticket; several runs may be under way. Inputs and outputs lie in a ring of slots, pinned on the
// host and in the device's memory, so that the copies of one run go on beside the launches of another:
//
//   copy-in stream    upload of run k+1: waits only for the run that used its slot before
//   compute stream    launches of run k
//   copy-out stream   download of run k-1
//
// One thread at a time may use an executor.
#include <optional>

#include "run/device_layout.h"
#include "run/device_program.h"
#include "run/device_timer.h"
#include "run/executor.h"
#include "run/held_results.h"
#include "run/scratch.h"

namespace espalier::run {

struct DeviceExecutorOptions {
  int slots = 2;  ///< runs that may be under way
  /// A state of its own for what bind_state() does not name.
  bool own_state = true;
  /// Wait after every record, so that an error names the step it came from.
  bool sync = false;
  /// From the second run in a slot on, a run's launches are kept as one (a CUDA graph), unless something on the host decides between
  /// them: cond, while_loop, `sync`.
  bool graphs = true;
  /// Compute in this stream of the device, which the caller keeps; none: in one of its own.
  std::optional<target::Stream> stream{};
  /// Where programs compute that run one after the other; null: in an arena of its own. Whoever begins a run, or makes the executor, then has
  /// the device's turn. Programs with red zones and those whose buffers lie apart have their own.
  std::shared_ptr<Scratch> scratch{};
  /// Inputs without a place in the slots: bound to the device's memory before the first run.
  std::vector<size_t> external{};
  /// What will be allocated for the program after the executor: errors say it.
  BesideExecutor beside{};
};

/// What a run that submit() threw from has left of the program's states.
enum class StatesLeft : uint8_t {
  before,  ///< as they were before it
  after,   ///< as after it: only its outputs are missing
  torn,    ///< some are written
};

/// The number of a run, from 0 on.
using Ticket = int64_t;

class DeviceExecutor {
 public:
  /// UserError: the device has less free memory than the plan asks for, with both figures. OutOfMemory: it had enough, and then not.
  explicit DeviceExecutor(std::shared_ptr<const DeviceProgram> program, DeviceExecutorOptions options = {});
  DeviceExecutor(DeviceExecutor&&) noexcept;
  DeviceExecutor& operator=(DeviceExecutor&&) = delete;
  /// Waits for what is under way.
  ~DeviceExecutor();

  const Program& program() const { return program_->program(); }

  /// Where the next run reads input `i` from: pinned memory of the host, row-major, to be written before submit(). Waits until an
  /// earlier run has been copied from it. The same place as before where the last run has been waited for and nobody holds its results.
  /// Null for a state's input and for one bound to the device's memory. UserError as of submit().
  void* input(size_t i);
  /// Read input `i` from the device's memory (64-byte aligned, else UserError) from the next run on, in place of the slot.
  void bind_input(size_t i, target::Address data);
  /// Write output `o` to the device's memory (64-byte aligned, else UserError) from the next run on, in place of the slot: it is not copied to
  /// the host. A state's output cannot be bound: bind the state.
  void bind_output(size_t o, target::Address data);
  /// Did that run write output `o` there?
  bool is_bound_output(Ticket ticket, size_t o) const { return outputs_[o] != 0 && ticket >= bound_from_[o]; }
  /// Use memory of the device as the state: several programs can share a parameter's.
  void bind_state(std::string_view name, target::Address data);
  /// Where the state of that name lies; UserError lists the names.
  target::Address state(std::string_view name) const;
  /// Copy the state to or from the host, after all that is under way.
  void write_state(std::string_view name, const void* from);
  void read_state(std::string_view name, void* to);

  /// Put one run into the streams. UserError: an input out of its declared range, something unbound, a state or a bound output that shares memory with another place. Waits while as many runs are under
  /// way as there are slots. Slots whose results are held keep them: UserError where all are, or where the others' runs have not been
  /// waited for.
  Ticket submit();
  /// After a DeviceError of submit(). Runs that are launched as one are never torn.
  StatesLeft states_left() const { return states_left_; }
  /// Has no run launched its records yet? That run is launched one by one, and where it fails, states may be torn.
  bool is_fresh() const { return !warm_; }
  /// Why runs are not launched as one, in a few words; "" where they are, from the second on. A run that cannot be captured is launched record by
  /// record; when that has happened twice, all are.
  const std::string& why_no_graphs() const { return why_no_graphs_; }
  /// What went wrong with the last run that could not be captured; "" where there was none.
  const std::string& failed_capture() const { return failed_capture_; }
  /// Until that run and its copies are done. DeviceError: what went wrong on the device, now or before.
  void wait(Ticket ticket);
  /// Output `o` of a run that has been waited for: row-major, of the host, until another run is submitted into its slot (whether that one fails or not): the
  /// next one where it was the last, else one later; then UserError. Null for a state's output, which read_state() reads, and for one that is
  /// bound.
  const void* output(Ticket ticket, size_t o) const;
  /// Where output `o` of a run lies on the device, for as long as `held` lives, whatever becomes of this executor. See HeldResults of
  /// `reader`, and of none. UserError where a later run has its slot, and for one that is bound. Null for a state's.
  struct OnDevice {
    target::Address at = 0;
    std::shared_ptr<const HeldResults> held;
  };
  OnDevice hold(Ticket ticket, size_t o, OwnedStream reader);
  /// submit() and wait().
  Ticket run();

  /// Fill the arena and the outputs with NaN patterns: no result can depend on what an earlier run left.
  void poison();
  /// After poison() and runs: InternalError where a step wrote between the buffers of a program compiled with red zones.
  void check_red_zones();
  /// Time what is put into the streams from here on; null: no more. The timer must live as long.
  void set_timer(DeviceTimer* timer) { timer_ = timer; }
  const DeviceExecutorOptions& options() const { return options_; }
  const DeviceProgram& device_program() const { return *program_; }
  /// That were begun.
  int64_t runs() const { return next_; }
  /// Runs whose launches were given to the device as one.
  int64_t replays() const { return replays_; }
  /// Bytes that are copied to and from the device for each run.
  int64_t input_bytes() const;
  int64_t output_bytes() const;
  /// Bytes of the device's memory, with an arena that is shared, constants and bound memory left out.
  int64_t allocated_bytes() const {
    return program().apart() ? memory_->apart.bytes() : layout_.bytes() + layout_.arena - layout_.own_arena;
  }

 private:
  struct Frame;
  struct Slot;

  void allocate();
  void place_arena();
  void choose_graphs();
  void set_input(size_t i, target::Address data);
  /// Of the next run: none that is held.
  Slot& next_slot();
  Slot* slot_of(Ticket ticket) const;
  void upload(Slot& slot);
  void check_ranges(const Slot& slot) const;
  void compute(Slot& slot);
  void download(Slot& slot);
  void sync_all();
  std::unique_ptr<Frame> make_frame(const DeviceBody& body, char* arena);
  std::map<int64_t, char*> place_apart(const Program& program);
  target::Address place(target::Address in_memory, int64_t bytes, int64_t need);
  void make_slots();
  void lay_copies();
  std::unique_ptr<target::DeviceGraph> captured();
  [[noreturn]] void fail_overwritten(Ticket ticket) const;
  void run_frame(Frame& frame);
  void run_step(Frame& frame, size_t step);
  void begin_carries(const Frame& frame, size_t step, void** buffers);
  void run_scan(Frame& frame, size_t step, void** buffers);
  void run_cond(Frame& frame, size_t step, void** buffers);
  void run_while(Frame& frame, size_t step, void** buffers);
  bool read_flag(const void* flag);
  void launch(size_t call, void** buffers, size_t count, char* scratch);
  /// The launches of one run, for the stream or for a graph.
  void run_all(StatesLeft on_write);
  bool times_records() const { return timer_ && timer_->times_records(); }
  /// `work` puts something into the stream, which is timed where `when`.
  template <class Work>
  void timed(bool when, Lane lane, int64_t call, target::Stream stream, const Work& work) {
    if (when) timer_->time(lane, next_, call, stream, work);
    else work();
  }

  std::shared_ptr<const DeviceProgram> program_;
  DeviceExecutorOptions options_;
  DeviceLayout layout_;
  /// One allocation, or one for each buffer.
  struct ExecutorMemory {
    DeviceMemory whole;
    ApartMemory apart;
  };
  std::shared_ptr<ExecutorMemory> memory_;  ///< shared with those who hold results
  /// Part of the device's memory.
  struct Piece {
    target::Address at = 0;
    int64_t bytes = 0;
  };
  std::unique_ptr<Scratch::Share> share_;  ///< null: the arena is in memory_
  target::Address arena_ = 0;
  std::vector<Piece>
      poisoned_;  ///< of buffers apart: what steps write and no run leaves to the next, but for results
  std::vector<target::Address> inputs_, outputs_;  ///< bound to the device's memory, or 0: in the slot
  std::vector<Ticket> bound_from_;  ///< of each output that is bound: the first run that writes it there
  Bindings bindings_;
  OwnedStream copy_in_, own_compute_, copy_out_;
  target::Stream compute_{};
  PinnedMemory flag_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::unique_ptr<Frame> frame_;
  std::vector<target::Address> operands_;  ///< of a launch
  std::vector<RangeCheck> checks_;
  bool asked_ = false;  ///< input() has given out places of the next run's slot
  Ticket next_ = 0;
  size_t slot_ = 0;    ///< of the next run
  bool warm_ = false;  ///< a run has launched all kernels one by one
  std::string why_no_graphs_, failed_capture_;
  int failed_captures_ = 0;
  size_t first_writer_ = 0;                 ///< step that writes a state; their number where none does
  size_t step_ = 0;                         ///< of the outermost program, now
  StatesLeft on_write_ = StatesLeft::torn;  ///< what states_left_ becomes when one is written
  StatesLeft states_left_ = StatesLeft::before;
  DeviceTimer* timer_ = nullptr;
  int64_t replays_ = 0;
};

}  // namespace espalier::run
