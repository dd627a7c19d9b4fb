#include "run/bindings.h"

#include "base/align.h"

namespace espalier::run {

void check_binding(const Port& port, std::string_view what, uint64_t address) {
  if (address == 0 && port.bytes() == 0) return;
  if (address == 0 || address % cache_line != 0)
    throw UserError({std::string(what) + " " + port.name, address ? "memory is not aligned" : "null memory",
                     address ? std::to_string(address % cache_line) + " bytes past a boundary" : "",
                     "an address that is a multiple of 64"});
}

void check_output_binding(const Program& program, size_t o, uint64_t address) {
  const Port& port = program.outputs()[o];
  if (program.is_state_output(o))
    throw UserError(
        {"output " + port.name, "is the new side of a state, which is bound as such", "", "bind_state"});
  check_binding(port, "output", address);
}

void fail_bound_output(const Program& program, size_t o) {
  throw UserError({"output " + program.outputs()[o].name, "is bound to memory of the device's, where it is",
                   "", "that memory, or an output that is not bound"});
}

Bindings::Bindings(const Program& program)
    : inputs_(program.inputs().size()),
      is_changed_(inputs_ + program.outputs().size(), false),
      is_written_(is_changed_.size(), false) {
  changed_.reserve(is_changed_.size());
  for (const State& s : program.state()) written_.push_back(static_cast<size_t>(s.input));
  for (size_t o = 0; o < program.outputs().size(); ++o)
    if (!program.is_state_output(o)) written_.push_back(place_of_output(o));
  for (const size_t place : written_) is_written_[place] = true;
}

void Bindings::fail(const Program& program, size_t written, size_t other) const {
  const auto kind = [&](size_t place) {
    return place >= inputs_ ? "output" : program.is_state_input(place) ? "state" : "input";
  };
  const auto name = [&](size_t place) { return std::string(kind(place)) + " " + port(program, place).name; };
  throw UserError({name(written) + " and " + name(other),
                   std::string("share memory, and the program writes the ") + kind(written), "",
                   std::string("memory that is ") + (written < inputs_ ? "a state's" : "an output's") +
                       " is nothing else's"});
}

}  // namespace espalier::run
