#pragma once
// Identity ops that mark places of a joint graph of forward and backward. autodiff::gradient() sets them; the mixed-precision
// pass multiplies what loss_seed gives by the loss scale and divides what param_grad takes; simplification then drops
// them. Until that pass has run they must stay: constant folding leaves them alone (is_marker).
//
// A marker stands for a multiplication by a number, so its own gradient is the same marker on what comes back. That keeps
// gradients of gradients right: every path of an outer gradient through an inner one meets one inner loss_seed (in what the
// inner walk computed) and one inner param_grad, and paths beside the inner gradient meet neither.
#include "ir/op_def.h"

namespace espalier::op {

using ir::Value;

extern const ir::OpDef loss_seed_op, param_grad_op;

/// The gradient of a loss with respect to itself: `one`, marked.
Value loss_seed(Value one);
/// The gradient with respect to one of the values asked for, marked.
Value param_grad(Value gradient);
bool is_marker(const ir::Node& node);

}  // namespace espalier::op
