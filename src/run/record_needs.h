#pragma once
// What the call records of a program ask of the addresses of its buffers.
#include <map>

#include "run/program.h"

namespace espalier::run {

/// The bytes by which the address of each buffer must divide, so that every record that names it, in a body too, finds what it needs.
struct BufferNeeds {
  std::vector<int64_t> inputs, outputs, constants;
  std::map<int64_t, int64_t> arena;  ///< by where in the arena the buffer begins; of those not there: 1
};
BufferNeeds needs_of(const Program& program);

/// InternalError where a record needs more than its operand has (of the arena and of `slots`; constants have 64), or where an operand that is
/// written is another one's, too, and the kernel's text says of one of them that it is not (__restrict__).
void verify_calls(const Program& program, int64_t arena_alignment, const SlotAlignment& slots);

}  // namespace espalier::run
