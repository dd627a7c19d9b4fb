#include "run/device_executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/text.h"
#include "run/control_buffers.h"
#include "run/record_needs.h"
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
  /// `place(offset)`: where the arena's buffer that begins there lies.
  template <class Place>
  Frame(const DeviceBody& b, const Place& place) : body(b), wiring(*b.program), table(wiring.pointers()) {
    wiring.wire_places(table.data(), place, body.constants);
    for (size_t s = 0; s < wiring.steps(); ++s)
      scratches.push_back(wiring.scratch(s) < 0 ? nullptr : place(wiring.scratch(s)));
  }
  void input(size_t i, void* data) { wiring.bind_input(table.data(), i, data); }
  void output(size_t o, void* data) { wiring.bind_output(table.data(), o, data); }
  void** buffers(size_t step) { return table.data() + wiring.first_buffer(step); }
  char* scratch(size_t step) const { return scratches[step]; }

  const DeviceBody& body;
  Wiring wiring;
  std::vector<void*> table;
  std::vector<char*> scratches;                             ///< of each step, or null
  std::vector<std::vector<std::unique_ptr<Frame>>> bodies;  ///< of each step
};

/// What one run under way uses.
struct DeviceExecutor::Slot {
  PinnedMemory host;                         ///< inputs, then outputs
  std::vector<Address> input_at, output_at;  ///< on the device, or 0
  struct Copy {
    Piece device;
    int64_t host = 0;
  };
  std::vector<Copy> up, down;  ///< what a run copies
  OwnedEvent uploaded, computed, downloaded;
  size_t number = 0;
  Ticket ticket = -1;   ///< of the last run in it
  bool waited = false;  ///< for that run: it is over
  bool shared = false;  ///< its results were given out
  std::shared_ptr<Readers> readers = std::make_shared<Readers>();
  std::vector<OwnedEvent> left;  ///< by readers that the last run waits for
  bool left_pending = false;     ///< was it not begun? Then the next one waits for them
  std::unique_ptr<target::DeviceGraph> graph;
};

DeviceExecutor::DeviceExecutor(DeviceExecutor&&) noexcept = default;

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
      layout_(device_layout(program_->program(), options_)),
      bindings_(program_->program()) {
  ESPALIER_CHECK(options_.slots >= 1, "an executor needs a slot");
  const Program& p = this->program();
  Device& device = program_->device();
  const target::OnDevice here(device);
  inputs_.assign(p.inputs().size(), 0);
  outputs_.assign(p.outputs().size(), 0);
  bound_from_.assign(p.outputs().size(), 0);
  check_room(p, layout_, device, options_.beside);
  std::optional<target::OutOfMemory> failed;
  try {
    allocate();
  } catch (const target::OutOfMemory& e) {
    failed = e;
  }
  if (failed) {
    share_.reset();
    slots_.clear();
    flag_ = PinnedMemory();
    memory_.reset();
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
  memory_ = std::make_shared<ExecutorMemory>();
  if (p.apart()) memory_->apart = ApartMemory(device, p.offsets());
  else if (layout_.bytes() > 0) memory_->whole = device_memory(device, layout_.bytes());
  copy_in_ = owned_stream(device);
  if (!options_.stream) own_compute_ = owned_stream(device);
  compute_ = options_.stream ? *options_.stream : own_compute_.get();
  copy_out_ = owned_stream(device);
  flag_ = pinned_memory(device, device_piece);

  make_slots();
  arena_ = memory_->whole.get();
  if (shares_arena(p, options_)) {
    share_ = std::make_unique<Scratch::Share>(options_.scratch, layout_.arena);
    arena_ = share_->at(compute_);
  }
  frame_ = make_frame(program_->body(), static_cast<char*>(as_pointer(arena_)));
  const BufferNeeds needs = needs_of(p);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (layout_.state_at[i] < 0) continue;
    const int64_t bytes = p.inputs()[i].bytes();
    set_input(
        i, place(memory_->whole.get() + static_cast<Address>(layout_.state_at[i]), bytes, needs.inputs[i]));
    const std::vector<char> zeros(static_cast<size_t>(bytes));
    upload_and_wait(device, inputs_[i], zeros.data(), bytes);
  }
}

/// To where the shared arena is now; graphs have the addresses of before.
void DeviceExecutor::place_arena() {
  if (!share_) return;
  const Address now = share_->at(compute_);
  if (now == arena_) return;
  for (const auto& slot : slots_) slot->graph.reset();
  auto frame = make_frame(program_->body(), static_cast<char*>(as_pointer(now)));
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (inputs_[i] != 0) frame->input(i, as_pointer(inputs_[i]));
  frame_ = std::move(frame);
  arena_ = now;
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

/// What lies at `in_memory`, or where every buffer is an allocation, in one of its own.
Address DeviceExecutor::place(Address in_memory, int64_t bytes, int64_t need) {
  return program().apart() ? memory_->apart.place(bytes, need) : in_memory;
}

void DeviceExecutor::make_slots() {
  const Program& p = program();
  Device& device = program_->device();
  const BufferNeeds needs = needs_of(p);
  for (int s = 0; s < options_.slots; ++s) {
    auto slot = std::make_unique<Slot>();
    slot->number = slots_.size();
    slot->host = pinned_memory(device, std::max<int64_t>(layout_.slot(), 1));
    slot->uploaded = owned_event(device);
    slot->computed = owned_event(device);
    slot->downloaded = owned_event(device);
    const Address inputs = memory_->whole.get() + static_cast<Address>(layout_.slot_at(s)),
                  outputs = inputs + static_cast<Address>(layout_.slot_inputs);
    const auto lay = [&](const std::vector<int64_t>& at, Address from, const std::vector<Port>& ports,
                         const std::vector<int64_t>& need, std::vector<Address>& to) {
      for (size_t i = 0; i < at.size(); ++i)
        to.push_back(at[i] < 0 ? 0 : place(from + static_cast<Address>(at[i]), ports[i].bytes(), need[i]));
    };
    lay(layout_.input_at, inputs, p.inputs(), needs.inputs, slot->input_at);
    lay(layout_.output_at, outputs, p.outputs(), needs.outputs, slot->output_at);
    slots_.push_back(std::move(slot));
  }
  lay_copies();
}

/// What a run copies: all that is in the slot, in one piece what lies as one.
void DeviceExecutor::lay_copies() {
  const Program& p = program();
  for (const auto& slot : slots_) {
    const auto lay = [&](const std::vector<int64_t>& at, const std::vector<Address>& device,
                         const std::vector<Address>& bound, int64_t host, const std::vector<Port>& ports,
                         std::vector<Slot::Copy>& copies) {
      copies.clear();
      for (size_t i = 0; i < at.size(); ++i) {
        const int64_t bytes = ports[i].bytes();
        if (at[i] < 0 || bound[i] != 0 || bytes == 0) continue;
        Slot::Copy* const last = copies.empty() ? nullptr : &copies.back();
        const int64_t on = last ? host + at[i] - last->host : 0;  // from where the last piece begins
        if (last && !p.apart() && on == round_up(last->device.bytes, device_piece))
          last->device.bytes = on + bytes;
        else copies.push_back({{device[i], bytes}, host + at[i]});
      }
    };
    lay(layout_.input_at, slot->input_at, inputs_, 0, p.inputs(), slot->up);
    lay(layout_.output_at, slot->output_at, outputs_, layout_.slot_inputs, p.outputs(), slot->down);
  }
}

/// The arena's buffers, each in an allocation, by where they begin. The buffers of bodies lie apart themselves: of the scratch of their step
/// there is a loop's flag.
std::map<int64_t, char*> DeviceExecutor::place_apart(const Program& p) {
  std::map<int64_t, int64_t> bytes;
  for (const pass::ArenaBuffer& b : p.arena_buffers()) bytes[b.offset] = b.bytes;
  for (const Step& s : p.steps())
    if (!s.bodies.empty() && s.scratch.kind == pass::Place::Kind::arena) bytes[s.scratch.offset] = 1;
  const BufferNeeds needs = needs_of(p);
  std::map<int64_t, char*> places;
  for (const auto& [offset, count] : bytes) {
    const auto need = needs.arena.find(offset);
    const Address at = memory_->apart.place(count, need == needs.arena.end() ? 1 : need->second);
    poisoned_.push_back({at, count});
    places[offset] = static_cast<char*>(as_pointer(at));
  }
  return places;
}

std::unique_ptr<DeviceExecutor::Frame> DeviceExecutor::make_frame(const DeviceBody& body, char* arena) {
  const bool apart = program().apart();
  const std::map<int64_t, char*> places = apart ? place_apart(*body.program) : std::map<int64_t, char*>();
  auto frame = std::make_unique<Frame>(
      body, [&](int64_t offset) { return apart ? places.at(offset) : arena + offset; });
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

void DeviceExecutor::bind_input(size_t i, Address data) {
  ESPALIER_CHECK(i < inputs_.size(), "input number out of range");
  const Port& port = program().inputs()[i];
  check_binding(port, "input", data);
  if (std::ranges::any_of(checks_, [&](const RangeCheck& c) { return c.input == i; }))
    throw UserError({"input " + port.name, "has a declared range, which is checked on the host",
                     "memory of a device", "the executor's own slot"});
  bindings_.changed(i);
  set_input(i, data);
  lay_copies();
}

void DeviceExecutor::bind_output(size_t o, Address data) {
  ESPALIER_CHECK(o < outputs_.size(), "output number out of range");
  check_output_binding(program(), o, data);
  bindings_.changed(bindings_.place_of_output(o));
  if (outputs_[o] == 0) bound_from_[o] = next_;
  outputs_[o] = data;
  for (const auto& slot : slots_) slot->graph.reset();
  lay_copies();
}

Address DeviceExecutor::state(std::string_view name) const { return inputs_[program().state_index(name)]; }

void DeviceExecutor::bind_state(std::string_view name, Address data) {
  const size_t i = program().state_index(name);
  check_binding(program().inputs()[i], "state", data);
  bindings_.changed(i);
  set_input(i, data);
}

void DeviceExecutor::write_state(std::string_view name, const void* from) {
  const size_t i = program().state_index(name);
  sync_all();
  upload_and_wait(program_->device(), inputs_[i], from, program().inputs()[i].bytes());
}

void DeviceExecutor::read_state(std::string_view name, void* to) {
  const size_t i = program().state_index(name);
  sync_all();
  download_and_wait(program_->device(), to, inputs_[i], program().inputs()[i].bytes());
}

void DeviceExecutor::sync_all() {
  std::exception_ptr failed;
  for (const target::Stream s : {copy_in_.get(), compute_, copy_out_.get()}) try {
      program_->device().sync(s);
    } catch (const target::DeviceError&) {
      if (!failed) failed = std::current_exception();
    }
  if (failed) std::rethrow_exception(failed);
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
  if (slot.ticket >= 0 && !slot.waited) program_->device().sync(slot.uploaded.get());
  asked_ = true;
  return slot.host.get() + layout_.input_at[i];
}

/// What input() was given for the run goes along from a slot that is held by now.
DeviceExecutor::Slot& DeviceExecutor::next_slot() {
  Slot& next = *slots_[slot_];
  if (!next.readers->any()) return next;
  for (const auto& other : slots_) {
    const bool under_way = other->ticket >= 0 && !other->waited;
    if (other->readers->any() || (under_way && !other->shared)) continue;
    if (asked_ && under_way) program_->device().sync(other->uploaded.get());
    if (asked_) std::memcpy(other->host.get(), next.host.get(), static_cast<size_t>(layout_.slot_inputs));
    slot_ = other->number;
    return *other;
  }
  throw UserError(
      {"program " + program().name(), "has no place for another run",
       fmt::format("each of its {} has results that are given out, or a run under way", slots_.size()),
       "giving a result back (the deleter of its DLPack tensor), or waiting for the run"});
}

void DeviceExecutor::check_ranges(const Slot& slot) const {
  for (const RangeCheck& c : checks_)
    c(slot.host.get() + layout_.input_at[c.input], program().inputs()[c.input].name);
}

void DeviceExecutor::upload(Slot& slot) {
  Device& device = program_->device();
  for (const Slot::Copy& c : slot.up)
    timed(timer_, Lane::copies_in, -1, copy_in_.get(),
          [&] { device.upload(c.device.at, slot.host.get() + c.host, c.device.bytes, copy_in_.get()); });
  device.record(slot.uploaded.get(), copy_in_.get());
  if (!std::exchange(slot.left_pending, true)) slot.left.clear();
  for (OwnedEvent& e : slot.readers->take_left()) slot.left.push_back(std::move(e));
  for (const OwnedEvent& e : slot.left) device.wait(compute_, e.get());
  device.wait(compute_, slot.uploaded.get());
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (inputs_[i] == 0 && slot.input_at[i] != 0) frame_->input(i, as_pointer(slot.input_at[i]));
  for (size_t o = 0; o < slot.output_at.size(); ++o)
    if (slot.output_at[o] != 0)
      frame_->output(o, as_pointer(outputs_[o] != 0 ? outputs_[o] : slot.output_at[o]));
}

/// One by one the first time, as a driver may load a kernel when it is first launched; captured the second time, and as one from then on.
void DeviceExecutor::compute(Slot& slot) {
  Device& device = program_->device();
  if (!why_no_graphs_.empty() || !warm_ || times_records()) {
    run_all(StatesLeft::torn);
    warm_ = true;
  } else {
    if (!slot.graph) slot.graph = captured();
    if (slot.graph) {
      device.launch(*slot.graph, compute_);
      ++replays_;
    } else {
      run_all(StatesLeft::torn);
    }
  }
  states_left_ = StatesLeft::after;
}

/// The launches of a run as one; null where that failed, which has put nothing into the stream. After the second time it is given up.
std::unique_ptr<target::DeviceGraph> DeviceExecutor::captured() {
  try {
    return target::capture(program_->device(), compute_, [&] { run_all(StatesLeft::before); });
  } catch (const target::DeviceError& e) {
    if (e.lost()) throw;
    failed_capture_ = e.what();
    if (++failed_captures_ > 1) why_no_graphs_ = "they could not be captured: " + failed_capture_;
    return nullptr;
  }
}

void DeviceExecutor::run_all(StatesLeft on_write) {
  on_write_ = on_write;
  for (step_ = 0; step_ < frame_->wiring.steps(); ++step_) run_step(*frame_, step_);
}

void DeviceExecutor::download(Slot& slot) {
  Device& device = program_->device();
  device.record(slot.computed.get(), compute_);
  device.wait(copy_out_.get(), slot.computed.get());
  for (const Slot::Copy& c : slot.down)
    timed(timer_, Lane::copies_out, -1, copy_out_.get(),
          [&] { device.download(slot.host.get() + c.host, c.device.at, c.device.bytes, copy_out_.get()); });
  device.record(slot.downloaded.get(), copy_out_.get());
}

Ticket DeviceExecutor::submit() {
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (layout_.input_at[i] < 0 && inputs_[i] == 0 && program().inputs()[i].bytes() > 0)
      throw UserError({(program().is_state_input(i) ? "state " : "input ") + program().inputs()[i].name,
                       "is not bound to memory", "", "bind it before submit()"});
  bindings_.check(program(), [&](size_t place) {
    return place < inputs_.size() ? inputs_[place] : outputs_[place - inputs_.size()];
  });
  states_left_ = StatesLeft::before;
  const target::WatchedRange range(program_->device(),
                                   [&] { return fmt::format("{} run {}", program().name(), next_); });
  const target::OnDevice here(program_->device());
  Slot& slot = next_slot();
  if (slot.ticket >= 0 && !slot.waited) program_->device().sync(slot.downloaded.get());
  check_ranges(slot);
  slot.waited = slot.shared = false;
  slot.ticket = -1;  // what the run before has left goes, whatever comes of this one
  try {
    place_arena();
    upload(slot);
    timed(timer_ && !times_records(), Lane::computing, -1, compute_, [&] { compute(slot); });
    download(slot);
  } catch (const target::DeviceError& e) {
    if (!e.lost()) sync_all();  // what is under way reads the slot
    throw;
  }
  slot.left_pending = false;
  slot.ticket = next_;
  asked_ = false;
  slot_ = (slot.number + 1) % slots_.size();
  return next_++;
}

void DeviceExecutor::wait(Ticket ticket) {
  Slot* const slot = slot_of(ticket);
  if (!slot) return;  // whoever took it has waited
  if (ticket == next_ - 1 && !asked_) slot_ = slot->number;
  if (!slot->waited) program_->device().sync(slot->downloaded.get());
  slot->waited = true;
}

void DeviceExecutor::fail_overwritten(Ticket ticket) const {
  throw UserError({"program " + program().name() + ", run " + std::to_string(ticket),
                   "a later run has taken the place of its results", "", "one of the last runs"});
}

const void* DeviceExecutor::output(Ticket ticket, size_t o) const {
  ESPALIER_CHECK(o < layout_.output_at.size(), "output number out of range");
  const Slot* const slot = slot_of(ticket);
  if (!slot) fail_overwritten(ticket);
  if (layout_.output_at[o] < 0 || is_bound_output(ticket, o)) return nullptr;
  return slot->host.get() + layout_.slot_inputs + layout_.output_at[o];
}

DeviceExecutor::OnDevice DeviceExecutor::hold(Ticket ticket, size_t o, OwnedStream reader) {
  ESPALIER_CHECK(o < layout_.output_at.size(), "output number out of range");
  Slot* const slot = slot_of(ticket);
  if (!slot) fail_overwritten(ticket);
  if (layout_.output_at[o] < 0) return {};
  if (is_bound_output(ticket, o)) fail_bound_output(program(), o);
  slot->shared = true;
  return {slot->output_at[o], std::make_shared<HeldResults>(program_->shared_device(), memory_, slot->readers,
                                                            slot->computed.get(), std::move(reader))};
}

int64_t DeviceExecutor::input_bytes() const {
  int64_t sum = 0;
  for (const Slot::Copy& c : slots_.front()->up) sum += c.device.bytes;
  return sum;
}

int64_t DeviceExecutor::output_bytes() const {
  int64_t sum = 0;
  for (const Slot::Copy& c : slots_.front()->down) sum += c.device.bytes;
  return sum;
}

Ticket DeviceExecutor::run() {
  const Ticket ticket = submit();
  wait(ticket);
  return ticket;
}

void DeviceExecutor::poison() {
  sync_all();
  const OwnedStream stream = owned_stream(program_->device());
  Staging staging(program_->device(), stream.get());
  const auto fill = [&](const Piece& piece) {
    const std::vector<char> pattern(static_cast<size_t>(piece.bytes), static_cast<char>(red_zone_byte));
    staging.upload(piece.at, pattern.data(), piece.bytes);
  };
  place_arena();
  if (!program().apart()) fill({arena_, layout_.arena});
  for (const Piece& piece : poisoned_) fill(piece);
  for (const auto& slot : slots_)
    for (const Slot::Copy& c : slot->down)
      if (!slot->readers->any()) fill(c.device);
  for (size_t o = 0; o < outputs_.size(); ++o)
    if (outputs_[o] != 0) fill({outputs_[o], program().outputs()[o].bytes()});
}

void DeviceExecutor::check_red_zones() {
  sync_all();
  if (program().red_zones().empty()) return;
  std::vector<char> arena(static_cast<size_t>(program().memory().arena));
  download_and_wait(program_->device(), arena.data(), memory_->whole.get(),
                    static_cast<int64_t>(arena.size()));
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
