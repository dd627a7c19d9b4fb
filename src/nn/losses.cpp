#include "nn/losses.h"

#include "op/axes.h"
#include "op/loss.h"
#include "op/reduction.h"
#include "op/widen.h"

namespace espalier::nn {

namespace {

/// Sum over `axes`; of none, x itself.
Tensor summed(const Tensor& x, const std::vector<int64_t>& axes) {
  return Tensor::from(op::reduce_sum(x.value(), axes), {x});
}

std::string type_text(const Tensor& t) { return ir::Type{t.dtype(), t.dims()}.text(); }

void check_logits(const char* what, const Tensor& logits) {
  if (logits.rank() < 1 || !ir::is_float(logits.dtype()))
    throw UserError({what, "logits are of the wrong type", type_text(logits), "floats of rank 1 or more"});
}

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& labels) {
  return Tensor::from(op::cross_entropy(logits.value(), labels.value()), {logits, labels});
}
Tensor bce_with_logits(const Tensor& logits, const Tensor& targets) {
  return Tensor::from(op::bce_with_logits(logits.value(), targets.value()), {logits, targets});
}
Tensor mse(const Tensor& a, const Tensor& b) { return Tensor::from(op::mse(a.value(), b.value()), {a, b}); }

Tensor dice_loss(const Tensor& logits, const Tensor& targets) {
  check_logits("dice_loss", logits);
  if (targets.dims() != logits.dims() || targets.dtype() != logits.dtype())
    throw UserError({"dice_loss", "targets do not fit the logits", type_text(targets), type_text(logits)});
  const Dtype wide = op::wide_dtype(logits.dtype());
  const std::vector<int64_t> axes = op::axes_without(logits.rank(), {logits.rank() - 1});
  const Tensor p = logits.cast(wide).sigmoid(), t = targets.cast(wide);
  const Tensor both = summed(p * t, axes), all = summed(p, axes) + summed(t, axes);
  return 1 - ((both * 2 + 1) / (all + 1)).mean();
}

Tensor accuracy(const Tensor& logits, const Tensor& labels) {
  check_logits("accuracy", logits);
  const Dims rows(logits.dims().begin(), logits.dims().end() - 1);
  if (labels.dims() != rows || (labels.dtype() != Dtype::i32 && labels.dtype() != Dtype::i64))
    throw UserError({"accuracy", "labels do not fit the logits", type_text(labels),
                     "i32 or i64 of " + ir::dims_text(rows)});
  return (logits.argmax(-1) == labels.cast(Dtype::i64)).cast(Dtype::f32).mean();
}

}  // namespace espalier::nn
