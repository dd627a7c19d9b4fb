#include "nn/losses.h"

#include "op/axes.h"
#include "op/loss.h"

namespace espalier::nn {

Tensor cross_entropy(const Tensor& logits, const Tensor& labels) {
  return Tensor::from(op::cross_entropy(logits.value(), labels.value()), {logits, labels});
}
Tensor bce_with_logits(const Tensor& logits, const Tensor& targets) {
  return Tensor::from(op::bce_with_logits(logits.value(), targets.value()), {logits, targets});
}
Tensor mse(const Tensor& a, const Tensor& b) { return Tensor::from(op::mse(a.value(), b.value()), {a, b}); }

Tensor dice_loss(const Tensor& logits, const Tensor& targets) {
  const std::vector<int64_t> axes = op::axes_without(logits.rank(), {logits.rank() - 1});
  const Tensor p = logits.sigmoid();
  const Tensor both = (p * targets).sum(axes), all = p.sum(axes) + targets.sum(axes);
  return 1 - ((both * 2 + 1) / (all + 1)).mean();
}

Tensor accuracy(const Tensor& logits, const Tensor& labels) {
  return (logits.argmax(-1) == labels.cast(Dtype::i64)).cast(Dtype::f32).mean();
}

}  // namespace espalier::nn
