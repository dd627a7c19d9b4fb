#include "op/indexed.h"

#include <algorithm>

#include "op/axes.h"
#include "op/elementwise.h"
#include "op/infer.h"
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

// ---- infer rules

/// x[:axis] + indices + x[axis+1:].
Dims gathered_dims(const Dims& x, const Dims& indices, int64_t axis) {
  Dims dims(x.begin(), x.begin() + axis);
  dims.insert(dims.end(), indices.begin(), indices.end());
  dims.insert(dims.end(), x.begin() + axis + 1, x.end());
  return dims;
}

void check_axis_is_not_empty(const InferCtx& c, int64_t axis, const Dims& indices) {
  if (c.in[0].dims[at(axis)] == Dim(0) && !same_count(indices, {Dim(0)}))
    c.fail("elements are taken from an empty axis", "a dim of at least 1");
}

void check_along(const InferCtx& c, int64_t axis) {
  check_axis(c, axis, c.in[0].rank());
  check_indices(c, 1);
  if (c.in[1].rank() != c.in[0].rank()) c.fail("indices have another rank", "the rank of operand 0");
  Dims dims = c.in[1].dims;
  dims[at(axis)] = c.in[0].dims[at(axis)];
  if (dims != c.in[0].dims)
    c.fail("indices have other dims off the axis", "equal dims but at axis " + std::to_string(axis));
}

std::vector<Type> infer_gather(const InferCtx& c) {
  const int64_t axis = c.attrs.get<AxisAttrs>().axis;
  check_axis(c, axis, c.in[0].rank());
  check_indices(c, 1);
  check_axis_is_not_empty(c, axis, c.in[1].dims);
  return {{c.in[0].dtype, gathered_dims(c.in[0].dims, c.in[1].dims, axis)}};
}

std::vector<Type> infer_gather_along(const InferCtx& c) {
  const int64_t axis = c.attrs.get<AxisAttrs>().axis;
  check_along(c, axis);
  check_axis_is_not_empty(c, axis, c.in[1].dims);
  return {{c.in[0].dtype, c.in[1].dims}};
}

std::vector<Type> infer_scatter(const InferCtx& c, const Dims& updates) {
  if (const Type want{c.in[0].dtype, updates}; c.in[2] != want)
    c.fail("updates have another type", "updates of " + want.text());
  return {c.in[0]};
}

std::vector<Type> infer_scatter_add(const InferCtx& c) {
  const int64_t axis = c.attrs.get<ScatterAttrs>().axis;
  check_axis(c, axis, c.in[0].rank());
  check_indices(c, 1);
  return infer_scatter(c, gathered_dims(c.in[0].dims, c.in[1].dims, axis));
}

std::vector<Type> infer_scatter_add_along(const InferCtx& c) {
  check_along(c, c.attrs.get<ScatterAttrs>().axis);
  return infer_scatter(c, c.in[1].dims);
}

std::vector<Type> infer_one_hot(const InferCtx& c) {
  const auto& a = c.attrs.get<OneHotAttrs>();
  if (a.depth < 0) c.fail("negative depth", ">= 0", std::to_string(a.depth));
  Dims dims = c.in[0].dims;
  dims.emplace_back(a.depth);
  return {{a.dtype, dims}};
}

std::vector<Type> infer_iota(const InferCtx& c) {
  const auto& a = c.attrs.get<IotaAttrs>();
  if (!c.op.dtypes.has(a.type.dtype))
    c.fail("dtype is not supported", "a float or integer dtype", a.type.text());
  check_dims(c, a.type.dims);
  check_axis(c, a.axis, a.type.rank());
  return {a.type};
}

// ---- reference

/// Visits (element of the indexed operand, element of the gathered one) pairs; `row` maps an index to a row or -1 (skip).
template <class Row, class F>
void walk_gathered(const Array& x, const Array& indices, int64_t axis, Row&& row, F&& f) {
  const int64_t outer = ir::count(std::span(x.dims()).first(at(axis))), n = x.dims()[at(axis)];
  const int64_t inner = ir::count(std::span(x.dims()).subspan(at(axis) + 1)), picks = indices.size();
  const Array wide = indices.cast(Dtype::i64);
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t p = 0; p < picks; ++p) {
      const int64_t r = row(wide.data<int64_t>()[p], n);
      if (r < 0) continue;
      for (int64_t i = 0; i < inner; ++i) f((o * n + r) * inner + i, (o * picks + p) * inner + i);
    }
}

template <class Row, class F>
void walk_along(const Array& x, const Array& indices, int64_t axis, Row&& row, F&& f) {
  Ints strides = ir::row_major_strides(x.dims());
  const int64_t step = strides[at(axis)];
  strides[at(axis)] = 0;
  const Array wide = indices.cast(Dtype::i64);
  walk(indices.dims(), strides, ir::row_major_strides(indices.dims()), [&](int64_t base, int64_t i) {
    if (const int64_t r = row(wide.data<int64_t>()[i], x.dims()[at(axis)]); r >= 0) f(base + r * step, i);
  });
}

int64_t clamped(int64_t i, int64_t n) { return std::clamp<int64_t>(i, 0, n - 1); }
int64_t skipped(int64_t i, int64_t n) { return i < n ? i : -1; }

template <class Walk>
std::vector<Array> take(const EvalCtx& c, Walk&& each) {
  Array out(c.in[0].dtype(), ir::static_dims(c.node.types()[0].dims));
  ir::dispatch(out.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = c.in[0].data<T>();
    T* o = out.write<T>();
    each(c.in[0], c.in[1], c.attrs<AxisAttrs>().axis, clamped,
         [&](int64_t from, int64_t to) { o[to] = x[from]; });
  });
  return {out};
}

/// Sums in double (integers: wrapping int64) and rounds once.
template <class Walk>
std::vector<Array> put(const EvalCtx& c, Walk&& each) {
  const Dtype dtype = c.in[0].dtype(), wide = is_float(dtype) ? Dtype::f64 : Dtype::i64;
  const Array base = c.in[0].cast(wide), updates = c.in[2].cast(wide);
  Array sum(wide, base.dims());
  copy_view(sum, whole(base.dims()), base, whole(base.dims()), base.dims());
  const auto add_up = [&](auto* s, const auto* u) {
    each(sum, c.in[1], c.attrs<ScatterAttrs>().axis, skipped,
         [&](int64_t to, int64_t from) { s[to] += u[from]; });
  };
  if (wide == Dtype::f64) add_up(sum.write<double>(), updates.data<double>());
  else add_up(sum.write<int64_t>(), updates.data<int64_t>());
  return {sum.cast(dtype)};
}

constexpr auto gathered = [](auto&&... a) { walk_gathered(a...); };
constexpr auto along = [](auto&&... a) { walk_along(a...); };

std::vector<Array> eval_one_hot(const EvalCtx& c) {
  const auto& a = c.attrs<OneHotAttrs>();
  Array out(a.dtype, ir::static_dims(c.node.types()[0].dims));
  const Array wide = c.in[0].cast(Dtype::i64);
  for (int64_t i = 0; i < wide.size(); ++i)
    if (const int64_t k = wide.data<int64_t>()[i]; k >= 0 && k < a.depth) out.set(i * a.depth + k, 1);
  return {out};
}

std::vector<Array> eval_iota(const EvalCtx& c) {
  const auto& a = c.attrs<IotaAttrs>();
  const Ints dims = ir::static_dims(a.type.dims);
  Array out(Dtype::i64, dims);
  Ints one(dims.size(), 0);
  one[at(a.axis)] = 1;
  walk(dims, one, ir::row_major_strides(dims), [&](int64_t k, int64_t i) { out.write<int64_t>()[i] = k; });
  return {out.cast(a.type.dtype)};
}

// ---- gradients

/// The indices of a gather as it read them: clamped to the axis.
Value clamped_indices(const Value& indices, const Value& x, int64_t axis) {
  const Value last = sub(dim_size(x, {axis}, indices.dtype()), 1);
  return clamp(indices, zeros_like(indices), broadcast_in(last, indices.dims(), {}));
}

/// Rows of `d` where scatter_add put updates, zeros for updates it ignored. `mask_axes`: where indices lie in updates.
template <class Gather>
Value taken_updates(const GradCtx& c, const Ints& mask_axes, Gather&& pick) {
  const int64_t axis = c.node.attrs<ScatterAttrs>().axis;
  const Value &d = c.dout[0], &indices = c.in(1), &updates = c.in(2);
  if (d.dims()[at(axis)] == Dim(0)) return zeros_like(updates);
  const Value n = broadcast_in(dim_size(d, {axis}, indices.dtype()), indices.dims(), {});
  const Value inside = logical_and(ge(indices, zeros_like(indices)), lt(indices, n));
  return select(broadcast_in(inside, updates.dims(), mask_axes), pick(d, indices, axis), zeros_like(updates));
}

std::vector<Value> grad_scatter_add(const GradCtx& c) {
  Ints where(at(c.in(1).rank()));
  for (size_t i = 0; i < where.size(); ++i)
    where[i] = c.node.attrs<ScatterAttrs>().axis + static_cast<int64_t>(i);
  return {c.dout[0], Value(), c.needed[2] ? taken_updates(c, where, gather) : Value()};
}

std::vector<Value> grad_scatter_add_along(const GradCtx& c) {
  return {c.dout[0], Value(),
          c.needed[2] ? taken_updates(c, axes_without(c.in(1).rank(), {}), gather_along) : Value()};
}

// ---- samples

/// Mostly in range, sometimes beyond both ends.
Array draw_indices(SampleRng& rng, Ints dims, int64_t n) {
  const double beyond = draw_chance(rng, 0.2) ? 2 : 0;
  return draw_array(rng, draw_index_dtype(rng), std::move(dims), -beyond,
                    static_cast<double>(std::max<int64_t>(n, 1) - 1) + beyond);
}

/// x, indices and the axis of a gather.
Sample sample_gather(SampleRng& rng, Dtype dtype) {
  Ints dims = draw_dims(rng, draw(rng, 1, 3), 5);
  const int64_t axis = draw(rng, 0, static_cast<int64_t>(dims.size()) - 1);
  dims[at(axis)] = std::max<int64_t>(dims[at(axis)], 1);
  const Array indices = draw_indices(rng, draw_dims(rng, draw(rng, 0, 2), 5), dims[at(axis)]);
  return {{draw_array(rng, dtype, dims), indices}, AxisAttrs{axis}, {}};
}

Sample sample_gather_along(SampleRng& rng, Dtype dtype) {
  Sample s = sample_gather(rng, dtype);
  const int64_t axis = s.attrs.get<AxisAttrs>().axis;
  Ints dims = s.inputs[0].dims();
  dims[at(axis)] = draw_dim(rng, 5);
  s.inputs[1] = draw_indices(rng, dims, s.inputs[0].dims()[at(axis)]);
  return s;
}

/// The updates that go with base and indices of a gather's sample.
Sample with_updates(SampleRng& rng, Sample s, bool is_along) {
  const int64_t axis = s.attrs.get<AxisAttrs>().axis;
  const Dims dims = is_along ? s.inputs[1].type().dims
                             : gathered_dims(s.inputs[0].type().dims, s.inputs[1].type().dims, axis);
  s.inputs.push_back(draw_array(rng, s.inputs[0].dtype(), ir::static_dims(dims)));
  s.attrs = ScatterAttrs{axis};
  return s;
}

Sample sample_one_hot(SampleRng& rng, Dtype dtype) {
  const int64_t depth = draw_dim(rng, 5);
  Array indices = draw_indices(rng, draw_dims(rng, draw(rng, 0, 3), 4), depth).cast(dtype);
  return {{indices}, OneHotAttrs{depth, static_cast<Dtype>(draw(rng, 0, ir::dtype_count - 1))}, {}};
}

Sample sample_iota(SampleRng& rng, Dtype dtype) {
  const Ints dims = draw_dims(rng, draw(rng, 1, 3), 5);
  return {{}, IotaAttrs{{dtype, ir::to_dims(dims)}, draw(rng, 0, static_cast<int64_t>(dims.size()) - 1)}, {}};
}

constexpr OpDef indexed(std::string_view name, std::string_view doc, ir::Arity arity, ir::DtypeSet dtypes,
                        const ir::AttrType* attrs, ir::InferFn infer, ir::Grad grad, ir::EvalFn eval,
                        ir::SampleFn sample) {
  return {.name = name,
          .doc = doc,
          .kind = ir::Kind::indexed,
          .arity = arity,
          .dtypes = dtypes,
          .attrs = attrs,
          .infer = infer,
          .grad = grad,
          .expand = nullptr,
          .scalar = {},
          .eval = eval,
          .sample = sample};
}

constexpr ir::DtypeSet index_types = ir::dtype_set(Dtype::i32) | ir::dtype_set(Dtype::i64);

}  // namespace

constinit const OpDef gather_op = indexed(
    "gather", "Rows of x along an axis: x[:axis] + indices + x[axis+1:]. An index out of range is clamped.",
    {2, 2}, ir::all_types, ir::attr_type<AxisAttrs>(), infer_gather,
    ir::rule([](const GradCtx& c) -> std::vector<Value> {
      const int64_t axis = c.node.attrs<AxisAttrs>().axis;
      return {scatter_add(zeros_like(c.in(0)), clamped_indices(c.in(1), c.in(0), axis), c.dout[0], axis),
              Value()};
    }),
    [](const EvalCtx& c) { return take(c, gathered); }, sample_gather);
constinit const OpDef gather_along_op = indexed(
    "gather_along",
    "One element of x per index: x at [i, ..., indices[i, ...], ...]. An index out of range is clamped.",
    {2, 2}, ir::all_types, ir::attr_type<AxisAttrs>(), infer_gather_along,
    ir::rule([](const GradCtx& c) -> std::vector<Value> {
      const int64_t axis = c.node.attrs<AxisAttrs>().axis;
      return {
          scatter_add_along(zeros_like(c.in(0)), clamped_indices(c.in(1), c.in(0), axis), c.dout[0], axis),
          Value()};
    }),
    [](const EvalCtx& c) { return take(c, along); }, sample_gather_along);
constinit const OpDef scatter_add_op = indexed(
    "scatter_add",
    "base plus updates added to its rows at the indices, in row-major order; an index out of range is "
    "ignored.",
    {3, 3}, ir::number_types, ir::attr_type<ScatterAttrs>(), infer_scatter_add, ir::rule(grad_scatter_add),
    [](const EvalCtx& c) { return put(c, gathered); },
    [](SampleRng& rng, Dtype dtype) { return with_updates(rng, sample_gather(rng, dtype), false); });
constinit const OpDef scatter_add_along_op = indexed(
    "scatter_add_along",
    "base plus one update per index at [i, ..., indices[i, ...], ...]; an index out of range is ignored.",
    {3, 3}, ir::number_types, ir::attr_type<ScatterAttrs>(), infer_scatter_add_along,
    ir::rule(grad_scatter_add_along), [](const EvalCtx& c) { return put(c, along); },
    [](SampleRng& rng, Dtype dtype) { return with_updates(rng, sample_gather_along(rng, dtype), true); });
constinit const OpDef one_hot_op =
    indexed("one_hot",
            "1 where a new last axis of `depth` equals the index, else 0; all 0 for an index out of range.",
            {1, 1}, index_types, ir::attr_type<OneHotAttrs>(), infer_one_hot, ir::not_differentiable,
            eval_one_hot, sample_one_hot);
constinit const OpDef iota_op =
    indexed("iota", "0, 1, 2, ... along an axis, repeated along the others.", {0, 0}, ir::number_types,
            ir::attr_type<IotaAttrs>(), infer_iota, ir::not_differentiable, eval_iota, sample_iota);

std::span<const OpDef* const> indexed_ops() {
  static constexpr const OpDef* ops[] = {
      &gather_op, &gather_along_op, &scatter_add_op, &scatter_add_along_op, &one_hot_op, &iota_op};
  return ops;
}

Value gather(Value x, Value indices, int64_t axis) {
  return make(gather_op, {std::move(x), std::move(indices)}, AxisAttrs{axis});
}
Value gather_along(Value x, Value indices, int64_t axis) {
  return make(gather_along_op, {std::move(x), std::move(indices)}, AxisAttrs{axis});
}
Value scatter_add(Value base, Value indices, Value updates, int64_t axis) {
  return make(scatter_add_op, {std::move(base), std::move(indices), std::move(updates)}, ScatterAttrs{axis});
}
Value scatter_add_along(Value base, Value indices, Value updates, int64_t axis) {
  return make(scatter_add_along_op, {std::move(base), std::move(indices), std::move(updates)},
              ScatterAttrs{axis});
}
Value one_hot(Value indices, int64_t depth, Dtype dtype) {
  return make(one_hot_op, {std::move(indices)}, OneHotAttrs{depth, dtype});
}
Value iota(Type type, int64_t axis) { return make(iota_op, {}, IotaAttrs{std::move(type), axis}); }

}  // namespace espalier::op
