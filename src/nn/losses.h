#pragma once
// Losses and scores: scalars, means over all examples; losses in f32 (f64 for f64), scores in f32. Other shapes than stated are a
// UserError.
#include "tensor/tensor.h"

namespace espalier::nn {

/// logits [..., classes], labels [...] (i32 or i64) in 0..classes-1: mean of -log softmax(logits)[label]. Labels are checked
/// wherever their numbers are known: when the result is looked at, and on every call of a compiled function (UserError names the
/// element). Other labels, which then are of no class, are only possible in an argument of a compiled function whose argument_ranges
/// allow them.
ESPALIER_API Tensor cross_entropy(const Tensor& logits, const Tensor& labels);
/// Binary cross-entropy on logits, targets of equal dims from 0 to 1, checked as labels are.
ESPALIER_API Tensor bce_with_logits(const Tensor& logits, const Tensor& targets);
/// Mean of (a - b)^2, of equal dims.
ESPALIER_API Tensor mse(const Tensor& a, const Tensor& b);
/// 1 - mean over the last axis of (2 sum p t + 1) / (sum p + sum t + 1), p = sigmoid(logits), sums over all other axes
/// (Milletari et al. 2016, with a smoothing of 1). Targets of the logits' type.
ESPALIER_API Tensor dice_loss(const Tensor& logits, const Tensor& targets);
/// logits [..., classes], labels [...] (i32 or i64): the fraction of rows whose (first) largest logit is at the label.
ESPALIER_API Tensor accuracy(const Tensor& logits, const Tensor& labels);

}  // namespace espalier::nn
