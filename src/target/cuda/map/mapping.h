#pragma once
// How the loops of a nest become blocks and threads. A pure function of the nest and the alignment of its buffers: plans need no
// device.
#include <cstdint>
#include <span>
#include <vector>

#include "kernel/loop_nest.h"

namespace espalier::target::cuda {

struct MapOptions {
  /// Bytes by which the address of each buffer is known to divide; those not named: 16.
  std::vector<int64_t> alignment;
  /// Indices and addresses up to this number are 32-bit.
  int64_t index_limit = 0x7fffffff;
};

/// Each thread computes `vector` neighbouring points of the outer loops, and runs the loops of the stages itself.
struct Mapping {
  kernel::LoopNest nest;  ///< with its loops merged
  int vector_var = -1;    ///< the outer variable that moves fastest from thread to thread; -1: no outer loops
  int vector = 1;         ///< its values that one thread computes; divides its extent
  std::vector<int> slower;  ///< the other outer variables, outermost first
  int64_t units = 1;        ///< threads that have work
  bool wide_index = false;
  /// Buffers whose memory may be another's too: nothing is promised about them.
  std::vector<char> shared;
  std::vector<int64_t> alignment;  ///< of every buffer
};

Mapping map(const kernel::LoopNest& nest, const MapOptions& options);

/// May `vector` elements at `address`, whose lanes lie along `var`, be moved as one? Only asked where its coefficient is 1.
bool is_vector_access(const Mapping& m, const kernel::Affine& address,
                      std::span<const kernel::Indirect> indirect, int buffer, int var, int vector);
/// Does `guard` hold for all of `vector` neighbours along `var`, or for none?
bool is_vector_guard(const kernel::Guard& guard, int var, int vector);

}  // namespace espalier::target::cuda
