#pragma once
// The transforms of the pipeline, one per file. Each returns the same graph when there was nothing to do.
#include "pass/pass.h"

namespace espalier::pass {

/// Algebra: identities, double negation, cancelling casts, transposes and reshapes, moves of scalars.
ir::Graph simplify(const ir::Graph& graph, const PassContext& context);
/// Training graphs: relu after max pooling instead of before, so that it and its gradient's mask see the maxima only.
ir::Graph sink_relu(const ir::Graph& graph, const PassContext& context);
/// Fold each node whose operands are all constant into a constant (results above 64 MiB and random nodes are left).
ir::Graph fold_constants(const ir::Graph& graph, const PassContext& context);
/// Fold batch_norm with constant statistics into the constant weights of the convolution or dot before it.
ir::Graph fold_batch_norm(const ir::Graph& graph, const PassContext& context);
/// Matrix work and the activations between in `context.precision`; parameters, statistics and losses stay f32.
ir::Graph mixed_precision(const ir::Graph& graph, const PassContext& context);
/// Replace every composite op that the target does not claim by its expansion.
ir::Graph expand_composites(const ir::Graph& graph, const PassContext& context);
/// Compute each contraction in the dtype that the target has arithmetic for: operands cast up, the result rounded once.
ir::Graph widen_contractions(const ir::Graph& graph, const PassContext& context);
/// Put chains of convolutions into the channel-blocked layout where the target asks for it.
ir::Graph choose_layout(const ir::Graph& graph, const PassContext& context);
/// Give each contraction the casts, bias, activation and residual that the target's kernel runs along with it.
ir::Graph fuse_contractions(const ir::Graph& graph, const PassContext& context);
/// Gather pointwise, movement and reduction ops into loop nests.
ir::Graph fuse_loops(const ir::Graph& graph, const PassContext& context);
/// Where the target asks for it, small fusions that do not depend on each other become one step.
ir::Graph batch_nests(const ir::Graph& graph, const PassContext& context);

}  // namespace espalier::pass
