#include "run/targets.h"

#include <string>

#include "target/cpu/cpu_target.h"
#include "target/null/null_target.h"
#include "target/reference/reference_target.h"

namespace espalier::run {

namespace {

constexpr NamedTarget table[] = {
    {"cpu", "this processor: emitted loops, oneDNN, the reference last", target::cpu::cpu_target},
    {"reference", "the interpreter, op by op: what every op means, slowly",
     target::reference::reference_target},
    {"null", "plans like a real target and computes nothing: for tests and for measuring overhead",
     target::null::null_target},
};

}  // namespace

std::span<const NamedTarget> targets() { return table; }

const target::Target& find_target(std::string_view name) {
  std::string names;
  for (const NamedTarget& t : table) {
    if (t.name == name) return t.get();
    (names += names.empty() ? "" : ", ") += t.name;
  }
  throw UserError({"target " + std::string(name), "there is no such target", "", names});
}

const target::Target& default_target() { return table[0].get(); }

}  // namespace espalier::run
