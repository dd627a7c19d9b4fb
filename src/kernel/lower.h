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

struct LowerOptions {
  /// A reduction of more elements than this that has little to run in parallel is cut in parts, which are added in order.
  int64_t long_reduction = 32768;
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
