#include "op/reduction.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "op/axes.h"
#include "op/elementwise.h"
#include "op/infer.h"
#include "op/sampling.h"
#include "op/strided.h"
#include "op/table.h"
#include "op/widen.h"

namespace espalier::op {

using ir::Array;
using ir::Dtype;
using ir::EvalCtx;
using ir::GradCtx;
using ir::InferCtx;
using ir::make;
using ir::OpDef;
using ir::Sample;
using ir::SampleRng;
using ir::Type;

namespace {

using Ints = std::vector<int64_t>;

std::vector<Type> infer_reduce(const InferCtx& c) {
  const Ints& axes = c.attrs.get<AxesAttrs>().axes;
  check_axes(c, axes, c.in[0].rank());
  return {{c.in[0].dtype, dims_without(c.in[0].dims, axes)}};
}

std::vector<Type> infer_arg(const InferCtx& c) {
  const int64_t axis = c.attrs.get<AxisAttrs>().axis;
  check_axis(c, axis, c.in[0].rank());
  if (c.in[0].dims[static_cast<size_t>(axis)] == ir::Dim(0))
    c.fail("the axis is empty", "a dim of at least 1");
  return {{Dtype::i64, dims_without(c.in[0].dims, {axis})}};
}

/// Strides of the result along the operand's axes: 0 along those that are folded.
Ints folded_strides(const Ints& dims, const Ints& axes) {
  Ints strides(dims.size(), 0);
  int64_t step = 1;
  const Ints kept = axes_without(static_cast<int>(dims.size()), axes);
  for (size_t i = kept.size(); i-- > 0;) {
    strides[static_cast<size_t>(kept[i])] = step;
    step *= dims[static_cast<size_t>(kept[i])];
  }
  return strides;
}

/// Floats are folded in double, integers and bool in int64, wrapping.
template <class T>
using Accumulator = std::conditional_t<std::is_integral_v<T>, int64_t, double>;

/// What a reduction starts from, in the accumulator's type.
enum class Start { zero, one, lowest, highest };
template <class T, class A>
A start_value(Start start) {
  using Limits = std::numeric_limits<std::conditional_t<std::is_floating_point_v<A>, A, T>>;
  if (start == Start::zero) return A(0);
  if (start == Start::one) return A(1);
  if constexpr (std::is_floating_point_v<A>)
    return start == Start::lowest ? -Limits::infinity() : Limits::infinity();
  else return start == Start::lowest ? A(Limits::lowest()) : A(Limits::max());
}

/// Fold in row-major order of the operand.
template <auto Combine>
std::vector<Array> fold(const EvalCtx& c, Start start) {
  const Array& x = c.in[0];
  Array out(x.dtype(), ir::static_dims(c.node.types()[0].dims));
  ir::dispatch(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Accumulator<T>;
    std::vector<A> sums(static_cast<size_t>(out.size()), start_value<T, A>(start));
    const T* in = x.template data<T>();
    walk(x.dims(), folded_strides(x.dims(), c.attrs<AxesAttrs>().axes), ir::row_major_strides(x.dims()),
         [&](int64_t o, int64_t i) {
           A& sum = sums[static_cast<size_t>(o)];
           sum = Combine(sum, number_cast<A>(in[i]));
         });
    T* o = out.template write<T>();
    for (size_t i = 0; i < sums.size(); ++i) o[i] = number_cast<T>(sums[i]);
  });
  return {out};
}

/// The index of the first element that none beats; NaN beats all numbers.
template <auto Beats>
std::vector<Array> arg_fold(const EvalCtx& c) {
  const Array& x = c.in[0];
  const auto axis = static_cast<size_t>(c.attrs<AxisAttrs>().axis);
  Array out(Dtype::i64, ir::static_dims(c.node.types()[0].dims));
  const Ints strides = ir::row_major_strides(x.dims());
  Ints dims = x.dims(), to = folded_strides(x.dims(), {c.attrs<AxisAttrs>().axis});
  dims[axis] = 1;
  ir::dispatch(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Accumulator<T>;
    const T* in = x.template data<T>();
    walk(dims, to, strides, [&](int64_t o, int64_t i) {
      int64_t best = 0;
      for (int64_t k = 1; k < x.dims()[axis]; ++k) {
        const A held = number_cast<A>(in[i + best * strides[axis]]),
                v = number_cast<A>(in[i + k * strides[axis]]);
        if (held != held) break;
        if (v != v || Beats(v, held)) best = k;
      }
      out.write<int64_t>()[o] = best;
    });
  });
  return {out};
}

/// Where x holds its extreme, the gradient divided by how many elements do.
std::vector<Value> grad_extreme(const GradCtx& c) {
  const Value& x = c.in(0);
  const Ints& axes = c.node.attrs<AxesAttrs>().axes;
  const Value mask = eq(x, unreduce(c.out(), x, axes));
  const Value count = reduce_sum(cast(mask, x.dtype()), axes);
  return {select(mask, unreduce(div(c.dout[0], count), x, axes), zeros_like(x))};
}

/// The product of the others: out / x where nothing is 0, else the product of the non-zeros at a lone zero, else 0.
std::vector<Value> grad_prod(const GradCtx& c) {
  const Value& x = c.in(0);
  const Ints& axes = c.node.attrs<AxesAttrs>().axes;
  const auto back = [&](Value v) { return unreduce(std::move(v), x, axes); };
  const Value is_zero = eq(x, zeros_like(x)), safe = select(is_zero, ones_like(x), x);
  const Value zeros = reduce_sum(cast(is_zero, x.dtype()), axes), product = reduce_prod(safe, axes);
  const Value none = back(cast(eq(zeros, zeros_like(zeros)), x.dtype())),
              one = back(cast(eq(zeros, ones_like(zeros)), x.dtype()));
  const Value others = mul(div(back(product), safe), select(is_zero, one, none));
  return {mul(back(c.dout[0]), others)};
}

Sample sample_reduce(SampleRng& rng, Dtype dtype) {
  const Ints dims = draw_dims(rng, draw(rng, 0, 4), 5);
  return {{draw_array(rng, dtype, dims, -3, 3)},
          AxesAttrs{draw_axes(rng, static_cast<int64_t>(dims.size()))},
          {}};
}

/// As sample_reduce, without ties among floats.
Sample sample_extreme(SampleRng& rng, Dtype dtype) {
  Sample s = sample_reduce(rng, dtype);
  s.inputs[0] = draw_distinct(rng, dtype, s.inputs[0].dims());
  return s;
}

Sample sample_arg(SampleRng& rng, Dtype dtype) {
  Ints dims = draw_dims(rng, draw(rng, 1, 4), 5);
  const int64_t axis = draw(rng, 0, static_cast<int64_t>(dims.size()) - 1);
  dims[static_cast<size_t>(axis)] = std::max<int64_t>(dims[static_cast<size_t>(axis)], 1);
  return {{draw_array(rng, dtype, dims, -3, 3)}, AxisAttrs{axis}, {}};
}

constexpr OpDef reduction(std::string_view name, std::string_view doc, ir::DtypeSet dtypes,
                          const ir::AttrType* attrs, ir::InferFn infer, ir::Grad grad, ir::EvalFn eval,
                          ir::SampleFn sample) {
  return {.name = name,
          .doc = doc,
          .kind = ir::Kind::reduction,
          .arity = {1, 1},
          .dtypes = dtypes,
          .attrs = attrs,
          .infer = infer,
          .grad = grad,
          .expand = nullptr,
          .scalar = {},
          .eval = eval,
          .sample = sample};
}

constexpr const ir::AttrType *axes_attrs = ir::attr_type<AxesAttrs>(),
                             *axis_attrs = ir::attr_type<AxisAttrs>();

}  // namespace

constinit const OpDef reduce_sum_op = reduction(
    "reduce_sum", "The sum over axes; over nothing it is 0.", ir::number_types, axes_attrs, infer_reduce,
    ir::rule([](const GradCtx& c) {
      return std::vector{unreduce(c.dout[0], c.in(0), c.node.attrs<AxesAttrs>().axes)};
    }),
    [](const EvalCtx& c) { return fold<[](auto a, auto b) { return a + b; }>(c, Start::zero); },
    sample_reduce);
constinit const OpDef reduce_prod_op = reduction(
    "reduce_prod", "The product over axes; over nothing it is 1.", ir::number_types, axes_attrs, infer_reduce,
    ir::rule(grad_prod),
    [](const EvalCtx& c) { return fold<[](auto a, auto b) { return a * b; }>(c, Start::one); },
    sample_reduce);
constinit const OpDef reduce_max_op = reduction(
    "reduce_max",
    "The largest over axes, NaN where there is one; over nothing -inf (the lowest integer); on bool, any. "
    "Equal largest elements share the gradient.",
    ir::all_types, axes_attrs, infer_reduce, ir::rule(grad_extreme),
    [](const EvalCtx& c) {
      return fold<[](auto a, auto b) { return ir::math::max(a, b); }>(c, Start::lowest);
    },
    sample_extreme);
constinit const OpDef reduce_min_op = reduction(
    "reduce_min",
    "The smallest over axes, NaN where there is one; over nothing inf (the highest integer); on bool, all. "
    "Equal smallest elements share the gradient.",
    ir::all_types, axes_attrs, infer_reduce, ir::rule(grad_extreme),
    [](const EvalCtx& c) {
      return fold<[](auto a, auto b) { return ir::math::min(a, b); }>(c, Start::highest);
    },
    sample_extreme);
constinit const OpDef argmax_op =
    reduction("argmax", "The index of the first largest element along an axis, i64; NaN counts as largest.",
              ir::all_types, axis_attrs, infer_arg, ir::not_differentiable,
              arg_fold<[](auto v, auto held) { return (v > held); }>, sample_arg);
constinit const OpDef argmin_op =
    reduction("argmin", "The index of the first smallest element along an axis, i64; NaN counts as smallest.",
              ir::all_types, axis_attrs, infer_arg, ir::not_differentiable,
              arg_fold<[](auto v, auto held) { return v < held; }>, sample_arg);

std::span<const OpDef* const> reduction_ops() {
  static constexpr const OpDef* ops[] = {&reduce_sum_op, &reduce_prod_op, &reduce_max_op,
                                         &reduce_min_op, &argmax_op,      &argmin_op};
  return ops;
}

namespace {
Value reduce(const OpDef& op, Value x, Ints axes) {
  std::sort(axes.begin(), axes.end());
  return axes.empty() && op.dtypes.has(x.dtype()) ? x : make(op, {std::move(x)}, AxesAttrs{std::move(axes)});
}
}  // namespace

Value reduce_sum(Value x, Ints axes) { return reduce(reduce_sum_op, std::move(x), std::move(axes)); }
Value reduce_prod(Value x, Ints axes) { return reduce(reduce_prod_op, std::move(x), std::move(axes)); }
Value reduce_max(Value x, Ints axes) { return reduce(reduce_max_op, std::move(x), std::move(axes)); }
Value reduce_min(Value x, Ints axes) { return reduce(reduce_min_op, std::move(x), std::move(axes)); }
Value reduce_mean(Value x, Ints axes) {
  const Dtype dtype = x.dtype();
  if (!is_float(dtype))
    throw UserError(
        {"op reduce_mean", "dtype is not supported", std::string(ir::dtype_name(dtype)), "f64 f32 bf16 f16"});
  // 16-bit floats hold neither large counts nor long sums: their mean is taken in f32.
  const Value wide = widened(x);
  const Value sum = reduce_sum(wide, axes), n = dim_size(wide, axes, wide.dtype());
  return cast(div(sum, broadcast_in(n, sum.dims(), {})), dtype);
}
Value argmax(Value x, int64_t axis) { return make(argmax_op, {std::move(x)}, AxisAttrs{axis}); }
Value argmin(Value x, int64_t axis) { return make(argmin_op, {std::move(x)}, AxisAttrs{axis}); }

Value below_max(const Value& x, const Ints& axes) { return sub(x, unreduce(reduce_max(x, axes), x, axes)); }

Ints all_axes(const Value& x) { return axes_without(x.rank(), {}); }

Value unreduce(Value reduced, const Value& like, const Ints& axes) {
  return broadcast_in(std::move(reduced), like.dims(), axes_without(like.rank(), axes));
}

}  // namespace espalier::op
