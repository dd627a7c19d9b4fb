#pragma once
// Losses (composites): the mean over all examples, a scalar of dtype f32 (f64 for f64 inputs);
// the mean of no example is NaN.
#include "base/export.h"
#include "op/movement.h"

namespace espalier::op {

ESPALIER_API extern const ir::OpDef cross_entropy_op, bce_with_logits_op, mse_op;

/// logits [..., classes], labels [...] of i32 or i64 in [0, classes): mean of -log softmax(logits)[label].
ESPALIER_API Value cross_entropy(Value logits, Value labels);
/// logits and targets (in [0, 1]) of equal dims: mean of max(x,0) - x t + log(1 + exp(-|x|)).
ESPALIER_API Value bce_with_logits(Value logits, Value targets);
/// mean of (a - b)^2.
ESPALIER_API Value mse(Value a, Value b);

}  // namespace espalier::op
