#pragma once
// From a fusion body (tensor-level ops over static types) to loop nests.
#include <variant>
#include <vector>

#include "kernel/loop_nest.h"
#include "kernel/refusal.h"

namespace espalier::ir {
class Graph;
}

namespace espalier::kernel {

/// Nests that run one after the other over one list of buffers: the body's inputs, its outputs, then scratch.
struct Lowered {
  std::vector<LoopNest> nests;
  std::vector<Buffer> buffers;  ///< inputs, outputs, scratch: what every nest is called with
  /// Bytes of scratch buffers, in all.
  int64_t scratch_bytes() const;
};

struct LowerOptions {
  /// A reduction of more elements than this over fewer kept elements than `few` is cut in fixed parts, so that it can run in
  /// parallel; the parts are added in order.
  int64_t long_reduction = 32768;
  int64_t few = 1024;
  /// A contraction of more multiplications than this is refused (a library does better).
  int64_t max_contraction = 1 << 16;
};

/// The nests of `body`, or why there are none. Ops: elementwise with a scalar body, cast, broadcast_to, reshape, transpose, slice,
/// pad, concat, gather, iota, reductions, arg-reductions, dot, constant; several outputs. All types static.
std::variant<Lowered, Refusal> lower(const ir::Graph& body, const LowerOptions& options = {});

/// May output `out` of the lowered body be the very memory of input `in`?
bool can_share(const Lowered& lowered, int in, int out);

}  // namespace espalier::kernel
