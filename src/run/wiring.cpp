#include "run/wiring.h"

namespace espalier::run {

using pass::Place;

namespace {
/// A place for values of no bytes.
alignas(64) char nothing[64];
}  // namespace

Wiring::Wiring(const Program& program)
    : arena_bytes_(round_up(program.memory().arena, frame_alignment)),
      input_uses_(program.inputs().size()),
      output_uses_(program.outputs().size()) {
  for (const ir::Array& c : program.constants())
    constants_.push_back(c.data() ? const_cast<void*>(static_cast<const void*>(c.data())) : nothing);
  for (const Step& s : program.steps()) {
    calls_.push_back({s.kernel.get(), pointers_, s.scratch.kind == Place::Kind::arena ? s.scratch.offset : -1,
                      s.kernel->chunks()});
    for (const Place& p : s.buffers) {
      const size_t at = pointers_++;
      const auto index = static_cast<size_t>(p.index);
      switch (p.kind) {
        case Place::Kind::none: nowhere_.push_back(at); break;
        case Place::Kind::arena: in_arena_.push_back({at, p.offset}); break;
        case Place::Kind::input: input_uses_[index].push_back(at); break;
        case Place::Kind::output: output_uses_[index].push_back(at); break;
        case Place::Kind::constant: to_constant_.push_back({at, index}); break;
      }
    }
  }
}

void Wiring::wire(void** table, char* arena, std::span<void* const> constants) const {
  wire_places(
      table, [&](int64_t offset) { return arena + offset; }, constants);
}

std::vector<Call> Wiring::calls(void* const* table, char* arena) const {
  std::vector<Call> out;
  for (size_t s = 0; s < calls_.size(); ++s) out.push_back(call(s, table, arena));
  return out;
}

}  // namespace espalier::run
