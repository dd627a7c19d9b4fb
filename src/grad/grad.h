#pragma once
// Reverse mode. It reads only the op records: a rule builds the gradient of one node as ordinary graph, an op that is
// differentiated by its expansion goes through that, and nothing here knows an op by name but add and the markers.
//
// Gradients flow through float values only. Where a value is used several times its gradients are added in the reverse
// order of the graph, so the sum has one order. Because nodes are hash-consed, what a rule recomputes from the forward
// pass is the forward pass's own node.
#include <span>
#include <vector>

#include "ir/graph.h"

namespace espalier::autodiff {

/// d loss / d w for every w in `wrt`, each of w's type; zeros where the loss does not depend on w. The seed is marked by
/// op::loss_seed and every result by op::param_grad (op/marker.h). UserError when the loss is no float scalar, when a w is
/// no float, or when the path goes through an op that has no gradient (while_loop).
ESPALIER_API std::vector<ir::Value> gradient(const ir::Value& loss, std::span<const ir::Value> wrt);

/// Vector-Jacobian product: the sum over outputs of dout times d output / d w, for every w in `wrt`. `douts` has one entry
/// per output, of its type (an empty Value stands for zero). Nothing is marked. Errors as in gradient().
ESPALIER_API std::vector<ir::Value> vjp(std::span<const ir::Value> outputs, std::span<const ir::Value> douts,
                                        std::span<const ir::Value> wrt);

/// Reverse mode of a closed body: a graph whose inputs are the body's and then one per float output of the body (its
/// gradient), and whose outputs are the gradients of the inputs that `wanted` marks, in order (zeros where nothing flows).
ir::GraphRef body_grad(const ir::GraphRef& body, const std::vector<char>& wanted);

}  // namespace espalier::autodiff
