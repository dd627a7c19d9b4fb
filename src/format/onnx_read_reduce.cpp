// Reductions, softmax and other ops of ONNX along axes.
#include <algorithm>
#include <cmath>
#include <functional>

#include "format/onnx_import.h"
#include "op/activation.h"
#include "op/axes.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/reduction.h"

namespace espalier::format {

using ir::Dims;
using ir::Dtype;
using ir::Value;

namespace {

/// A reduction over ONNX's axes, kept as 1 or not; done channels-last where that needs no transpose.
Held reduce(const Use& u, Ints axes, bool keep, const std::function<Value(Value, Ints)>& fold) {
  Held h = u.tensor(0);
  const int rank = h.value.rank();
  const auto gone = [&](int64_t k) { return std::find(axes.begin(), axes.end(), k) != axes.end(); };
  if (h.last && !keep) {  // what is left must keep its order
    bool spatial = false;
    for (int64_t k = 2; k < rank; ++k) spatial = spatial || !gone(k);
    if (spatial && !gone(1)) h = held(plain(h));
  }
  if (h.last)
    for (int64_t& a : axes) a = last_axis(a, rank);
  std::sort(axes.begin(), axes.end());
  const Value y = fold(h.value, axes);
  if (!keep) return held(y);
  return held(kept_as_ones(y, h.value.dims(), axes), h.last);
}

/// The axes of a reduction: an attribute, or since some opset an input; all of them where neither is given.
Ints reduced_axes(Use& u, int64_t input_since) {
  const int rank = u.rank(0);
  Ints axes;
  if (u.opset() >= input_since) {
    if (u.has(1)) axes = u.integers(1);
    if (axes.empty() && u.integer("noop_with_empty_axes", 0) != 0) return {};
    static_cast<void>(u.integer("noop_with_empty_axes", 0));
  } else {
    axes = u.integers("axes", {});
  }
  if (axes.empty()) axes = op::axes_without(rank, {});
  return u.axes(std::move(axes), rank);
}

template <int64_t InputSince, class F>
Results reduction(Use& u, F fold) {
  const Ints axes = reduced_axes(u, InputSince);
  return {reduce(u, axes, u.integer("keepdims", 1) != 0, fold)};
}

/// Integers have no mean of ours: their sum is divided as integers.
Value mean(Value x, Ints axes) {
  if (is_float(x.dtype())) return op::reduce_mean(std::move(x), std::move(axes));
  const Value sum = op::reduce_sum(x, axes), n = op::dim_size(x, axes, x.dtype());
  return op::div(sum, op::broadcast_in(n, sum.dims(), {}));
}

Value log_sum_exp(const Value& x, const Ints& axes) {
  const Value largest = op::reduce_max(x, axes);
  const Value inf = op::full_like(largest, std::numeric_limits<double>::infinity());
  const Value shift = op::select(op::lt(op::abs(largest), inf), largest, op::zeros_like(largest));
  const Value sum = op::reduce_sum(op::exp(op::sub(x, op::unreduce(shift, x, axes))), axes);
  return op::add(op::log(sum), shift);
}

template <bool Largest>
Results read_arg(Use& u) {
  const int64_t axis = u.axis(u.integer("axis", 0), u.rank(0));
  const bool keep = u.integer("keepdims", 1) != 0, last = u.integer("select_last_index", 0) != 0;
  return {reduce(u, {axis}, keep, [&](const Value& x, const Ints& axes) {
    const auto pick = [&](const Value& v) {
      return Largest ? op::argmax(v, axes[0]) : op::argmin(v, axes[0]);
    };
    if (!last) return pick(x);
    const Value i = pick(op::reverse(x, axes));  // the first from behind
    return op::sub(op::full_like(i, static_cast<double>(x.dims()[static_cast<size_t>(axes[0])].value() - 1)),
                   i);
  })};
}

/// Since opset 13 along one axis; before, over all axes from `axis` on, taken as one.
Results along_axis(Use& u, const std::function<Value(Value, int64_t)>& f) {
  const int64_t fallback = u.opset() >= 13 ? -1 : 1;
  const int rank = u.rank(0);
  const int64_t axis = u.axis(u.integer("axis", fallback), rank);
  const Held& h = u.tensor(0);
  if (u.opset() < 13 && axis != rank - 1) {
    const Value x = plain(h);
    Dims flat(x.dims().begin(), x.dims().begin() + axis);
    flat.push_back(ir::count(std::span(x.dims()).subspan(static_cast<size_t>(axis))));
    return {held(reshaped(f(reshaped(x, flat), axis), x.dims()))};
  }
  return {held(f(h.value, h.last ? last_axis(axis, rank) : axis), h.last)};
}

Value hardmax(const Value& x, int64_t axis) {
  const auto depth = x.dims()[static_cast<size_t>(axis)].value();
  return last_moved_to(op::one_hot(op::argmax(x, axis), depth, x.dtype()), axis);
}

Results read_cum_sum(Use& u) {
  const Value x = u.value(0);
  const bool exclusive = u.integer("exclusive", 0) != 0, reverse = u.integer("reverse", 0) != 0;
  const Ints given = u.integers(1);
  if (given.size() != 1) u.fail("the axis is no single number");
  const int64_t axis = u.axis(given[0], x.rank());
  const ir::Dim length = x.dims()[static_cast<size_t>(axis)];
  if (!length.is_static())
    u.fail("a symbolic axis is summed", dims_text(x.dims()), "a symbol bound when loading");
  const int64_t n = length.value();
  if (n == 0) return {held(x)};
  return {held(in_f32_at_least(x, [&](const Value& v) {
    const Value taken = exclusive ? op::slice_axis(v, axis, reverse ? 1 : 0, n - 1) : v;
    const int64_t zeros = exclusive ? n : n - 1;
    return window_sums(zeros_around(taken, axis, reverse ? 0 : zeros, reverse ? zeros : 0), axis, n);
  }))};
}

/// x / norm over one axis; zeros stay zeros.
Results read_lp_normalization(Use& u) {
  const Value x = u.value(0);
  const int64_t axis = u.axis(u.integer("axis", -1), x.rank()), p = u.integer("p", 2);
  if (p != 1 && p != 2) u.fail("p is not supported", std::to_string(p), "1 2");
  const Value sum = op::reduce_sum(p == 1 ? op::abs(x) : op::square(x), {axis});
  const Value norm = op::unreduce(p == 1 ? sum : op::sqrt(sum), x, {axis}), zero = op::zeros_like(x);
  return {held(op::select(op::eq(norm, zero), zero, op::div(x, norm)))};
}

Results read_mean_variance_normalization(Use& u) {
  const Value x = u.value(0);
  const Ints axes = u.axes(u.integers("axes", {0, 2, 3}), x.rank());
  const Value centred = op::sub(x, op::unreduce(op::reduce_mean(x, axes), x, axes));
  const Value deviation = op::sqrt(op::reduce_mean(op::square(centred), axes));
  return {held(op::div(centred, op::unreduce(op::add(deviation, 1e-9), x, axes)))};
}

/// Of bools as of 0 and 1.
template <Value (*F)(Value, Ints)>
Value of_bools_too(const Value& x, const Ints& axes) {
  if (x.dtype() != Dtype::boolean) return F(x, axes);
  return op::cast(F(op::cast(x, Dtype::u8), axes), Dtype::boolean);
}

constexpr ReadRow reduce_table[] = {
    {"ReduceSum", 1, newest_opset, 1, 2, [](Use& u) { return reduction<13>(u, op::reduce_sum); }},
    {"ReduceMean", 1, newest_opset, 1, 2, [](Use& u) { return reduction<18>(u, mean); }},
    {"ReduceMax", 1, newest_opset, 1, 2,
     [](Use& u) { return reduction<18>(u, of_bools_too<op::reduce_max>); }},
    {"ReduceMin", 1, newest_opset, 1, 2,
     [](Use& u) { return reduction<18>(u, of_bools_too<op::reduce_min>); }},
    {"ReduceProd", 1, newest_opset, 1, 2, [](Use& u) { return reduction<18>(u, op::reduce_prod); }},
    {"ReduceL1", 1, newest_opset, 1, 2,
     [](Use& u) {
       return reduction<18>(u, [](const Value& x, const Ints& a) { return op::reduce_sum(op::abs(x), a); });
     }},
    {"ReduceL2", 1, newest_opset, 1, 2,
     [](Use& u) {
       return reduction<18>(
           u, [](const Value& x, const Ints& a) { return op::sqrt(op::reduce_sum(op::square(x), a)); });
     }},
    {"ReduceSumSquare", 1, newest_opset, 1, 2,
     [](Use& u) {
       return reduction<18>(u,
                            [](const Value& x, const Ints& a) { return op::reduce_sum(op::square(x), a); });
     }},
    {"ReduceLogSum", 1, newest_opset, 1, 2,
     [](Use& u) {
       return reduction<18>(u, [](const Value& x, const Ints& a) { return op::log(op::reduce_sum(x, a)); });
     }},
    {"ReduceLogSumExp", 1, newest_opset, 1, 2, [](Use& u) { return reduction<18>(u, log_sum_exp); }},
    {"ArgMax", 1, newest_opset, 1, 1, read_arg<true>},
    {"ArgMin", 1, newest_opset, 1, 1, read_arg<false>},
    {"Softmax", 1, newest_opset, 1, 1, [](Use& u) { return along_axis(u, op::softmax); }},
    {"LogSoftmax", 1, newest_opset, 1, 1, [](Use& u) { return along_axis(u, op::log_softmax); }},
    {"Hardmax", 1, newest_opset, 1, 1, [](Use& u) { return along_axis(u, hardmax); }},
    {"CumSum", 11, newest_opset, 2, 2, read_cum_sum},
    {"LpNormalization", 1, newest_opset, 1, 1, read_lp_normalization},
    {"MeanVarianceNormalization", 9, newest_opset, 1, 1, read_mean_variance_normalization},
};

}  // namespace

std::span<const ReadRow> reduce_rows() { return reduce_table; }

}  // namespace espalier::format
