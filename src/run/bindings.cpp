#include "run/bindings.h"

#include "base/align.h"

namespace espalier::run {

void check_binding(const Port& port, std::string_view what, uint64_t address) {
  if (address == 0 || address % cache_line != 0)
    throw UserError({std::string(what) + " " + port.name, address ? "memory is not aligned" : "null memory",
                     address ? std::to_string(address % cache_line) + " bytes past a boundary" : "",
                     "an address that is a multiple of 64"});
}

Bindings::Bindings(const Program& program) {
  if (program.state().empty()) return;
  is_changed_.assign(program.inputs().size(), false);
  changed_.reserve(program.inputs().size());
}

void Bindings::fail(const Program& program, size_t state, size_t other) {
  const auto name = [&](size_t i) {
    return (program.is_state_input(i) ? "state " : "input ") + program.inputs()[i].name;
  };
  throw UserError({name(state) + " and " + name(other), "share memory, and the program writes the state", "",
                   "memory that is a state's is no other input's"});
}

}  // namespace espalier::run
