#include "op/movement.h"

#include <algorithm>
#include <numeric>

#include "op/axes.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/infer.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "op/strided.h"
#include "op/table.h"

namespace espalier::op {

using ir::Array;
using ir::Dim;
using ir::Dims;
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

std::vector<int64_t> result_dims(const EvalCtx& c) { return ir::static_dims(c.node.types()[0].dims); }

void check_lengths(const InferCtx& c, std::initializer_list<size_t> lengths) {
  for (const size_t n : lengths)
    if (n != c.in[0].dims.size())
      c.fail("an attribute needs one entry per axis", std::to_string(c.in[0].rank()) + " entries",
             std::to_string(n));
}

// ---- infer rules

std::vector<Type> infer_reshape(const InferCtx& c) {
  const Dims& dims = c.attrs.get<ReshapeAttrs>().dims;
  check_dims(c, dims);
  if (!same_count(c.in[0].dims, dims))
    c.fail("the number of elements changes", "as many as " + c.in[0].text() + " has", dims_text(dims));
  return {{c.in[0].dtype, dims}};
}

std::vector<Type> infer_transpose(const InferCtx& c) {
  const Ints& perm = c.attrs.get<TransposeAttrs>().perm;
  Ints sorted = perm;
  std::sort(sorted.begin(), sorted.end());
  if (perm.size() != c.in[0].dims.size() || !is_identity(sorted))
    c.fail("perm is no permutation of the axes", "each axis of " + c.in[0].text() + " once",
           "[" + join(perm) + "]");
  return {{c.in[0].dtype, pick(c.in[0].dims, perm)}};
}

std::vector<Type> infer_broadcast(const InferCtx& c) {
  const auto& a = c.attrs.get<BroadcastAttrs>();
  check_dims(c, a.dims);
  check_lengths(c, {a.axes.size()});
  check_axes(c, a.axes, static_cast<int>(a.dims.size()));
  for (size_t i = 0; i < a.axes.size(); ++i)
    if (a.dims[at(a.axes[i])] != c.in[0].dims[i])
      c.fail("dims differ at axis " + std::to_string(i), "result dims equal to the operand's at `axes`",
             c.in[0].text() + " to " + dims_text(a.dims) + " at [" + join(a.axes) + "]");
  return {{c.in[0].dtype, a.dims}};
}

std::vector<Type> infer_slice(const InferCtx& c) {
  const auto& a = c.attrs.get<SliceAttrs>();
  check_lengths(c, {a.start.size(), a.size.size(), a.step.size()});
  for (size_t k = 0; k < a.size.size(); ++k) {
    const Dim dim = c.in[0].dims[k], size = a.size[k];
    const std::string got = c.in[0].text() + ", axis " + std::to_string(k) + ": start " +
                            std::to_string(a.start[k]) + ", size " + size.text() + ", step " +
                            std::to_string(a.step[k]);
    if (a.start[k] < 0 || a.step[k] < 1 || size.factor() < 0)
      c.fail("bad slice", "start >= 0, step >= 1, size >= 0", got);
    if (!dim.is_static() || !size.is_static()) continue;
    int64_t last = 0;  // one past the last element
    if (size.value() > 0 && (__builtin_mul_overflow(size.value() - 1, a.step[k], &last) ||
                             __builtin_add_overflow(last, 1, &last)))
      c.fail("bad slice", "a range in the axis", got);
    if (__builtin_add_overflow(last, a.start[k], &last) || last > dim.value())
      c.fail("slice goes past the end", "start + (size-1)*step < dim", got);
  }
  return {{c.in[0].dtype, a.size}};
}

std::vector<Type> infer_pad(const InferCtx& c) {
  const auto& a = c.attrs.get<PadAttrs>();
  check_lengths(c, {a.low.size(), a.high.size(), a.interior.size()});
  if (c.in[1] != Type{c.in[0].dtype, {}})
    c.fail("fill must be a scalar of the operand's dtype", Type{c.in[0].dtype, {}}.text());
  Dims dims;
  for (size_t k = 0; k < a.low.size(); ++k) {
    if (a.low[k] < 0 || a.high[k] < 0 || a.interior[k] < 0)
      c.fail("negative padding", ">= 0",
             "low [" + join(a.low) + "] high [" + join(a.high) + "] interior [" + join(a.interior) + "]");
    const Dim d = c.in[0].dims[k], edges = Dim(a.low[k]) + Dim(a.high[k]);
    if (d == Dim(0)) dims.push_back(edges);
    else dims.push_back(d * (Dim(1) + Dim(a.interior[k])) + (edges + Dim(-a.interior[k])));
  }
  return {{c.in[0].dtype, dims}};
}

std::vector<Type> infer_concat(const InferCtx& c) {
  const int64_t axis = c.attrs.get<AxisAttrs>().axis;
  Type t = c.in[0];
  check_axis(c, axis, t.rank());
  for (size_t i = 1; i < c.in.size(); ++i) {
    Type part = c.in[i];
    if (part.rank() != t.rank()) c.fail("parts have different ranks", "equal ranks");
    t.dims[at(axis)] = t.dims[at(axis)] + part.dims[at(axis)];
    part.dims[at(axis)] = t.dims[at(axis)];
    if (part != t)
      c.fail("parts differ off the axis", "equal dtypes, equal dims but at axis " + std::to_string(axis));
  }
  return {t};
}

// ---- reference

std::vector<Array> eval_broadcast(const EvalCtx& c) {
  const std::vector<int64_t> dims = result_dims(c), from = ir::row_major_strides(c.in[0].dims());
  View view{0, Ints(dims.size(), 0)};
  const Ints& axes = c.attrs<BroadcastAttrs>().axes;
  for (size_t i = 0; i < axes.size(); ++i) view.strides[at(axes[i])] = from[i];
  return {read_view(c.in[0], view, dims)};
}

std::vector<Array> eval_transpose(const EvalCtx& c) {
  const Ints from = ir::row_major_strides(c.in[0].dims());
  return {read_view(c.in[0], {0, pick(from, c.attrs<TransposeAttrs>().perm)}, result_dims(c))};
}

std::vector<Array> eval_slice(const EvalCtx& c) {
  const auto& a = c.attrs<SliceAttrs>();
  View view = whole(c.in[0].dims());
  for (size_t k = 0; k < a.start.size(); ++k) {
    view.offset += a.start[k] * view.strides[k];
    view.strides[k] *= a.step[k];
  }
  return {read_view(c.in[0], view, result_dims(c))};
}

std::vector<Array> eval_pad(const EvalCtx& c) {
  const auto& a = c.attrs<PadAttrs>();
  const std::vector<int64_t> dims = result_dims(c);
  Array out = read_view(c.in[1], {0, Ints(dims.size(), 0)}, dims);
  View view = whole(dims);
  for (size_t k = 0; k < dims.size(); ++k) {
    view.offset += a.low[k] * view.strides[k];
    view.strides[k] *= a.interior[k] + 1;
  }
  copy_view(out, view, c.in[0], whole(c.in[0].dims()), c.in[0].dims());
  return {out};
}

std::vector<Array> eval_concat(const EvalCtx& c) {
  const size_t axis = at(c.attrs<AxisAttrs>().axis);
  const std::vector<int64_t> dims = result_dims(c);
  Array out(c.in[0].dtype(), dims);
  View view = whole(dims);
  for (const Array& part : c.in) {
    copy_view(out, view, part, whole(part.dims()), part.dims());
    view.offset += part.dims()[axis] * view.strides[axis];
  }
  return {out};
}

std::vector<Array> eval_reverse(const EvalCtx& c) {
  View view = whole(c.in[0].dims());
  for (const int64_t k : c.attrs<AxesAttrs>().axes) {
    view.offset += (c.in[0].dims()[at(k)] - 1) * view.strides[at(k)];
    view.strides[at(k)] = -view.strides[at(k)];
  }
  return {read_view(c.in[0], view, c.in[0].dims())};
}

std::vector<Array> eval_dim_size(const EvalCtx& c) {
  const auto& a = c.attrs<DimSizeAttrs>();
  return {Array::of<int64_t>({}, {count_at(c.in[0].dims(), a.axes)}).cast(a.dtype)};
}

// ---- gradients

/// 0, step, 2*step, ... from `from`, as i64: the positions a slice takes.
Value positions(Dim size, Value from, int64_t step) {
  const Value i = mul(iota({Dtype::i64, {size}}, 0), static_cast<double>(step));
  return add(i, broadcast_in(std::move(from), i.dims(), {}));
}

/// A slice's gradient: padding where its amounts are numbers, else (axes of unbound size) a scatter into zeros, axis by axis.
std::vector<Value> grad_slice(const GradCtx& c) {
  const auto& a = c.node.attrs<SliceAttrs>();
  const Dims& dims = c.in(0).dims();
  Ints low(dims.size(), 0), high = low, interior = low;
  Value d = c.dout[0];
  for (size_t k = 0; k < dims.size(); ++k) {
    if (a.size[k] == dims[k] && a.start[k] == 0) continue;
    if (!dims[k].is_static() || !a.size[k].is_static()) {
      Dims wide = d.dims();
      wide[k] = dims[k];
      const Value zeros = broadcast_in(ir::constant(d.dtype(), 0), wide, {});
      const Value from = ir::constant(Array::of<int64_t>({}, {a.start[k]}));
      d = scatter_add(zeros, positions(a.size[k], from, a.step[k]), d, static_cast<int64_t>(k));
      continue;
    }
    const int64_t size = a.size[k].value(), dim = dims[k].value();
    low[k] = a.start[k];
    interior[k] = size > 1 ? a.step[k] - 1 : 0;
    high[k] = dim - low[k] - (size > 0 ? (size - 1) * (interior[k] + 1) + 1 : 0);
  }
  return {pad(d, ir::constant(d.dtype(), 0), low, high, interior)};
}

std::vector<Value> grad_pad(const GradCtx& c) {
  const auto& a = c.node.attrs<PadAttrs>();
  Ints step = a.interior;
  for (int64_t& s : step) ++s;
  const Value d = c.dout[0], inner = slice(d, a.low, c.in(0).dims(), step);
  std::vector<Value> grads{inner, Value()};
  if (c.needed[1]) grads[1] = sub(reduce_sum(d, all_axes(d)), reduce_sum(inner, all_axes(inner)));
  return grads;
}

/// Slices of the result's gradient; after a part of unbound size the start is no number, and a gather takes its place.
std::vector<Value> grad_concat(const GradCtx& c) {
  const int64_t axis = c.node.attrs<AxisAttrs>().axis;
  std::vector<Value> grads;
  Dim start = 0;
  Value before = ir::constant(Array::of<int64_t>({}, {int64_t{0}}));
  for (size_t i = 0; i < c.node.inputs().size(); ++i) {
    const Value& part = c.node.inputs()[i];
    const Dim size = part.dims()[at(axis)];
    if (!c.needed[i]) grads.emplace_back();
    else if (start.is_static()) grads.push_back(slice_axis(c.dout[0], axis, start.value(), size));
    else grads.push_back(gather(c.dout[0], positions(size, before, 1), axis));
    start = start + size;
    before = add(before, dim_size(part, {axis}, Dtype::i64));
  }
  return grads;
}

std::vector<Value> grad_broadcast(const GradCtx& c) {
  const auto& a = c.node.attrs<BroadcastAttrs>();
  return {reduce_sum(c.dout[0], axes_without(static_cast<int>(a.dims.size()), a.axes))};
}

// ---- samples

Sample sample_reshape(SampleRng& rng, Dtype dtype) {
  const Ints dims = draw_dims(rng, draw(rng, 0, 4), 4);
  Dims to;
  for (const int64_t d : dims) {  // split, merge and add ones
    if (d % 2 == 0 && draw_chance(rng, 0.5)) to.insert(to.end(), {Dim(2), Dim(d / 2)});
    else if (!to.empty() && draw_chance(rng, 0.5)) to.back() = to.back() * Dim(d);
    else to.emplace_back(d);
    if (draw_chance(rng, 0.2)) to.emplace_back(1);
  }
  return {{draw_array(rng, dtype, dims)}, ReshapeAttrs{to}, {}};
}

Sample sample_transpose(SampleRng& rng, Dtype dtype) {
  const Ints dims = draw_dims(rng, draw(rng, 0, 4), 5);
  return {{draw_array(rng, dtype, dims)},
          TransposeAttrs{draw_permutation(rng, static_cast<int64_t>(dims.size()))},
          {}};
}

Sample sample_broadcast(SampleRng& rng, Dtype dtype) {
  const Ints dims = draw_dims(rng, draw(rng, 0, 4), 5);
  BroadcastAttrs a{ir::to_dims(dims), draw_axes(rng, static_cast<int64_t>(dims.size()))};
  return {{draw_array(rng, dtype, pick(dims, a.axes))}, a, {}};
}

Sample sample_slice(SampleRng& rng, Dtype dtype) {
  const Ints dims = draw_dims(rng, draw(rng, 0, 4), 7);
  SliceAttrs a;
  for (const int64_t d : dims) {
    a.start.push_back(draw(rng, 0, d));
    a.step.push_back(draw(rng, 1, 3));
    a.size.emplace_back(draw(rng, 0, (d - a.start.back() + a.step.back() - 1) / a.step.back()));
  }
  return {{draw_array(rng, dtype, dims)}, a, {}};
}

Sample sample_pad(SampleRng& rng, Dtype dtype) {
  const Ints dims = draw_dims(rng, draw(rng, 0, 4), 4);
  PadAttrs a;
  for (size_t k = 0; k < dims.size(); ++k) {
    a.low.push_back(draw(rng, 0, 2));
    a.high.push_back(draw(rng, 0, 2));
    a.interior.push_back(draw_chance(rng, 0.3) ? draw(rng, 1, 2) : 0);
  }
  return {{draw_array(rng, dtype, dims), draw_array(rng, dtype, {})}, a, {}};
}

Sample sample_concat(SampleRng& rng, Dtype dtype) {
  Ints dims = draw_dims(rng, draw(rng, 1, 4), 4);
  const AxisAttrs a{draw(rng, 0, static_cast<int64_t>(dims.size()) - 1)};
  Sample s{{}, a, {}};
  for (int64_t i = draw(rng, 1, 4); i > 0; --i) {
    dims[at(a.axis)] = draw_dim(rng, 4);
    s.inputs.push_back(draw_array(rng, dtype, dims));
  }
  return s;
}

Sample sample_axes(SampleRng& rng, Dtype dtype) {
  const Ints dims = draw_dims(rng, draw(rng, 0, 4), 5);
  return {{draw_array(rng, dtype, dims)}, AxesAttrs{draw_axes(rng, static_cast<int64_t>(dims.size()))}, {}};
}

Sample sample_dim_size(SampleRng& rng, Dtype dtype) {
  const Sample s = sample_axes(rng, dtype);
  return {s.inputs,
          DimSizeAttrs{s.attrs.get<AxesAttrs>().axes, draw_chance(rng, 0.5) ? Dtype::f32 : Dtype::i64},
          {}};
}

}  // namespace

constinit const OpDef reshape_op{
    .name = "reshape",
    .doc = "The same elements in row-major order, with other dims.",
    .kind = ir::Kind::movement,
    .arity = {1, 1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<ReshapeAttrs>(),
    .infer = infer_reshape,
    .grad = ir::rule([](const GradCtx& c) { return std::vector{reshape(c.dout[0], c.in(0).dims())}; }),
    .expand = nullptr,
    .scalar = {},
    .eval = [](const EvalCtx& c) { return std::vector{c.in[0].reshaped(result_dims(c))}; },
    .sample = sample_reshape,
};
constinit const OpDef transpose_op{
    .name = "transpose",
    .doc = "Axes in another order: result axis i is operand axis perm[i].",
    .kind = ir::Kind::movement,
    .arity = {1, 1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<TransposeAttrs>(),
    .infer = infer_transpose,
    .grad = ir::rule([](const GradCtx& c) {
      return std::vector{transpose(c.dout[0], inverse(c.node.attrs<TransposeAttrs>().perm))};
    }),
    .expand = nullptr,
    .scalar = {},
    .eval = eval_transpose,
    .sample = sample_transpose,
};
constinit const OpDef broadcast_to_op{
    .name = "broadcast_to",
    .doc = "Operand axis i becomes result axis axes[i]; the elements repeat along the others.",
    .kind = ir::Kind::movement,
    .arity = {1, 1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<BroadcastAttrs>(),
    .infer = infer_broadcast,
    .grad = ir::rule(grad_broadcast),
    .expand = nullptr,
    .scalar = {},
    .eval = eval_broadcast,
    .sample = sample_broadcast,
};
constinit const OpDef slice_op{
    .name = "slice",
    .doc = "Elements start, start + step, ... of each axis, `size` of them.",
    .kind = ir::Kind::movement,
    .arity = {1, 1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<SliceAttrs>(),
    .infer = infer_slice,
    .grad = ir::rule(grad_slice),
    .expand = nullptr,
    .scalar = {},
    .eval = eval_slice,
    .sample = sample_slice,
};
constinit const OpDef pad_op{
    .name = "pad",
    .doc = "`low` and `high` fill elements around each axis and `interior` between neighbours.",
    .kind = ir::Kind::movement,
    .arity = {2, 2},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<PadAttrs>(),
    .infer = infer_pad,
    .grad = ir::rule(grad_pad),
    .expand = nullptr,
    .scalar = {},
    .eval = eval_pad,
    .sample = sample_pad,
};
constinit const OpDef concat_op{
    .name = "concat",
    .doc = "The parts one after the other along an axis.",
    .kind = ir::Kind::movement,
    .arity = {1, -1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<AxisAttrs>(),
    .infer = infer_concat,
    .grad = ir::rule(grad_concat),
    .expand = nullptr,
    .scalar = {},
    .eval = eval_concat,
    .sample = sample_concat,
};
constinit const OpDef reverse_op{
    .name = "reverse",
    .doc = "The elements of the given axes in opposite order.",
    .kind = ir::Kind::movement,
    .arity = {1, 1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<AxesAttrs>(),
    .infer =
        [](const InferCtx& c) {
          check_axes(c, c.attrs.get<AxesAttrs>().axes, c.in[0].rank());
          return std::vector{c.in[0]};
        },
    .grad = ir::rule(
        [](const GradCtx& c) { return std::vector{reverse(c.dout[0], c.node.attrs<AxesAttrs>().axes)}; }),
    .expand = nullptr,
    .scalar = {},
    .eval = eval_reverse,
    .sample = sample_axes,
};
constinit const OpDef dim_size_op{
    .name = "dim_size",
    .doc = "The product of the operand's dims at the given axes, as a scalar; its elements are not read.",
    .kind = ir::Kind::movement,
    .arity = {1, 1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<DimSizeAttrs>(),
    .infer =
        [](const InferCtx& c) {
          const auto& a = c.attrs.get<DimSizeAttrs>();
          check_axes(c, a.axes, c.in[0].rank());
          if (!ir::number_types.has(a.dtype))
            c.fail("a size is a number", "a float or integer dtype", "bool");
          return std::vector<Type>{{a.dtype, {}}};
        },
    .grad = ir::rule([](const GradCtx&) { return std::vector<Value>(1); }),
    .expand = nullptr,
    .scalar = {},
    .eval = eval_dim_size,
    .sample = sample_dim_size,
};

std::span<const OpDef* const> movement_ops() {
  static constexpr const OpDef* ops[] = {&reshape_op, &transpose_op, &broadcast_to_op, &slice_op,
                                         &pad_op,     &concat_op,    &reverse_op,      &dim_size_op};
  return ops;
}

Value reshape(Value x, Dims dims) {
  return x.dims() == dims ? x : make(reshape_op, {std::move(x)}, ReshapeAttrs{std::move(dims)});
}
Value transpose(Value x, Ints perm) {
  if (static_cast<int>(perm.size()) == x.rank() && is_identity(perm)) return x;
  return make(transpose_op, {std::move(x)}, TransposeAttrs{std::move(perm)});
}
Value broadcast_in(Value x, Dims dims, Ints axes) {
  if (x.dims() == dims && axes.size() == dims.size() && is_identity(axes)) return x;
  return make(broadcast_to_op, {std::move(x)}, BroadcastAttrs{std::move(dims), std::move(axes)});
}
Value broadcast_to(Value x, const Dims& dims) {
  const Dims from = x.dims();
  if (from == dims) return x;
  if (from.size() > dims.size())
    throw UserError(
        {"op broadcast_to", "the result has fewer axes", dims_text(from) + " to " + dims_text(dims), ""});
  Ints axes;
  Dims kept;
  for (size_t i = 0; i < from.size(); ++i) {
    const size_t k = i + dims.size() - from.size();
    if (from[i] == dims[k]) {
      axes.push_back(static_cast<int64_t>(k));
      kept.push_back(from[i]);
    } else if (from[i] != Dim(1)) {
      throw UserError({"op broadcast_to", "dims do not stretch", dims_text(from) + " to " + dims_text(dims),
                       "trailing dims that are equal or 1"});
    }
  }
  return broadcast_in(reshape(std::move(x), kept), dims, axes);
}
Dims broadcast_dims(const Dims& a, const Dims& b) {
  Dims out = a.size() >= b.size() ? a : b;
  const Dims& other = a.size() >= b.size() ? b : a;
  for (size_t i = 0; i < other.size(); ++i) {
    Dim& d = out[i + out.size() - other.size()];
    if (d == Dim(1)) d = other[i];
    else if (other[i] != Dim(1) && other[i] != d)
      throw UserError({"broadcast", "dims do not fit each other", dims_text(a) + " and " + dims_text(b),
                       "trailing dims that are equal or 1"});
  }
  return out;
}
Value slice(Value x, Ints start, Dims size, Ints step) {
  if (step.empty()) step.assign(start.size(), 1);
  if (size == x.dims() && std::all_of(start.begin(), start.end(), [](int64_t s) { return s == 0; }) &&
      std::all_of(step.begin(), step.end(), [](int64_t s) { return s == 1; }))
    return x;
  return make(slice_op, {std::move(x)}, SliceAttrs{std::move(start), std::move(size), std::move(step)});
}
Value slice_axis(Value x, int64_t axis, int64_t from, Dim size) {
  if (axis < 0 || axis >= x.rank())
    throw UserError({"op slice", "axis is out of range", std::to_string(axis),
                     "0 <= axis < " + std::to_string(x.rank())});
  Dims sizes = x.dims();
  sizes[at(axis)] = size;
  Ints start(sizes.size(), 0);
  start[at(axis)] = from;
  return slice(std::move(x), std::move(start), std::move(sizes));
}
Value pad(Value x, Value fill, Ints low, Ints high, Ints interior) {
  if (interior.empty()) interior.assign(low.size(), 0);
  const auto none = [](const Ints& v) {
    return std::all_of(v.begin(), v.end(), [](int64_t n) { return n == 0; });
  };
  if (low.size() == x.dims().size() && none(low) && none(high) && none(interior)) return x;
  return make(pad_op, {std::move(x), std::move(fill)},
              PadAttrs{std::move(low), std::move(high), std::move(interior)});
}
Value concat(std::vector<Value> parts, int64_t axis) {
  if (parts.size() == 1) return parts[0];
  return make(concat_op, std::move(parts), AxisAttrs{axis});
}
Value reverse(Value x, Ints axes) {
  std::sort(axes.begin(), axes.end());
  return axes.empty() ? x : make(reverse_op, {std::move(x)}, AxesAttrs{std::move(axes)});
}
Value dim_size(Value x, Ints axes, Dtype dtype) {
  std::sort(axes.begin(), axes.end());
  const bool bound = std::all_of(axes.begin(), axes.end(), [&](int64_t k) {
    return k >= 0 && k < x.rank() && x.dims()[at(k)].is_static();
  });
  Value size = make(dim_size_op, {x}, DimSizeAttrs{axes, dtype});
  if (!bound) return size;
  const int64_t n = ir::count(pick(x.dims(), axes)).value();
  return ir::constant(Array::of<int64_t>({}, {n}).cast(dtype));
}

}  // namespace espalier::op
