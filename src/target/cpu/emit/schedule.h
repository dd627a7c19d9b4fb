#pragma once
// How a nest runs on this processor: which loops are merged, which variable is the vector, how many vectors and rows at once, and
// where the work is cut in chunks. A pure function of the nest and the vector's width, never of the number of threads.
#include "kernel/loop_nest.h"

namespace espalier::target::cpu {

struct Schedule {
  kernel::LoopNest nest;  ///< loops merged where addresses allow
  int lanes = 16;

  /// The outer variable that lies across the vector in every stage; -1: in each stage the last of its own loops does, and is
  /// reduced across lanes at the end.
  int vector_var = -1;
  int64_t vector_block = 0;  ///< elements of vector_var per unit of work (its extent when it is not cut)
  int unroll = 1;            ///< vectors at once along vector_var, or along a stage's own vector

  int tile_var = -1;  ///< an outer variable of which `tile` values are computed together, sharing loads
  int tile = 1;

  std::vector<int>
      parallel;  ///< outer variables whose product (times blocks of vector_var) numbers the units
  std::vector<int> sequential;  ///< the other outer variables, loops inside a unit
  int64_t units = 1, units_per_chunk = 1, chunks = 1;
  /// Buffers whose memory may be another's too: as the nest was lowered, before loops were merged, which is what the planner sees.
  std::vector<char> shared;
  double cost_ns = 0;  ///< of everything on one thread, roughly

  /// Loop trips of an outer variable: tiles of tile_var, else its extent.
  int64_t trips(int var) const;
  int64_t blocks() const;  ///< of vector_var
};

Schedule schedule(const kernel::LoopNest& nest, int lanes);

}  // namespace espalier::target::cpu
