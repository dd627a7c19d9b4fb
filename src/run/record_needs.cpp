#include "run/record_needs.h"

#include <fmt/format.h>

#include <algorithm>

#include "run/control_buffers.h"

namespace espalier::run {

namespace {

using pass::Place;
using target::CallRecord;

/// Addresses that only say which of a step's buffers they are in, and where.
constexpr int offset_bits = 44;
void* marked(size_t buffer) { return reinterpret_cast<void*>((uint64_t{buffer} + 1) << offset_bits); }

class Collector {
 public:
  explicit Collector(const Program& program) : program_(program) {
    needs_.inputs.assign(program.inputs().size(), 1);
    needs_.outputs.assign(program.outputs().size(), 1);
    needs_.constants.assign(program.constants().size(), 1);
  }

  BufferNeeds collect() {
    for (const Step& s : program_.steps()) {
      for (const CallRecord& call : s.kernel->calls())
        for (size_t i = 0; i < call.operands.size(); ++i) {
          const target::Operand& o = call.operands[i];
          const auto b = static_cast<size_t>(o.buffer);
          add(b < s.buffers.size() ? s.buffers[b] : s.scratch, o.offset, target::alignment_of(call, i), s);
        }
      if (!s.bodies.empty()) add_bodies(s);
    }
    return std::move(needs_);
  }

 private:
  void add(const Place& place, int64_t offset, int64_t need, const Step& step) {
    ESPALIER_CHECK(offset % need == 0,
                   fmt::format("step {}: a record needs {} bytes of alignment and begins {} "
                               "bytes behind the beginning of {}",
                               name_of(step), need, offset, place.text()));
    const auto index = static_cast<size_t>(place.index);
    const auto raise = [&](int64_t& to) { to = std::max(to, need); };
    switch (place.kind) {
      case Place::Kind::none: return;
      case Place::Kind::arena: return raise(needs_.arena.try_emplace(place.offset, 1).first->second);
      case Place::Kind::input: return raise(needs_.inputs[index]);
      case Place::Kind::output: return raise(needs_.outputs[index]);
      case Place::Kind::constant: return raise(needs_.constants[index]);
    }
  }

  /// A body's frame: what its inputs and outputs need is needed of the step's buffers that are bound to them.
  struct Frame {
    Collector& out;
    const Step& step;
    const BufferNeeds needs;
    void input(size_t i, const void* data) { bind(data, needs.inputs[i]); }
    void output(size_t o, const void* data) { bind(data, needs.outputs[o]); }
    void bind(const void* data, int64_t need) {
      const auto address = reinterpret_cast<uint64_t>(data);
      if (address == 0) return;  // a flag
      out.add(step.buffers[(address >> offset_bits) - 1],
              static_cast<int64_t>(address & ((uint64_t{1} << offset_bits) - 1)), need, step);
    }
  };

  void add_bodies(const Step& s) {
    std::vector<void*> buffers;
    for (size_t b = 0; b < s.buffers.size(); ++b) buffers.push_back(marked(b));
    std::vector<Frame> frames;
    for (const auto& body : s.bodies) frames.push_back({*this, s, needs_of(*body)});
    switch (s.control.kind) {
      case ControlFlow::Kind::none: return;
      case ControlFlow::Kind::scan: return for_turns(s.control, buffers.data(), frames[0], [] {});
      case ControlFlow::Kind::cond:
        for (Frame& f : frames) bind_branch(s.control, s.buffers.size() - s.operands, buffers.data(), f);
        return;
      case ControlFlow::Kind::while_loop:
        return bind_loop(s.control, buffers.data(), frames[0], frames[1], nullptr);
    }
  }

  const Program& program_;
  BufferNeeds needs_;
};

/// Operands of a launch that are one place: is it written though the text says of one that nobody else reaches it?
void verify_sharing(const Step& s, const CallRecord& call,
                    const std::vector<target::KernelParameter>& promised) {
  struct Shared {
    int operands = 0;
    bool written = false, restricted = false;
  };
  ESPALIER_CHECK(promised.size() == call.operands.size(),
                 "a launch and its kernel have other operands: " + text(call));
  std::map<std::string, Shared> places;
  for (size_t i = 0; i < call.operands.size(); ++i) {
    const target::Operand& o = call.operands[i];
    const auto b = static_cast<size_t>(o.buffer);
    const Place& place = b < s.buffers.size() ? s.buffers[b] : s.scratch;
    Shared& one = places[fmt::format("{}:{}", place.text(), o.offset)];
    ++one.operands;
    one.written |= promised[i].written;
    one.restricted |= promised[i].restricted;
    ESPALIER_CHECK(
        one.operands == 1 || !one.written || !one.restricted,
        fmt::format("step {}: {} is written and another operand, too, which {} is told not to be: {}",
                    name_of(s), place.text(), std::get<target::KernelCall>(call.work).kernel, text(call)));
  }
}

}  // namespace

BufferNeeds needs_of(const Program& program) { return Collector(program).collect(); }

void verify_calls(const Program& program, int64_t arena_alignment, const SlotAlignment& slots) {
  const BufferNeeds needs = needs_of(program);
  const auto check = [&](const std::string& what, int64_t need, int64_t given) {
    ESPALIER_CHECK(given % need == 0,
                   fmt::format("program {}: records need {} bytes of alignment of {}, which has {}",
                               program.name(), need, what, given));
  };
  const auto given = [](const std::vector<int64_t>& known, size_t i) {
    return i < known.size() ? known[i] : cache_line;
  };
  for (size_t i = 0; i < needs.inputs.size(); ++i)
    check("input " + program.inputs()[i].name, needs.inputs[i], given(slots.inputs, i));
  for (size_t o = 0; o < needs.outputs.size(); ++o)
    check("output " + program.outputs()[o].name, needs.outputs[o], given(slots.outputs, o));
  for (size_t c = 0; c < needs.constants.size(); ++c)
    check(fmt::format("constant {}", c), needs.constants[c], cache_line);
  for (const auto& [offset, need] : needs.arena)
    check(fmt::format("arena+{}", offset), need, arena_alignment);

  for (const Step& s : program.steps()) {
    std::map<std::string_view, std::vector<target::KernelParameter>> promised;
    for (const target::KernelSource& source : s.kernel->sources())
      promised.try_emplace(source.name, target::parameters_of(source));
    for (const CallRecord& call : s.kernel->calls())
      if (const auto* kernel = std::get_if<target::KernelCall>(&call.work))
        if (const auto it = promised.find(kernel->kernel); it != promised.end())
          verify_sharing(s, call, it->second);
  }
}

}  // namespace espalier::run
