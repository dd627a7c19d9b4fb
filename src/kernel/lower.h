#pragma once
// From a fusion body (tensor-level ops over static types) to loop nests.
#include <variant>
#include <vector>

#include "kernel/loop_nest.h"
#include "kernel/target_spec.h"

namespace espalier::kernel {

/// Nests that run one after the other over one list of buffers: the body's inputs, its outputs, then scratch.
struct Lowered {
  std::vector<LoopNest> nests;
  std::vector<Buffer> buffers;  ///< inputs, outputs, scratch: what every nest is called with
  /// Bytes of the scratch buffers, each rounded up to 64.
  int64_t scratch_bytes() const;
};

/// What is large and what is little work, for the machine that runs the nests; as they stand, for a few cores.
struct LowerOptions {
  /// A reduction of more elements than this that has little to run in parallel is cut in parts, which are added in order.
  int64_t long_reduction = 32768;
  /// Little: fewer units than this. A unit is one result, or up to `results_together` neighbours that are computed at once.
  int64_t enough_units = 16, results_together = 64;
  /// Then there should be so many units, as long as each is left at least so many elements to fold.
  int64_t wanted_units = 64, part_elements = 8192;
  /// It is cut along one axis; or, where the first has too few elements, along that and the next together.
  bool cuts_axes_together = false;
  /// What is computed from a reduction is computed with it, as long as one outer point has at most `max_inner` points of its own and,
  /// where there are fewer than `few_units` outer points, all of them have at most `few_inner`.
  int64_t max_inner = 16384, few_units = 32, few_inner = 32768;
  /// What is computed from folds that are cut in parts is computed with the sum of the parts whatever its size: the machine has many
  /// units add the parts again, each for some of the inner points.
  bool adds_parts_again = false;
  /// A contraction of more multiplications than this is refused (a library does better).
  int64_t max_contraction = 1 << 16;
};

/// The nests of `body`, or why there are none. Ops: elementwise with a scalar body, cast, broadcast_to, reshape, transpose, slice,
/// reverse, pad, concat, gather, iota, one_hot, reductions, arg-reductions, dot, scalar constants, and composites of these; several
/// outputs. All types static.
std::variant<Lowered, Refusal> lower(const ir::Graph& body, const LowerOptions& options = {});

/// May output `out` of the lowered body be the very memory of input `in`?
bool can_share(const Lowered& lowered, int out, int in);

}  // namespace espalier::kernel
