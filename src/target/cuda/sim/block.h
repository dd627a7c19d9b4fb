#pragma once
// Runs the blocks of a launch on this processor: one fiber for each thread of a block, all on the calling thread, so that
// barriers, shuffles and shared memory mean what they mean on a GPU. Under the thread sanitizer every thread of every block is
// a fiber of its own to it: a missing barrier is a race with two source lines.
#include <cstddef>
#include <cstdint>

#include "target/call.h"

namespace espalier::target::cuda::sim {

/// Which thread goes first: results must not depend on it.
enum class Order : uint8_t { forward, reverse, shuffled };

struct Launch {
  void (*entry)(void** arguments) = nullptr;
  void** arguments = nullptr;
  Grid grid, block;
  Order order = Order::forward;
  uint64_t seed = 1;
  bool synchronises = true;  ///< else the threads run as a plain loop (but under the thread sanitizer)
  int64_t shared_bytes = 0;  ///< of a block, beside the arrays of its text
};
/// Bytes that arrays of known size, and a launch that does not opt in, may have; and the most that any device gives.
inline constexpr int64_t sim_static_shared_bytes = int64_t{48} << 10,
                         sim_most_shared_bytes = int64_t{227} << 10;

/// Run it. One launch at a time in a process. InternalError when threads wait for each other in a way that hangs or is undefined on a
/// GPU: divergent barriers, warp operations with absent lanes, too much shared memory, an access of several elements as one that is not at a
/// multiple of its size.
void run_blocks(const Launch& launch);

/// What kernels call, in the layout of SimPort in slim.h.
const void* sim_port();

}  // namespace espalier::target::cuda::sim
