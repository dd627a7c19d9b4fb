#include "run/runner.h"

#include <cstring>
#include <set>

namespace espalier::run {

namespace {

[[noreturn]] void fail_no_output(const Program& program) {
  throw UserError({"program " + program.name(), "has no output yet", "", "a run that is waited for"});
}

class HostRunner final : public Runner {
 public:
  HostRunner(std::shared_ptr<const Program> program, std::vector<BoundCell> cells)
      : executor_(std::move(program)), cells_(std::move(cells)) {
    for (const BoundCell& c : cells_) executor_.bind_input(c.input, c.elements->host().data());
  }

  const Program& program() const override { return executor_.program(); }
  void* input(size_t i) override { return bound_.contains(i) ? nullptr : executor_.input(i); }
  void bind_input(size_t i, const void* data) override {
    executor_.bind_input(i, data);
    bound_.insert(i);
  }
  void bind_output(size_t o, void* data) override {
    executor_.bind_output(o, data);
    no_output_.insert(o);
  }
  const void* output(size_t o) const override {
    if (runs_ == 0 || no_output_.contains(o)) [[unlikely]]
      fail_no_output(program());
    return executor_.output(o);
  }
  Ticket submit() override { return run(), runs_ - 1; }
  void wait(Ticket ticket) override { ESPALIER_CHECK(ticket < runs_, "no run has this ticket"); }
  void run() override {
    if (Elements::any_on_devices()) [[unlikely]]
      for (const BoundCell& c : cells_) c.elements->read();
    executor_.run();
    if (!no_output_.empty()) [[unlikely]]
      no_output_.clear();
    ++runs_;
    if (Elements::any_on_devices()) [[unlikely]]
      for (const BoundCell& c : cells_)
        if (program().is_state_input(c.input)) c.elements->written_on_host();
  }
  Executor* on_host() override { return &executor_; }

 private:
  Executor executor_;
  std::vector<BoundCell> cells_;
  std::set<size_t> bound_;      ///< inputs in memory of the caller's, which is only read
  std::set<size_t> no_output_;  ///< bound since the last run
  Ticket runs_ = 0;
};

/// Cells that a program only reads go with the inputs of each run where they are this small: the host may write them while runs are
/// under way, as it does with a learning rate.
constexpr int64_t most_travelling_bytes = 16;

class DeviceRunner final : public Runner {
 public:
  DeviceRunner(std::shared_ptr<const Program> program, std::shared_ptr<OpenDevice> device,
               const std::vector<BoundCell>& cells, const RunnerOptions& options)
      : device_(std::move(device)), foreign_(stream_of(options)) {
    for (const BoundCell& c : cells) {
      const bool state = program->is_state_input(c.input);
      const bool travels = !state && c.elements->host().bytes() <= most_travelling_bytes;
      (travels ? travelling_ : resident_).push_back(c);
    }
    const target::OnDevice here(device_->device());
    DeviceExecutorOptions o{
        .slots = options.slots, .own_state = false, .sync = options.sync, .graphs = options.graphs};
    o.stream = foreign_ ? foreign_.get() : device_->stream();
    o.scratch = device_->scratch();
    BesideExecutor beside{.constants = program->memory().constants};
    for (const BoundCell& c : resident_) {
      if (!program->is_state_input(c.input)) o.external.push_back(c.input);
      beside.cells += c.elements->missing_on(*device_);
    }
    const DeviceLayout layout = device_layout(*program, o);
    check_room(*program, layout, device_->device(), beside);
    o.beside.cells = beside.cells;
    const auto having_room = [&](const auto& work) {
      std::optional<target::OutOfMemory> failed;
      try {
        return work();
      } catch (const target::OutOfMemory& e) {
        failed = e;
      }
      drop_executor();
      beside.cells = 0;  // those that were had stay
      for (const BoundCell& c : resident_) beside.cells += c.elements->missing_on(*device_);
      fail_room(*program, layout, device_->device(), beside, *failed);
    };
    std::shared_ptr<const DeviceProgram> loaded;
    having_room([&] { loaded = std::make_shared<DeviceProgram>(program, device_->shared()); });
    make_executor(std::move(loaded), std::move(o));
    try {
      having_room([&] { bind_cells(); });
    } catch (...) {
      drop_executor();
      throw;
    }
  }

  ~DeviceRunner() override { drop_executor(); }
  DeviceRunner(const DeviceRunner&) = delete;
  DeviceRunner& operator=(const DeviceRunner&) = delete;

  const Program& program() const override { return executor_->program(); }
  void* input(size_t i) override { return executor_->input(i); }
  void bind_input(size_t i, const void* data) override { executor_->bind_input(i, as_address(data)); }
  void bind_output(size_t o, void* data) override { executor_->bind_output(o, as_address(data)); }
  const void* output(size_t o) const override {
    if (last_ < 0) fail_no_output(program());
    if (executor_->is_bound_output(last_, o)) fail_bound_output(program(), o);
    return executor_->output(last_, o);
  }

  void bring_cells() override {
    // Where the first run fails, what it has written to begins anew from the host.
    if (executor_->is_fresh()) for_states([](const BoundCell& c) { c.elements->read(); });
    for (const BoundCell& c : resident_) c.elements->bring_to(*device_);
    for (const BoundCell& c : travelling_) {
      const ir::Array& now = c.elements->read();
      std::memcpy(executor_->input(c.input), now.data(), static_cast<size_t>(now.bytes()));
    }
  }
  Ticket submit() override {
    const std::lock_guard one(device_->beginning());
    const target::OnDevice here(device_->device());
    Ticket ticket = 0;
    bool begun = false;
    try {
      bring_cells();
      const OpenDevice::Turn turn = device_->turn(foreign_ ? foreign_.get() : device_->stream());
      begun = true;
      ticket = executor_->submit();
    } catch (const target::DeviceError& e) {
      if (!e.lost()) fail_run(e, cells_left(begun ? executor_->states_left() : StatesLeft::before));
      throw;
    }
    for_states([&](const BoundCell& c) { c.elements->written_on(*device_); });
    return ticket;
  }
  void wait(Ticket ticket) override {
    try {
      executor_->wait(ticket);
    } catch (const target::DeviceError& e) {
      if (!e.lost() && !program().state().empty()) fail_run(e, "parameters are as after the run");
      throw;
    }
    last_ = ticket;
  }
  void run() override { wait(submit()); }
  std::string place() const override { return device_->name(); }
  DeviceExecutor* on_device() override { return executor_.get(); }

 private:
  void make_executor(std::shared_ptr<const DeviceProgram> program, DeviceExecutorOptions options) {
    const target::Stream stream = *options.stream;
    const OpenDevice::Turn turn = device_->turn(stream);
    try {
      executor_ = std::make_unique<DeviceExecutor>(std::move(program), std::move(options));
    } catch (const target::OutOfMemory&) {  // after the arena had grown for it
      device_->scratch()->shrink(stream);
      throw;
    }
  }
  /// No one else captures what is put into the device's stream while the executor waits for it.
  void drop_executor() {
    if (!executor_) return;
    try {
      const target::OnDevice here(device_->device());
      const OpenDevice::Turn turn = device_->turn(device_->stream());
      executor_.reset();
      device_->scratch()->shrink(device_->stream());
    } catch (const target::DeviceError&) {  // lost: nothing is under way, and the executor goes with the rest
    }
  }
  void bind_cells() {
    for (const BoundCell& c : resident_) {
      const target::Address at = c.elements->on(device_);
      if (program().is_state_input(c.input)) executor_->bind_state(program().inputs()[c.input].name, at);
      else executor_->bind_input(c.input, at);
    }
  }
  template <class F>
  void for_states(const F& f) const {
    for (const BoundCell& c : resident_)
      if (program().is_state_input(c.input)) f(c);
  }
  /// What has become of the cells that a run that failed was to write.
  const char* cells_left(StatesLeft states) const {
    if (program().state().empty()) return "";
    if (states == StatesLeft::after) {
      for_states([&](const BoundCell& c) { c.elements->written_on(*device_); });
      return "parameters are as after the run";
    }
    bool lost = false;
    if (states == StatesLeft::torn)
      for_states([&](const BoundCell& c) {
        lost |= c.elements->torn_on(*device_, program().inputs()[c.input].name);
      });
    return lost ? "the run had begun to write parameters, which are lost"
                : "parameters are as before the run";
  }
  [[noreturn]] static void fail_run(const target::DeviceError& e, const std::string& left) {
    ErrorFields fields = e.fields();
    if (!left.empty()) fields.got += (fields.got.empty() ? "" : "; ") + left;
    throw target::DeviceError(std::move(fields), false);
  }
  OwnedStream stream_of(const RunnerOptions& options) const {
    if (!options.stream) return {};
    return {device_->device(), device_->device().adopt_stream(*options.stream)};
  }

  std::shared_ptr<OpenDevice> device_;
  OwnedStream foreign_;  ///< a caller's; none: the device's own
  std::vector<BoundCell> resident_, travelling_;
  std::unique_ptr<DeviceExecutor> executor_;
  Ticket last_ = -1;
};

}  // namespace

std::unique_ptr<Runner> make_runner(std::shared_ptr<const Program> program, const Location& place,
                                    std::vector<BoundCell> cells, const RunnerOptions& options) {
  if (place.device) return std::make_unique<DeviceRunner>(std::move(program), place.device, cells, options);
  return std::make_unique<HostRunner>(std::move(program), std::move(cells));
}

}  // namespace espalier::run
