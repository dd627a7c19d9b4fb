#pragma once
// From lifetimes to offsets in one arena: buffers that live at the same time do not overlap. Finding the smallest arena is
// NP-hard; several greedy orders are tried, and reshuffled, until the arena is within half a percent of the largest live
// set (which no plan can beat) or a fixed amount of work is done.
#include <cstdint>
#include <span>
#include <vector>

#include "base/align.h"

namespace espalier::pass {

/// How an arena is laid out.
struct ArenaOptions {
  int64_t alignment = cache_line;  ///< every buffer begins at a multiple of this
  /// Above 0, for finding errors: so many bytes at least lie behind each buffer, no two buffers share any, and nobody writes there.
  int64_t red_zone = 0;
  bool apart = false;  ///< no two buffers share memory, whenever they are needed
  bool shares() const { return red_zone == 0 && !apart; }
};

/// A buffer and the steps during which it is needed, both ends included.
struct Lifetime {
  int64_t bytes = 0;
  int first = 0, last = 0;
};

struct MemoryPlan {
  std::vector<int64_t> offsets;  ///< of each buffer
  int64_t bytes = 0;             ///< of the arena
  int64_t largest_live_bytes =
      0;  ///< the most bytes (each buffer rounded up to the alignment) needed at one step
};

/// Offsets for `buffers`; the same input gives the same plan. InternalError for a lifetime that ends before it begins.
MemoryPlan plan_memory(std::span<const Lifetime> buffers, const ArenaOptions& options = {});

/// No two buffers that live at the same time overlap, all are aligned and inside the arena, and red zones are free; InternalError names the
/// pair.
void verify(const MemoryPlan& plan, std::span<const Lifetime> buffers, const ArenaOptions& options = {});

/// The most bytes needed at one step.
int64_t largest_live_set(std::span<const Lifetime> buffers, const ArenaOptions& options = {});

}  // namespace espalier::pass
