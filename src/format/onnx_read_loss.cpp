// Losses and quantised numbers of ONNX.
#include <algorithm>

#include "format/onnx_import.h"
#include "op/activation.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/reduction.h"

namespace espalier::format {

using ir::Dim;
using ir::Dims;
using ir::Dtype;
using ir::Value;

namespace {

/// -weight[target] * log_p[target] over axis 1, where the target is not to be ignored.
Value likelihood_loss(Use& u, const Value& log_p) {
  const Value target = op::cast(u.value(1), Dtype::i64), weight = u.has(2) ? u.value(2) : Value();
  if (log_p.rank() < 2 || target.rank() != log_p.rank() - 1)
    u.fail("ranks do not fit", log_p.type().text() + ", " + target.type().text(), "[N, C, ...] and [N, ...]");
  const std::string reduction = u.text("reduction", "mean");
  const bool ignores = u.has_attr("ignore_index");
  const auto ignored = static_cast<double>(u.integer("ignore_index", 0));
  const Value zero = op::zeros_like(target);
  const Value counts = ignores ? op::ne(target, op::full_like(target, ignored)) : op::eq(zero, zero);
  const Value index = ignores ? op::select(counts, target, zero) : target;
  Dims column = target.dims();
  column.insert(column.begin() + 1, Dim(1));
  const Value picked = reshaped(op::gather_along(log_p, reshaped(index, column), 1), target.dims());
  const Value none = op::zeros_like(picked);
  const Value share = op::select(counts, weight ? op::gather(weight, index, 0) : op::ones_like(picked), none);
  Value loss = op::select(counts, op::neg(op::mul(picked, share)), none);
  if (reduction == "none") return loss;
  if (reduction != "mean" && reduction != "sum")
    u.fail("reduction is not supported", reduction, "none mean sum");
  const Value sum = op::reduce_sum(loss, op::all_axes(loss));
  return reduction == "sum" ? sum : op::div(sum, op::reduce_sum(share, op::all_axes(share)));
}

Results read_likelihood_loss(Use& u) { return {held(likelihood_loss(u, u.value(0)))}; }

Results read_softmax_cross_entropy(Use& u) {
  if (u.rank(0) < 2) u.fail("scores have too few axes", dims_text(u.dims(0)), "[N, C, ...]");
  const Value log_p = op::log_softmax(u.value(0), 1);
  return {held(likelihood_loss(u, log_p)), held(log_p)};
}

/// A scale or zero point of one number, or one per element of `axis`, stretched to `like`.
Value per_axis(const Use& u, const Value& v, const Value& like, int64_t axis) {
  if (v.rank() == 0) return stretched(v, like.dims());
  if (v.rank() != 1) u.fail("a scale or zero point has several axes", v.type().text(), "rank 0 or 1");
  if (v.dims()[0] == Dim(1)) return stretched(reshaped(v, {}), like.dims());
  return stretched(v, like.dims(), {u.axis(axis, like.rank())});
}

/// round(x / scale) + zero, saturated.
Value quantised(const Value& x, const Value& scale, const Value& zero, Dtype to) {
  const Value q = op::round(op::div(x, scale));
  return op::cast(op::add(q, op::cast(zero, x.dtype())), to);
}

Results read_quantize(Use& u) {
  const Value x = op::cast(u.value(0), Dtype::f32);
  const int64_t axis = u.integer("axis", 1);
  const Value scale = per_axis(u, u.value(1), x, axis);
  const Value zero = u.has(2) ? per_axis(u, u.value(2), x, axis) : op::full_like(op::cast(x, Dtype::u8), 0);
  return {held(quantised(x, scale, zero, zero.dtype()))};
}

Results read_dequantize(Use& u) {
  const Value q = u.value(0), x = op::cast(q, Dtype::f32);
  const int64_t axis = u.integer("axis", 1);
  const Value centred = u.has(2) ? op::sub(x, op::cast(per_axis(u, u.value(2), q, axis), Dtype::f32)) : x;
  return {held(op::mul(centred, per_axis(u, u.value(1), x, axis)))};
}

Results read_dynamic_quantize(Use& u) {
  const Value x = u.value(0);
  const Value zero = ir::constant(x.dtype(), 0);
  const Value high = op::max(op::reduce_max(x, op::all_axes(x)), zero),
              low = op::min(op::reduce_min(x, op::all_axes(x)), zero);
  const Value scale = op::div(op::sub(high, low), 255);
  const Value point = op::cast(op::round(op::div(op::neg(low), scale)), Dtype::u8);
  const auto full = [&](const Value& v) { return op::broadcast_in(v, x.dims(), {}); };
  return {held(quantised(x, full(scale), full(point), Dtype::u8)), held(scale), held(point)};
}

constexpr ReadRow rows[] = {
    {"NegativeLogLikelihoodLoss", 12, newest_opset, 2, 3, read_likelihood_loss},
    {"SoftmaxCrossEntropyLoss", 12, newest_opset, 2, 3, read_softmax_cross_entropy},
    {"QuantizeLinear", 10, newest_opset, 2, 3, read_quantize},
    {"DequantizeLinear", 10, newest_opset, 2, 3, read_dequantize},
    {"DynamicQuantizeLinear", 11, newest_opset, 1, 1, read_dynamic_quantize},
};

}  // namespace

std::span<const ReadRow> loss_rows() { return rows; }

}  // namespace espalier::format
