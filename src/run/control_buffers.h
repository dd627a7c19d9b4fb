#pragma once
// Where the bodies of control flow find their inputs and outputs among the buffers of their step, on a host as on a device. A frame
// is anything with input(i, address) and output(o, address).
#include "run/program.h"

namespace espalier::run {

inline char* moved(void* base, int64_t bytes) { return static_cast<char*>(base) + bytes; }

/// Calls `turn()` for every turn of a scan, with the body's frame bound: carries in the step's results, slices and stacked rows where
/// they stand in the whole arrays.
template <class Frame, class Turn>
void for_turns(const ControlFlow& c, void* const* buffers, Frame& body, const Turn& turn) {
  const size_t carries = c.carries(), walked = carries + c.slice_bytes.size();
  for (size_t i = 0; i < carries; ++i) body.input(i, buffers[c.operands + i]);
  for (size_t i = walked; i < c.operands; ++i) body.input(i, buffers[i]);
  for (int64_t t = 0; t < c.length; ++t) {
    const int64_t row = c.row(t);
    for (size_t i = 0; i < c.slice_bytes.size(); ++i)
      body.input(carries + i, moved(buffers[carries + i], row * c.slice_bytes[i]));
    for (size_t o = 0; o < c.stacked_bytes.size(); ++o)
      body.output(carries + o, moved(buffers[c.operands + carries + o], row * c.stacked_bytes[o]));
    turn();
  }
}

/// The branch of a cond: its operands come after the condition.
template <class Frame>
void bind_branch(const ControlFlow& c, size_t results, void* const* buffers, Frame& body) {
  for (size_t i = 1; i < c.operands; ++i) body.input(i - 1, buffers[i]);
  for (size_t r = 0; r < results; ++r) body.output(r, buffers[c.operands + r]);
}

/// Condition and body of a while_loop: both see the carries in the step's results; the condition's answer is a byte at `flag`.
template <class Frame>
void bind_loop(const ControlFlow& c, void* const* buffers, Frame& condition, Frame& body, void* flag) {
  for (size_t i = 0; i < c.operands; ++i) {
    void* const at = buffers[i < c.carries() ? c.operands + i : i];
    condition.input(i, at);
    body.input(i, at);
  }
  condition.output(0, flag);
}

}  // namespace espalier::run
