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

/// A scale or zero point of one number, one per element of `axis`, or one per block of `block` elements along it, stretched to
/// `like`.
Value per_axis(const Use& u, const Value& v, const Value& like, int64_t axis, int64_t block = 0) {
  if (block < 0 || block > int64_t{1} << 40)
    u.fail("block_size is out of range", std::to_string(block), "0 to 2^40");
  if (v.rank() == 0) return stretched(v, like.dims());
  if (block > 0) {
    const int64_t a = u.axis(axis, like.rank());
    const auto at = static_cast<size_t>(a);
    Dims want = like.dims();
    if (!want[at].is_static())
      u.fail("a symbolic axis has blocks", dims_text(want), "a symbol bound when loading");
    const int64_t length = want[at].value();
    want[at] = Dim((length + block - 1) / block);
    if (v.dims() != want)
      u.fail("a scale or zero point does not fit its blocks", v.type().text(), dims_text(want));
    Dims split = want, all = want;
    split.insert(split.begin() + a + 1, Dim(block));
    all[at] = want[at] * Dim(block);
    Ints axes;
    for (int64_t i = 0; i < like.rank(); ++i) axes.push_back(i <= a ? i : i + 1);
    return op::slice_axis(reshaped(op::broadcast_in(v, split, axes), all), a, 0, length);
  }
  if (v.rank() != 1) u.fail("a scale or zero point has several axes", v.type().text(), "rank 0 or 1");
  if (v.dims()[0] == Dim(1)) return stretched(reshaped(v, {}), like.dims());
  return stretched(v, like.dims(), {u.axis(axis, like.rank())});
}

/// round(x / scale) + zero, saturated.
Value quantised(const Value& x, const Value& scale, const Value& zero, Dtype to) {
  const Value q = op::cast(op::round(op::div(x, scale)), Dtype::f32);
  return op::cast(op::add(q, op::cast(zero, Dtype::f32)), to);
}

/// The type that an attribute names, where it names one.
Dtype named_dtype(Use& u, const std::string& name, Dtype fallback) {
  const int64_t number = u.integer(name, 0);
  return number == 0 ? fallback
                     : dtype_of_onnx(static_cast<int32_t>(number), u.where() + ", attribute " + name);
}

Results read_quantize(Use& u) {
  u.ignore("saturate");  // of floats of 8 bits
  const Value factor = u.value(1);
  const Dtype within = u.opset() < 19 ? Dtype::f32 : named_dtype(u, "precision", factor.dtype());
  const Value x = op::cast(u.value(0), within);
  const int64_t axis = u.integer("axis", 1), block = u.integer("block_size", 0);
  const Value scale = op::cast(per_axis(u, factor, x, axis, block), within);
  const Dtype to = named_dtype(u, "output_dtype", u.has(2) ? u.dtype(2) : Dtype::u8);
  if (u.has(2) && to != u.dtype(2))
    u.fail("output_dtype differs from the zero point's type", std::string(dtype_name(to)),
           std::string(dtype_name(u.dtype(2))));
  const Value zero = u.has(2) ? per_axis(u, u.value(2), x, axis, block) : op::full_like(op::cast(x, to), 0);
  return {held(quantised(x, scale, zero, to))};
}

Results read_dequantize(Use& u) {
  const Value q = u.value(0), factor = u.value(1);
  const Dtype to = named_dtype(u, "output_dtype", u.opset() < 19 ? Dtype::f32 : factor.dtype());
  const int64_t axis = u.integer("axis", 1), block = u.integer("block_size", 0);
  const Value x = op::cast(q, Dtype::f32);
  const Value centred =
      u.has(2) ? op::sub(x, op::cast(per_axis(u, u.value(2), q, axis, block), Dtype::f32)) : x;
  return {held(op::mul(op::cast(centred, to), op::cast(per_axis(u, factor, x, axis, block), to)))};
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

constexpr ReadRow loss_table[] = {
    {"NegativeLogLikelihoodLoss", 12, newest_opset, 2, 3, read_likelihood_loss},
    {"SoftmaxCrossEntropyLoss", 12, newest_opset, 2, 3, read_softmax_cross_entropy},
    {"QuantizeLinear", 10, newest_opset, 2, 3, read_quantize},
    {"DequantizeLinear", 10, newest_opset, 2, 3, read_dequantize},
    {"DynamicQuantizeLinear", 11, newest_opset, 1, 1, read_dynamic_quantize},
};

}  // namespace

std::span<const ReadRow> loss_rows() { return loss_table; }

}  // namespace espalier::format
