#include "run/device_executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/text.h"
#include "run/control_buffers.h"
#include "run/red_zones.h"

namespace espalier::run {

using target::Address;
using target::Device;
using target::Event;

namespace {

/// Loops are captured turn by turn; longer ones than this are launched.
constexpr int64_t most_captured = 4096;

/// Records of one run, or more than may be captured where the host decides what comes next.
int64_t launches_of(const DeviceBody& body) {
  int64_t sum = 0;
  for (size_t s = 0; s < body.bodies.size(); ++s) {
    const Step& step = body.program->steps()[s];
    const bool scan = step.control.kind == ControlFlow::Kind::scan;
    if (!scan && step.control.kind != ControlFlow::Kind::none) return most_captured + 1;
    if (!scan) sum += static_cast<int64_t>(step.kernel->calls().size());
    for (const DeviceBody& inner : body.bodies[s])
      sum += std::min(launches_of(inner), most_captured + 1) * std::max<int64_t>(step.control.length, 1);
    if (scan) sum += static_cast<int64_t>(step.control.carries());
  }
  return sum;
}

}  // namespace

/// A program or a body over its arena.
struct DeviceExecutor::Frame {
  Frame(const DeviceBody& b, char* a) : body(b), wiring(*b.program), table(wiring.pointers()), arena(a) {
    wiring.wire(table.data(), arena, body.constants);
  }
  void input(size_t i, void* data) { wiring.bind_input(table.data(), i, data); }
  void output(size_t o, void* data) { wiring.bind_output(table.data(), o, data); }
  void** buffers(size_t step) { return table.data() + wiring.first_buffer(step); }
  char* scratch(size_t step) const {
    return wiring.scratch(step) < 0 ? nullptr : arena + wiring.scratch(step);
  }

  const DeviceBody& body;
  Wiring wiring;
  std::vector<void*> table;
  char* arena;
  std::vector<std::vector<std::unique_ptr<Frame>>> bodies;  ///< of each step
};

/// What one run under way uses.
struct DeviceExecutor::Slot {
  Address inputs = 0, outputs = 0;  ///< on the device
  PinnedMemory host;                ///< inputs, then outputs
  OwnedEvent uploaded, computed, downloaded;
  size_t number = 0;
  Ticket ticket = -1;  ///< of the last run in it
  std::unique_ptr<target::DeviceGraph> graph;
};

DeviceExecutor::DeviceExecutor(DeviceExecutor&&) noexcept = default;
DeviceExecutor& DeviceExecutor::operator=(DeviceExecutor&&) noexcept = default;

DeviceExecutor::~DeviceExecutor() {
  if (!program_) return;
  try {
    sync_all();
  } catch (const target::DeviceError&) {  // the device is lost: nothing is under way
  }
}

DeviceExecutor::DeviceExecutor(std::shared_ptr<const DeviceProgram> program, DeviceExecutorOptions options)
    : program_(std::move(program)),
      options_(std::move(options)),
      layout_(device_layout(program_->program(), options_)) {
  ESPALIER_CHECK(options_.slots >= 1, "an executor needs a slot");
  const Program& p = this->program();
  Device& device = program_->device();
  const target::OnDevice here(device);
  inputs_.assign(p.inputs().size(), 0);
  check_room(p, layout_, device, options_.beside);
  std::optional<target::OutOfMemory> failed;
  try {
    allocate();
  } catch (const target::OutOfMemory& e) {
    failed = e;
  }
  if (failed) {
    slots_.clear();
    flag_ = PinnedMemory();
    memory_ = DeviceMemory();
    fail_room(p, layout_, device, options_.beside, *failed);
  }
  checks_ = range_checks(p);
  choose_graphs();
  const auto writes_state = [&](const Step& step) {
    return std::any_of(step.buffers.begin() + static_cast<std::ptrdiff_t>(step.operands), step.buffers.end(),
                       [&](const pass::Place& at) {
                         return at.kind == pass::Place::Kind::input &&
                                p.is_state_input(static_cast<size_t>(at.index));
                       });
  };
  first_writer_ = static_cast<size_t>(std::ranges::find_if(p.steps(), writes_state) - p.steps().begin());
}

void DeviceExecutor::allocate() {
  const Program& p = this->program();
  Device& device = program_->device();
  memory_ = device_memory(device, layout_.bytes());
  copy_in_ = owned_stream(device);
  if (!options_.stream) own_compute_ = owned_stream(device);
  compute_ = options_.stream ? *options_.stream : own_compute_.get();
  copy_out_ = owned_stream(device);
  flag_ = pinned_memory(device, device_piece);

  for (int s = 0; s < options_.slots; ++s) {
    auto slot = std::make_unique<Slot>();
    slot->number = slots_.size();
    slot->inputs = memory_.get() + static_cast<Address>(layout_.slot_at(s));
    slot->outputs = slot->inputs + static_cast<Address>(layout_.slot_inputs);
    slot->host = pinned_memory(device, std::max<int64_t>(layout_.slot(), 1));
    slot->uploaded = owned_event(device);
    slot->computed = owned_event(device);
    slot->downloaded = owned_event(device);
    slots_.push_back(std::move(slot));
  }
  frame_ = make_frame(program_->body(), static_cast<char*>(as_pointer(memory_.get())));
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (layout_.state_at[i] < 0) continue;
    set_input(i, memory_.get() + static_cast<Address>(layout_.state_at[i]));
    const std::vector<char> zeros(static_cast<size_t>(p.inputs()[i].bytes()));
    upload_and_wait(device, inputs_[i], zeros.data(), p.inputs()[i].bytes());
  }
}

void DeviceExecutor::choose_graphs() {
  const int64_t launches = launches_of(program_->body());
  if (!options_.graphs) why_no_graphs_ = "they are switched off";
  else if (options_.sync) why_no_graphs_ = "every record is waited for";
  else if (launches > most_captured)
    why_no_graphs_ =
        fmt::format("the host decides in between, or there are more than {} launches", most_captured);
  else if (launches == 0) why_no_graphs_ = "there is nothing to launch";
  else why_no_graphs_ = program_->device().why_no_capture(compute_);
}

std::unique_ptr<DeviceExecutor::Frame> DeviceExecutor::make_frame(const DeviceBody& body, char* arena) {
  auto frame = std::make_unique<Frame>(body, arena);
  for (size_t s = 0; s < body.bodies.size(); ++s) {
    frame->bodies.emplace_back();
    // A while_loop's flag comes first; its bodies lie behind each other, those of cond in one place (run/nested.cpp).
    const bool loop = body.program->steps()[s].control.kind == ControlFlow::Kind::while_loop;
    char* at = frame->scratch(s) + (loop ? flag_bytes : 0);
    for (const DeviceBody& inner : body.bodies[s]) {
      frame->bodies.back().push_back(make_frame(inner, at));
      if (loop) at += frame->bodies.back().back()->wiring.frame_bytes();
    }
  }
  return frame;
}

void DeviceExecutor::set_input(size_t i, Address data) {
  inputs_[i] = data;
  frame_->input(i, as_pointer(data));
  for (const auto& slot : slots_) slot->graph.reset();  // which has the address of before
}

namespace {

void check_binding(const Port& port, std::string_view what, Address data) {
  if (data == 0 || data % cache_line != 0)
    throw UserError({std::string(what) + " " + port.name, data ? "memory is not aligned" : "null memory",
                     data ? std::to_string(data % cache_line) + " bytes past a boundary" : "",
                     "an address that is a multiple of 64"});
}

}  // namespace

void DeviceExecutor::bind_input(size_t i, Address data) {
  ESPALIER_CHECK(i < inputs_.size(), "input number out of range");
  const Port& port = program().inputs()[i];
  check_binding(port, "input", data);
  if (std::ranges::any_of(checks_, [&](const RangeCheck& c) { return c.input == i; }))
    throw UserError({"input " + port.name, "has a declared range, which is checked on the host",
                     "memory of a device", "the executor's own slot"});
  set_input(i, data);
}

size_t DeviceExecutor::state_index(std::string_view name) const {
  std::vector<std::string> names;
  for (const State& s : program().state()) {
    if (s.name == name) return static_cast<size_t>(s.input);
    names.push_back(s.name);
  }
  throw UserError({"state " + std::string(name), "the program has no such state", "", join(names, ", ")});
}

Address DeviceExecutor::state(std::string_view name) const { return inputs_[state_index(name)]; }

void DeviceExecutor::bind_state(std::string_view name, Address data) {
  const size_t i = state_index(name);
  check_binding(program().inputs()[i], "state", data);
  set_input(i, data);
}

void DeviceExecutor::write_state(std::string_view name, const void* from) {
  const size_t i = state_index(name);
  sync_all();
  upload_and_wait(program_->device(), inputs_[i], from, program().inputs()[i].bytes());
}

void DeviceExecutor::read_state(std::string_view name, void* to) {
  const size_t i = state_index(name);
  sync_all();
  download_and_wait(program_->device(), to, inputs_[i], program().inputs()[i].bytes());
}

void DeviceExecutor::sync_all() {
  for (const target::Stream s : {copy_in_.get(), compute_, copy_out_.get()}) program_->device().sync(s);
}

/// Null where a later run has it.
DeviceExecutor::Slot* DeviceExecutor::slot_of(Ticket ticket) const {
  ESPALIER_CHECK(ticket >= 0 && ticket < next_, "no run has this ticket");
  const auto it = std::ranges::find_if(slots_, [&](const auto& s) { return s->ticket == ticket; });
  return it == slots_.end() ? nullptr : it->get();
}

void* DeviceExecutor::input(size_t i) {
  ESPALIER_CHECK(i < inputs_.size(), "input number out of range");
  if (inputs_[i] != 0 || layout_.input_at[i] < 0) return nullptr;
  Slot& slot = next_slot();
  if (slot.ticket >= 0) program_->device().sync(slot.uploaded.get());
  asked_ = true;
  return slot.host.get() + layout_.input_at[i];
}

void DeviceExecutor::check_ranges(const Slot& slot) const {
  for (const RangeCheck& c : checks_)
    c(slot.host.get() + layout_.input_at[c.input], program().inputs()[c.input].name);
}

void DeviceExecutor::upload(Slot& slot) {
  Device& device = program_->device();
  if (layout_.slot_inputs > 0)
    timed(timer_, Lane::copies_in, -1, copy_in_.get(),
          [&] { device.upload(slot.inputs, slot.host.get(), layout_.slot_inputs, copy_in_.get()); });
  device.record(slot.uploaded.get(), copy_in_.get());
  device.wait(compute_, slot.uploaded.get());
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (inputs_[i] == 0 && layout_.input_at[i] >= 0)
      frame_->input(i, as_pointer(slot.inputs + static_cast<Address>(layout_.input_at[i])));
  for (size_t o = 0; o < layout_.output_at.size(); ++o)
    if (layout_.output_at[o] >= 0)
      frame_->output(o, as_pointer(slot.outputs + static_cast<Address>(layout_.output_at[o])));
}

/// One by one the first time, as a driver may load a kernel when it is first launched; captured the second time, and as one from then on.
void DeviceExecutor::compute(Slot& slot) {
  Device& device = program_->device();
  if (!why_no_graphs_.empty() || !warm_ || times_records()) {
    run_all(StatesLeft::torn);
    warm_ = true;
  } else {
    if (!slot.graph) slot.graph = target::capture(device, compute_, [&] { run_all(StatesLeft::before); });
    device.launch(*slot.graph, compute_);
    ++replays_;
  }
  states_left_ = StatesLeft::after;
}

void DeviceExecutor::run_all(StatesLeft on_write) {
  on_write_ = on_write;
  for (step_ = 0; step_ < frame_->wiring.steps(); ++step_) run_step(*frame_, step_);
}

void DeviceExecutor::download(Slot& slot) {
  Device& device = program_->device();
  device.record(slot.computed.get(), compute_);
  device.wait(copy_out_.get(), slot.computed.get());
  if (layout_.slot_outputs > 0)
    timed(timer_, Lane::copies_out, -1, copy_out_.get(), [&] {
      device.download(slot.host.get() + layout_.slot_inputs, slot.outputs, layout_.slot_outputs,
                      copy_out_.get());
    });
  device.record(slot.downloaded.get(), copy_out_.get());
}

Ticket DeviceExecutor::submit() {
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (layout_.input_at[i] < 0 && inputs_[i] == 0)
      throw UserError({(program().is_state_input(i) ? "state " : "input ") + program().inputs()[i].name,
                       "is not bound to memory", "", "bind it before submit()"});
  states_left_ = StatesLeft::before;
  const target::WatchedRange range(program_->device(),
                                   [&] { return fmt::format("{} run {}", program().name(), next_); });
  const target::OnDevice here(program_->device());
  Slot& slot = next_slot();
  if (slot.ticket >= 0) program_->device().sync(slot.downloaded.get());
  check_ranges(slot);
  try {
    upload(slot);
    timed(timer_ && !times_records(), Lane::computing, -1, compute_, [&] { compute(slot); });
    download(slot);
  } catch (const target::DeviceError& e) {
    if (!e.lost()) sync_all();  // what is under way reads the slot
    throw;
  }
  slot.ticket = next_;
  asked_ = false;
  slot_ = (slot.number + 1) % slots_.size();
  return next_++;
}

void DeviceExecutor::wait(Ticket ticket) {
  const Slot* const slot = slot_of(ticket);
  if (!slot) return;  // whoever took it has waited
  program_->device().sync(slot->downloaded.get());
  if (ticket == next_ - 1 && !asked_) slot_ = slot->number;
}

const void* DeviceExecutor::output(Ticket ticket, size_t o) const {
  ESPALIER_CHECK(o < layout_.output_at.size(), "output number out of range");
  const Slot* const slot = slot_of(ticket);
  ESPALIER_CHECK(slot, "a later run has the slot of this ticket");
  return layout_.output_at[o] < 0 ? nullptr : slot->host.get() + layout_.slot_inputs + layout_.output_at[o];
}

Ticket DeviceExecutor::run() {
  const Ticket ticket = submit();
  wait(ticket);
  return ticket;
}

void DeviceExecutor::poison() {
  sync_all();
  const auto fill = [&](Address at, int64_t bytes) {
    const std::vector<char> pattern(static_cast<size_t>(bytes), static_cast<char>(red_zone_byte));
    upload_and_wait(program_->device(), at, pattern.data(), bytes);
  };
  fill(memory_.get(), layout_.arena);
  for (const auto& slot : slots_) fill(slot->outputs, layout_.slot_outputs);
}

void DeviceExecutor::check_red_zones() {
  sync_all();
  std::vector<char> arena(static_cast<size_t>(program().memory().arena));
  download_and_wait(program_->device(), arena.data(), memory_.get(), static_cast<int64_t>(arena.size()));
  run::check_red_zones(program(), arena.data());
}

void DeviceExecutor::run_frame(Frame& frame) {
  for (size_t s = 0; s < frame.wiring.steps(); ++s) run_step(frame, s);
}

void DeviceExecutor::run_step(Frame& frame, size_t s) {
  const Step& step = frame.body.program->steps()[s];
  const target::WatchedRange range(program_->device(),
                                   [&] { return fmt::format("step {} {}", s, name_of(step)); });
  void** const buffers = frame.buffers(s);
  switch (step.control.kind) {
    case ControlFlow::Kind::scan: run_scan(frame, s, buffers); return;
    case ControlFlow::Kind::cond: run_cond(frame, s, buffers); return;
    case ControlFlow::Kind::while_loop: run_while(frame, s, buffers); return;
    case ControlFlow::Kind::none: break;
  }
  const size_t first = frame.body.first_call[s];
  try {
    for (size_t i = 0; i < step.kernel->calls().size(); ++i)
      launch(first + i, buffers, step.buffers.size(), frame.scratch(s));
  } catch (const target::DeviceError& e) {
    ErrorFields fields = e.fields();
    fields.where = "step " + std::to_string(s) + ", " + step.op + " " + step.detail + ", " + fields.where;
    throw target::DeviceError(std::move(fields), e.lost());
  }
}

void DeviceExecutor::launch(size_t call, void** buffers, size_t count, char* scratch) {
  operands_.clear();
  for (const target::Operand& o : program_->calls()[call].operands) {
    void* const base = static_cast<size_t>(o.buffer) < count ? buffers[o.buffer] : scratch;
    operands_.push_back(as_address(moved(base, o.offset)));
  }
  Device& device = program_->device();
  timed(times_records(), Lane::computing, static_cast<int64_t>(call), compute_,
        [&] { device.launch(program_->executable(), call, operands_, compute_); });
  if (step_ >= first_writer_) states_left_ = on_write_;
  if (options_.sync) device.sync(compute_);
}

/// Copies of what does not lie in its result already.
void DeviceExecutor::begin_carries(const Frame& frame, size_t s, void** buffers) {
  const ControlFlow& c = frame.body.program->steps()[s].control;
  for (size_t i = 0; i < c.carries(); ++i) {
    void* pair[] = {buffers[i], buffers[c.operands + i]};
    if (pair[0] != pair[1] && c.carry_bytes[i] > 0) launch(frame.body.first_call[s] + i, pair, 2, nullptr);
  }
}

void DeviceExecutor::run_scan(Frame& frame, size_t s, void** buffers) {
  const ControlFlow& c = frame.body.program->steps()[s].control;
  Frame& body = *frame.bodies[s][0];
  begin_carries(frame, s, buffers);
  for_turns(c, buffers, body, [&] { run_frame(body); });
}

void DeviceExecutor::run_cond(Frame& frame, size_t s, void** buffers) {
  const Step& step = frame.body.program->steps()[s];
  Frame& body = *frame.bodies[s][read_flag(buffers[0]) ? 0 : 1];
  bind_branch(step.control, step.buffers.size() - step.operands, buffers, body);
  run_frame(body);
}

void DeviceExecutor::run_while(Frame& frame, size_t s, void** buffers) {
  const ControlFlow& c = frame.body.program->steps()[s].control;
  Frame &condition = *frame.bodies[s][0], &body = *frame.bodies[s][1];
  begin_carries(frame, s, buffers);
  bind_loop(c, buffers, condition, body, frame.scratch(s));
  for (run_frame(condition); read_flag(frame.scratch(s)); run_frame(condition)) run_frame(body);
}

/// A byte of the device's memory, once all before it is done.
bool DeviceExecutor::read_flag(const void* flag) {
  Device& device = program_->device();
  device.download(flag_.get(), as_address(flag), 1, compute_);
  device.sync(compute_);
  return *flag_.get() != 0;
}

}  // namespace espalier::run
