#pragma once
// How the loops of a nest become blocks and threads. A pure function of the nest and the alignment of its buffers: plans need no
// device.
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernel/loop_nest.h"

namespace espalier::target::cuda {

struct MapOptions {
  /// Bytes by which the address of each buffer is known to divide; those not named: 16.
  std::vector<int64_t> alignment;
  /// Indices and addresses up to this number are 32-bit.
  int64_t index_limit = 0x7fffffff;
};

enum class Scheme : uint8_t {
  pointwise,  ///< a thread for each vector of outer points runs the stages' loops itself
  rows,  ///< a group of neighbouring threads for each outer point: along each stage's innermost loop, which is contiguous
  transpose,  ///< a block for each tile of two outer loops: loads along the one, stores along the other, through shared memory
  columns,  ///< neighbouring threads for neighbouring outer points, several rows of them for one loop of each stage
};
std::string_view scheme_name(Scheme scheme);

/// How a stage's loops are run.
struct StageMap {
  std::vector<int> loops;  ///< outermost first
  int split = -1;          ///< the loop that the threads of a group share; -1: none, they all do the same
  int lane_var = -1;       ///< the variable of which a thread has `lanes` neighbouring values at once
  int lanes = 1;           ///< divides its extent
  bool sliced = false;     ///< the blocks of a unit share the loop `split` too
};

/// Of the transpose scheme.
struct TileMap {
  int load_var =
      -1;  ///< the variable along which the tile's loads are contiguous; stores are along `vector_var`
  int load_lanes = 1;         ///< its values in one access; divides its extent
  int edge = 32;              ///< values of either variable in a tile
  std::vector<char> crossed;  ///< instructions of the stage: is it a load that goes through the tile?
};

struct Mapping {
  kernel::LoopNest nest;  ///< with its loops merged
  Scheme scheme = Scheme::pointwise;
  int vector_var = -1;      ///< the outer variable that moves fastest from unit to unit; -1: no outer loops
  int vector = 1;           ///< its values in one unit; divides its extent
  std::vector<int> slower;  ///< the other outer variables, outermost first
  int64_t units = 1;        ///< outer points, `vector` at a time
  int group = 1;            ///< threads that share a unit
  int side_by_side = 256;   ///< units of a block
  /// Blocks that share a unit: each folds for itself what the unit folds, which is little, and stores some of what it stores; what
  /// the unit stores once is the first's.
  int64_t slices = 1;
  std::vector<StageMap> stages;
  TileMap tile;
  bool wide_index = false;
  /// Buffers whose memory may be another's too: nothing is promised about them.
  std::vector<char> shared;
  std::vector<int64_t> alignment;  ///< of every buffer

  int threads() const { return group * side_by_side; }
};

Mapping map(const kernel::LoopNest& nest, const MapOptions& options);

/// Though the nest allows it, may output `out` not be the memory of input `in`? So where several blocks share a unit and not
/// only those threads read `in` that write over it.
bool lie_apart(const Mapping& m, int out, int in);

/// May `vector` elements at `address`, whose lanes lie along `var`, be moved as one? Only asked where its coefficient is 1.
bool is_vector_access(const Mapping& m, const kernel::Affine& address,
                      std::span<const kernel::Indirect> indirect, int buffer, int var, int vector);
/// Does `guard` hold for all of `vector` neighbours along `var`, or for none?
bool is_vector_guard(const kernel::Guard& guard, int var, int vector);

}  // namespace espalier::target::cuda
