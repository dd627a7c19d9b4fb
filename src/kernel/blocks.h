#pragma once
// Layouts of activations with one axis cut in blocks: as plain values of one rank more, made and undone by a reshape and a
// transpose, so that no other level needs to know of them.
#include <optional>

#include "ir/graph.h"

namespace espalier::kernel {

/// How a form of activations lies in memory at a convolution.
enum class ActLayout : uint8_t {
  channels_last,  ///< [N, spatial..., C]
  blocked,        ///< [N, C/block, spatial..., block]
  planar,         ///< [N, C, spatial...]: for images of few channels
  batch_blocked,  ///< [N/block, spatial..., C, block]: the batch lies across the lanes of a vector
};

/// `blocked` or `batch_blocked`, with the elements per block. Axes below are those of a channels-last value of rank `rank`.
struct Blocks {
  ActLayout layout = ActLayout::blocked;
  int64_t size = 16;
  bool operator==(const Blocks&) const = default;

  /// The axis that is cut: the channels, or the batch.
  int64_t cut(int64_t rank) const { return layout == ActLayout::blocked ? rank - 1 : 0; }
  /// Where `axis` lies in the blocked value; of the axis that is cut, where the number of its block lies. The place inside the
  /// block is the last axis, number `rank`.
  int64_t axis(int64_t axis, int64_t rank) const {
    if (layout != ActLayout::blocked || axis == 0) return axis;
    return axis == rank - 1 ? 1 : axis + 1;
  }
  /// Can a value of these dims be cut so?
  bool divide(const ir::Dims& dims) const;
};

/// x [N, spatial..., C] in blocks (which divide it), as reshape and transpose nodes.
ir::Value to_blocked(const ir::Value& x, const Blocks& blocks);
/// The inverse.
ir::Value from_blocked(const ir::Value& x, const Blocks& blocks);

struct BlockMatch {
  ir::Value value;
  Blocks blocks;
};
/// If `x` is from_blocked(v, b): v and b.
std::optional<BlockMatch> match_from_blocked(const ir::Value& x);
/// If `x` is to_blocked(v, b): v and b.
std::optional<BlockMatch> match_to_blocked(const ir::Value& x);

}  // namespace espalier::kernel
