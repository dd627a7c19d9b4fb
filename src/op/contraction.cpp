#include "op/contraction.h"

#include <algorithm>
#include <numeric>

#include "op/axes.h"
#include "op/movement.h"
#include "op/sampling.h"
#include "op/spatial.h"
#include "op/strided.h"
#include "op/table.h"
#include "op/widen.h"

namespace espalier::op {

using ir::Array;
using ir::Dim;
using ir::Dims;
using ir::Dtype;
using ir::EvalCtx;
using ir::GradCtx;
using ir::InferCtx;
using ir::Kind;
using ir::OpDef;
using ir::Sample;
using ir::SampleRng;
using ir::Type;

namespace {

/// The wider dtype that products of `in` operands are summed in.
Dtype sum_dtype(Dtype in) { return in == Dtype::i8 || in == Dtype::u8 ? Dtype::i32 : wide_dtype(in); }

/// The dtypes a product of `in` operands may give: their own, or the wider one it accumulates in.
void check_out_dtype(const InferCtx& c, Dtype in, Dtype out) {
  const Dtype wide = sum_dtype(in);
  if (out == in || out == wide) return;
  c.fail("result dtype does not fit the operands",
         std::string(dtype_name(in)) + (wide == in ? "" : " " + std::string(dtype_name(wide))),
         std::string(dtype_name(out)));
}

void check_same_dtype(const InferCtx& c) {
  if (c.in[0].dtype != c.in[1].dtype) c.fail("operands have different dtypes", "equal dtypes");
}

// ---- dot

void check_dot_axes(const InferCtx& c, const char* which, int rank, const std::vector<int64_t>& batch,
                    const std::vector<int64_t>& contract) {
  const std::vector<int64_t> all = joined(batch, contract);
  for (const int64_t axis : all) {
    if (axis < 0 || axis >= rank)
      c.fail(std::string("an axis of operand ") + which + " is out of range",
             "0 to " + std::to_string(rank - 1), std::to_string(axis));
    if (std::ranges::count(all, axis) > 1)
      c.fail(std::string("an axis of operand ") + which + " is named twice", "distinct axes",
             std::to_string(axis));
  }
}

void check_dot_pairs(const InferCtx& c, const char* role, const std::vector<int64_t>& a,
                     const std::vector<int64_t>& b) {
  if (a.size() != b.size())
    c.fail(std::string("numbers of ") + role + " axes differ", "as many for each operand",
           std::to_string(a.size()) + " and " + std::to_string(b.size()));
  for (size_t i = 0; i < a.size(); ++i) {
    const Dim x = c.in[0].dims[static_cast<size_t>(a[i])], y = c.in[1].dims[static_cast<size_t>(b[i])];
    if (x != y)
      c.fail(std::string(role) + " dims differ: axis " + std::to_string(a[i]) + " of a is " + x.text() +
                 ", axis " + std::to_string(b[i]) + " of b is " + y.text(),
             "equal dims");
  }
}

std::vector<Type> infer_dot(const InferCtx& c) {
  const auto& at = c.attrs.get<DotAttrs>();
  check_same_dtype(c);
  check_out_dtype(c, c.in[0].dtype, at.out);
  check_dot_axes(c, "a", c.in[0].rank(), at.batch_a, at.contract_a);
  check_dot_axes(c, "b", c.in[1].rank(), at.batch_b, at.contract_b);
  check_dot_pairs(c, "batch", at.batch_a, at.batch_b);
  check_dot_pairs(c, "contracted", at.contract_a, at.contract_b);
  const std::vector<int64_t> free_a = free_axes(c.in[0].rank(), at.batch_a, at.contract_a);
  Dims dims = pick(c.in[0].dims, joined(at.batch_a, free_a));
  for (const Dim d : pick(c.in[1].dims, free_axes(c.in[1].rank(), at.batch_b, at.contract_b)))
    dims.push_back(d);
  return {{at.out, std::move(dims)}};
}

/// How one operand of a dot enters its gradient.
struct DotSide {
  std::vector<int64_t> batch, contract, free;
};

/// Gradient of a dot with respect to the side `self`: the result's gradient, whose axes from `other_free_from` on are the
/// other side's free ones, times the other operand. Either can stand first; the order that needs no transpose is taken.
Value dot_side_grad(const Value& dout, const Value& other, const DotSide& self, const DotSide& side,
                    int64_t other_free_from, Dtype dtype) {
  DotAttrs at{.batch_a = std::vector<int64_t>(self.batch.size()),
              .batch_b = side.batch,
              .contract_a = {},
              .contract_b = side.free,
              .out = dtype};
  std::iota(at.batch_a.begin(), at.batch_a.end(), 0);
  for (size_t i = 0; i < side.free.size(); ++i)
    at.contract_a.push_back(other_free_from + static_cast<int64_t>(i));
  // self's axes in the product's order: batch, free, and contracted as the other side's contracted axes rise (or, with
  // the other operand first, contracted before free).
  std::vector<int64_t> rising(side.contract.size());
  std::iota(rising.begin(), rising.end(), 0);
  std::ranges::sort(rising, {}, [&](int64_t i) { return side.contract[op::at(i)]; });
  const std::vector<int64_t> contracted = pick(self.contract, rising);
  const Value g = cast(dout, dtype);
  if (is_identity(joined(joined(self.batch, contracted), self.free)))
    return dot(other, g, {at.batch_b, at.batch_a, at.contract_b, at.contract_a, dtype});
  return transpose(dot(g, other, at), inverse(joined(joined(self.batch, self.free), contracted)));
}

std::vector<Value> dot_grad(const GradCtx& c) {
  const auto& at = c.node.attrs<DotAttrs>();
  const Value &a = c.in(0), &b = c.in(1), &dout = c.dout[0];
  const DotSide sa{at.batch_a, at.contract_a, free_axes(a.rank(), at.batch_a, at.contract_a)};
  const DotSide sb{at.batch_b, at.contract_b, free_axes(b.rank(), at.batch_b, at.contract_b)};
  const auto batch = static_cast<int64_t>(at.batch_a.size()), free_a = static_cast<int64_t>(sa.free.size());
  std::vector<Value> grads(2);
  if (c.needed[0]) grads[0] = dot_side_grad(dout, b, sa, sb, batch + free_a, a.dtype());
  if (c.needed[1]) grads[1] = dot_side_grad(dout, a, sb, sa, batch, b.dtype());
  return grads;
}

/// `a` as `dtype`, its axes in `order`.
Array reordered(const Array& a, Dtype dtype, const std::vector<int64_t>& order) {
  return read_view(a.cast(dtype), {0, pick(ir::row_major_strides(a.dims()), order)}, pick(a.dims(), order));
}

/// a*b + c, wrapping for integers.
double multiply_add(double a, double b, double c) { return a * b + c; }
int64_t multiply_add(int64_t a, int64_t b, int64_t c) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b) + static_cast<uint64_t>(c));
}

template <class T>
Array eval_dot_as(const EvalCtx& c) {
  const auto& at = c.attrs<DotAttrs>();
  const Array &a = c.in[0], &b = c.in[1];
  const std::vector<int64_t> free_a = free_axes(a.rank(), at.batch_a, at.contract_a);
  const std::vector<int64_t> free_b = free_axes(b.rank(), at.batch_b, at.contract_b);
  constexpr Dtype wide = ir::dtype_of<T>();
  const Array x = reordered(a, wide, joined(joined(at.batch_a, free_a), at.contract_a));
  const Array y = reordered(b, wide, joined(joined(at.batch_b, free_b), at.contract_b));
  const int64_t batch = count_at(a.dims(), at.batch_a), K = count_at(a.dims(), at.contract_a);
  const int64_t M = count_at(a.dims(), free_a), N = count_at(b.dims(), free_b);
  Array out(wide, ir::static_dims(c.node.types()[0].dims));
  T* o = out.write<T>();
  for (int64_t i = 0; i < batch; ++i)
    for (int64_t m = 0; m < M; ++m)
      for (int64_t n = 0; n < N; ++n) {
        const T* p = x.data<T>() + (i * M + m) * K;
        const T* q = y.data<T>() + (i * N + n) * K;
        T sum = 0;
        for (int64_t k = 0; k < K; ++k) sum = multiply_add(p[k], q[k], sum);
        *o++ = sum;
      }
  return out.cast(at.out);
}

std::vector<Array> eval_dot(const EvalCtx& c) {
  return {ir::is_float(c.in[0].dtype()) ? eval_dot_as<double>(c) : eval_dot_as<int64_t>(c)};
}

/// A result dtype a sample with `in` operands asks for: mostly their own, sometimes the wider one.
Dtype draw_out_dtype(SampleRng& rng, Dtype in) { return draw_chance(rng, 0.5) ? in : sum_dtype(in); }

Sample sample_dot(SampleRng& rng, Dtype dtype) {
  DotAttrs at{
      .batch_a = {}, .batch_b = {}, .contract_a = {}, .contract_b = {}, .out = draw_out_dtype(rng, dtype)};
  // Roles: b(atch), k (contracted), f(ree); axes stand in any order on either side.
  const int64_t batch = draw(rng, 0, 2), contract = draw_chance(rng, 0.1) ? 0 : draw(rng, 1, 2);
  const std::vector<int64_t> shared = draw_dims(rng, batch + contract, 5);
  const auto side = [&](std::vector<int64_t>& batch_axes, std::vector<int64_t>& contract_axes) {
    std::vector<int64_t> dims = shared;
    for (int64_t i = draw(rng, 0, 2); i > 0; --i) dims.push_back(draw_dim(rng, 5));
    const std::vector<int64_t> order = draw_permutation(rng, static_cast<int64_t>(dims.size()));
    std::vector<int64_t> placed(dims.size());
    for (size_t i = 0; i < dims.size(); ++i) placed[static_cast<size_t>(order[i])] = dims[i];
    batch_axes.assign(order.begin(), order.begin() + batch);
    contract_axes.assign(order.begin() + batch, order.begin() + batch + contract);
    return placed;
  };
  const std::vector<int64_t> a = side(at.batch_a, at.contract_a), b = side(at.batch_b, at.contract_b);
  return {{draw_array(rng, dtype, a), draw_array(rng, dtype, b)}, at, {}};
}

// ---- convolutions

/// Sizes of one convolution, whichever of its three operands is the result.
struct ConvShape {
  Dim batch;
  int64_t channels = 0, filters = 0, groups = 1;
  Sliding window;  ///< in, kernel, out and how one slides over the other
};

void check_conv_operands(const InferCtx& c, const ConvAttrs& at, bool with_spatial) {
  check_same_dtype(c);
  check_out_dtype(c, c.in[0].dtype, at.out);
  const int rank = c.in[0].rank();
  if (rank != c.in[1].rank() || rank < 3 || rank > 5)
    c.fail("operands do not have 1 to 3 spatial axes", "equal ranks 3 to 5");
  const auto axes = static_cast<size_t>(rank - 2);
  check_per_axis(c, "stride", at.stride, axes, 1);
  check_per_axis(c, "pad_low", at.pad_low, axes, 0);
  check_per_axis(c, "pad_high", at.pad_high, axes, 0);
  check_per_axis(c, "dilation", at.dilation, axes, 1);
  check_per_axis(c, "spatial", at.spatial, with_spatial ? axes : 0, 0);
  if (at.groups < 1) c.fail("groups is too small", ">= 1", std::to_string(at.groups));
}

int64_t static_dim(const InferCtx& c, Dim d, const char* what) {
  if (!d.is_static()) c.fail(std::string(what) + " is symbolic", "a number", d.text());
  return d.value();
}

/// The sizes from the three spatial extents, where `out` is empty (to be found) or must follow.
ConvShape checked_shape(const InferCtx& c, const ConvAttrs& at, Dim batch, int64_t channels, int64_t filters,
                        std::vector<int64_t> in, std::vector<int64_t> kernel,
                        const std::vector<int64_t>* out) {
  if (channels % at.groups || filters % at.groups)
    c.fail("groups does not divide the channels",
           "a divisor of " + std::to_string(channels) + " and " + std::to_string(filters),
           std::to_string(at.groups));
  ConvShape s{batch,
              channels,
              filters,
              at.groups,
              {std::move(in), std::move(kernel), {}, at.stride, at.pad_low, at.dilation}};
  s.window.out = sliding_out(c, s.window, at.pad_high);
  if (out && *out != s.window.out)
    c.fail("dy's spatial dims do not follow from the attributes",
           ir::dims_text(std::span<const int64_t>(s.window.out)),
           ir::dims_text(std::span<const int64_t>(*out)));
  return s;
}

/// Sizes from x [N, in, C] and w [O, kernel, C/groups].
ConvShape conv_shape(const InferCtx& c, const ConvAttrs& at) {
  check_conv_operands(c, at, false);
  const Type &x = c.in[0], &w = c.in[1];
  ConvShape s = checked_shape(c, at, x.dims[0], static_dim(c, x.dims.back(), "the number of channels"),
                              static_dim(c, w.dims[0], "the number of filters"), spatial_dims(c, x),
                              spatial_dims(c, w), nullptr);
  if (w.dims.back() != Dim(s.channels / s.groups))
    c.fail("the weights' last dim is not channels / groups", std::to_string(s.channels / s.groups),
           w.dims.back().text());
  return s;
}

/// Sizes from dy [N, out, O] and w [O, kernel, C/groups]; attrs.spatial is in.
ConvShape data_grad_shape(const InferCtx& c, const ConvAttrs& at) {
  check_conv_operands(c, at, true);
  const Type &dy = c.in[0], &w = c.in[1];
  const std::vector<int64_t> out = spatial_dims(c, dy);
  ConvShape s =
      checked_shape(c, at, dy.dims[0], static_dim(c, w.dims.back(), "the number of channels") * at.groups,
                    static_dim(c, w.dims[0], "the number of filters"), at.spatial, spatial_dims(c, w), &out);
  if (dy.dims.back() != Dim(s.filters))
    c.fail("dy's last dim is not the number of filters", std::to_string(s.filters), dy.dims.back().text());
  return s;
}

/// Sizes from x [N, in, C] and dy [N, out, O]; attrs.spatial is the kernel.
ConvShape weight_grad_shape(const InferCtx& c, const ConvAttrs& at) {
  check_conv_operands(c, at, true);
  const Type &x = c.in[0], &dy = c.in[1];
  if (x.dims[0] != dy.dims[0]) c.fail("x and dy have different batches", "equal first dims");
  const std::vector<int64_t> out = spatial_dims(c, dy);
  return checked_shape(c, at, x.dims[0], static_dim(c, x.dims.back(), "the number of channels"),
                       static_dim(c, dy.dims.back(), "the number of filters"), spatial_dims(c, x), at.spatial,
                       &out);
}

enum class ConvResult { y, x, w };

/// Sum x*w into y (or its two transposes) with T as accumulator.
template <class T>
void accumulate_conv(const ConvShape& s, ConvResult result, T* x, T* w, T* y) {
  const int64_t in = ir::count(std::span<const int64_t>(s.window.in)), cg = s.channels / s.groups;
  const int64_t taps = ir::count(std::span<const int64_t>(s.window.window)), og = s.filters / s.groups;
  const int64_t outs = ir::count(std::span<const int64_t>(s.window.out));
  for (int64_t n = 0; n < s.batch.value(); ++n)
    each_tap(s.window, [&](int64_t i, int64_t k, int64_t o) {
      for (int64_t f = 0; f < s.filters; ++f) {
        T* px = x + (n * in + i) * s.channels + f / og * cg;
        T* pw = w + (f * taps + k) * cg;
        T& py = y[(n * outs + o) * s.filters + f];
        if (result == ConvResult::y)
          for (int64_t ch = 0; ch < cg; ++ch) py = multiply_add(px[ch], pw[ch], py);
        else if (result == ConvResult::x)
          for (int64_t ch = 0; ch < cg; ++ch) px[ch] = multiply_add(py, pw[ch], px[ch]);
        else
          for (int64_t ch = 0; ch < cg; ++ch) pw[ch] = multiply_add(py, px[ch], pw[ch]);
      }
    });
}

template <class T>
Array eval_conv_as(const EvalCtx& c, const ConvShape& s, ConvResult result) {
  const auto wide = [](const Array& a) {
    const Array cast = a.cast(ir::dtype_of<T>());
    return std::vector<T>(cast.data<T>(), cast.data<T>() + cast.size());
  };
  std::vector<T> a = wide(c.in[0]), b = wide(c.in[1]);
  Array out(ir::dtype_of<T>(), ir::static_dims(c.node.types()[0].dims));
  T* o = out.write<T>();
  switch (result) {
    case ConvResult::y: accumulate_conv(s, result, a.data(), b.data(), o); break;
    case ConvResult::x: accumulate_conv(s, result, o, b.data(), a.data()); break;
    case ConvResult::w: accumulate_conv(s, result, a.data(), o, b.data()); break;
  }
  return out.cast(c.attrs<ConvAttrs>().out);
}

using ShapeFn = ConvShape (*)(const InferCtx&, const ConvAttrs&);

std::vector<Array> eval_conv(const EvalCtx& c, ShapeFn shape, ConvResult result) {
  const std::vector<Type> in{c.in[0].type(), c.in[1].type()};
  const ConvShape s = shape({c.node.op(), in, c.node.attrs()}, c.attrs<ConvAttrs>());
  return {ir::is_float(c.in[0].dtype()) ? eval_conv_as<double>(c, s, result)
                                        : eval_conv_as<int64_t>(c, s, result)};
}

ConvAttrs with(ConvAttrs at, std::vector<int64_t> spatial, Dtype out) {
  at.spatial = std::move(spatial);
  at.out = out;
  return at;
}

// Each of the three is linear in both operands, and the two gradients are the two others.

std::vector<Value> conv_grad(const GradCtx& c) {
  const auto& at = c.node.attrs<ConvAttrs>();
  const Value &x = c.in(0), &w = c.in(1), dy = cast(c.dout[0], x.dtype());
  std::vector<Value> grads(2);
  if (c.needed[0]) grads[0] = conv_data_grad(dy, w, with(at, spatial_dims(x), x.dtype()));
  if (c.needed[1]) grads[1] = conv_weight_grad(x, dy, with(at, spatial_dims(w), w.dtype()));
  return grads;
}

std::vector<Value> conv_data_grad_grad(const GradCtx& c) {
  const auto& at = c.node.attrs<ConvAttrs>();
  const Value &dy = c.in(0), &w = c.in(1), g = cast(c.dout[0], w.dtype());
  std::vector<Value> grads(2);
  if (c.needed[0]) grads[0] = conv(g, w, with(at, {}, dy.dtype()));
  if (c.needed[1]) grads[1] = conv_weight_grad(g, dy, with(at, spatial_dims(w), w.dtype()));
  return grads;
}

std::vector<Value> conv_weight_grad_grad(const GradCtx& c) {
  const auto& at = c.node.attrs<ConvAttrs>();
  const Value &x = c.in(0), &dy = c.in(1), g = cast(c.dout[0], x.dtype());
  std::vector<Value> grads(2);
  if (c.needed[0]) grads[0] = conv_data_grad(dy, g, with(at, spatial_dims(x), x.dtype()));
  if (c.needed[1]) grads[1] = conv(x, g, with(at, {}, dy.dtype()));
  return grads;
}

/// A random convolution: 1 to 3 spatial axes, every attribute varied, the work kept small.
struct DrawnConv {
  ConvAttrs at;
  std::vector<int64_t> x, w, y;
};

DrawnConv draw_conv(SampleRng& rng, Dtype dtype) {
  const int64_t axes = draw(rng, 1, 3);
  DrawnConv d{plain_conv(static_cast<int>(axes), draw_out_dtype(rng, dtype)), {}, {}, {}};
  d.at.groups = draw_chance(rng, 0.3) ? draw(rng, 2, 3) : 1;
  const int64_t cg = draw_dim(rng, 3), filters = d.at.groups * draw_dim(rng, axes == 3 ? 2 : 3),
                batch = draw_dim(rng, 2);
  d.x = {batch}, d.w = {filters}, d.y = {batch};
  for (size_t i = 0; i < static_cast<size_t>(axes); ++i) {
    d.at.stride[i] = draw(rng, 1, 3);
    d.at.dilation[i] = draw_chance(rng, 0.3) ? 2 : 1;
    const int64_t kernel = draw(rng, 1, axes == 3 ? 2 : 3), reach = d.at.dilation[i] * (kernel - 1) + 1;
    d.at.pad_low[i] = draw(rng, 0, 2), d.at.pad_high[i] = draw(rng, 0, 2);
    const int64_t least = std::max<int64_t>(reach - d.at.pad_low[i] - d.at.pad_high[i], 0);
    const int64_t in = draw(rng, least, least + (axes == 3 ? 2 : 4));
    d.x.push_back(in), d.w.push_back(kernel);
    d.y.push_back((in + d.at.pad_low[i] + d.at.pad_high[i] - reach) / d.at.stride[i] + 1);
  }
  d.x.push_back(cg * d.at.groups), d.w.push_back(cg), d.y.push_back(filters);
  return d;
}

Sample sample_conv(SampleRng& rng, Dtype dtype) {
  const DrawnConv d = draw_conv(rng, dtype);
  return {{draw_array(rng, dtype, d.x), draw_array(rng, dtype, d.w)}, d.at, {}};
}

Sample sample_conv_data_grad(SampleRng& rng, Dtype dtype) {
  const DrawnConv d = draw_conv(rng, dtype);
  return {{draw_array(rng, dtype, d.y), draw_array(rng, dtype, d.w)},
          with(d.at, spatial_dims(d.x), d.at.out),
          {}};
}

Sample sample_conv_weight_grad(SampleRng& rng, Dtype dtype) {
  const DrawnConv d = draw_conv(rng, dtype);
  return {{draw_array(rng, dtype, d.x), draw_array(rng, dtype, d.y)},
          with(d.at, spatial_dims(d.w), d.at.out),
          {}};
}

}  // namespace

constinit const OpDef dot_op{
    .name = "dot",
    .doc =
        "Sum of products over contracted axes, walked along batch axes; result axes: batch, a's free, b's "
        "free.",
    .kind = Kind::contraction,
    .arity = {2, 2},
    .dtypes = ir::number_types,
    .attrs = ir::attr_type<DotAttrs>(),
    .infer = infer_dot,
    .grad = ir::rule(dot_grad),
    .expand = nullptr,
    .scalar = {},
    .eval = eval_dot,
    .sample = sample_dot,
};

constinit const OpDef conv_op{
    .name = "conv",
    .doc = "Convolution (correlation) of x [N, spatial, C] with w [O, kernel, C/groups].",
    .kind = Kind::contraction,
    .arity = {2, 2},
    .dtypes = ir::number_types,
    .attrs = ir::attr_type<ConvAttrs>(),
    .infer =
        [](const InferCtx& c) {
          const auto& at = c.attrs.get<ConvAttrs>();
          const ConvShape s = conv_shape(c, at);
          return std::vector{spatial_type(at.out, s.batch, s.window.out, s.filters)};
        },
    .grad = ir::rule(conv_grad),
    .expand = nullptr,
    .scalar = {},
    .eval = [](const EvalCtx& c) { return eval_conv(c, conv_shape, ConvResult::y); },
    .sample = sample_conv,
};

constinit const OpDef conv_data_grad_op{
    .name = "conv_data_grad",
    .doc = "Gradient of conv with respect to x, from dy and w; also the transposed convolution.",
    .kind = Kind::contraction,
    .arity = {2, 2},
    .dtypes = ir::number_types,
    .attrs = ir::attr_type<ConvAttrs>(),
    .infer =
        [](const InferCtx& c) {
          const auto& at = c.attrs.get<ConvAttrs>();
          const ConvShape s = data_grad_shape(c, at);
          return std::vector{spatial_type(at.out, s.batch, s.window.in, s.channels)};
        },
    .grad = ir::rule(conv_data_grad_grad),
    .expand = nullptr,
    .scalar = {},
    .eval = [](const EvalCtx& c) { return eval_conv(c, data_grad_shape, ConvResult::x); },
    .sample = sample_conv_data_grad,
};

constinit const OpDef conv_weight_grad_op{
    .name = "conv_weight_grad",
    .doc = "Gradient of conv with respect to w, from x and dy.",
    .kind = Kind::contraction,
    .arity = {2, 2},
    .dtypes = ir::number_types,
    .attrs = ir::attr_type<ConvAttrs>(),
    .infer =
        [](const InferCtx& c) {
          const auto& at = c.attrs.get<ConvAttrs>();
          const ConvShape s = weight_grad_shape(c, at);
          return std::vector{spatial_type(at.out, s.filters, s.window.window, s.channels / s.groups)};
        },
    .grad = ir::rule(conv_weight_grad_grad),
    .expand = nullptr,
    .scalar = {},
    .eval = [](const EvalCtx& c) { return eval_conv(c, weight_grad_shape, ConvResult::w); },
    .sample = sample_conv_weight_grad,
};

std::vector<int64_t> free_axes(int rank, const std::vector<int64_t>& batch,
                               const std::vector<int64_t>& contract) {
  return axes_without(rank, joined(batch, contract));
}

Value dot(Value a, Value b, DotAttrs attrs) {
  return make(dot_op, {std::move(a), std::move(b)}, std::move(attrs));
}

Value matmul(Value a, Value b) {
  const int ra = a.rank(), rb = b.rank();
  if (ra < 2 || rb < 2 || (rb != 2 && ra != rb))
    throw UserError({"matmul", "ranks do not fit", a.type().text() + ", " + b.type().text(),
                     "[..., M, K] times [K, N], or [..., K, N] with equal leading dims"});
  DotAttrs at{.batch_a = {}, .batch_b = {}, .contract_a = {ra - 1}, .contract_b = {rb - 2}, .out = a.dtype()};
  for (int64_t i = 0; i < rb - 2; ++i) at.batch_a.push_back(i), at.batch_b.push_back(i);
  return dot(std::move(a), std::move(b), std::move(at));
}

Value conv(Value x, Value w, ConvAttrs attrs) {
  return make(conv_op, {std::move(x), std::move(w)}, std::move(attrs));
}

Value conv_data_grad(Value dy, Value w, ConvAttrs attrs) {
  return make(conv_data_grad_op, {std::move(dy), std::move(w)}, std::move(attrs));
}

Value conv_weight_grad(Value x, Value dy, ConvAttrs attrs) {
  return make(conv_weight_grad_op, {std::move(x), std::move(dy)}, std::move(attrs));
}

ir::Attrs with_result_dtype(const ir::Node& n, Dtype out) {
  if (&n.op() == &dot_op) {
    DotAttrs a = n.attrs<DotAttrs>();
    a.out = out;
    return a;
  }
  ConvAttrs a = n.attrs<ConvAttrs>();
  a.out = out;
  return a;
}

ConvAttrs plain_conv(int spatial_axes, Dtype out) {
  const auto n = static_cast<size_t>(spatial_axes);
  return {.stride = std::vector<int64_t>(n, 1),
          .pad_low = std::vector<int64_t>(n, 0),
          .pad_high = std::vector<int64_t>(n, 0),
          .dilation = std::vector<int64_t>(n, 1),
          .groups = 1,
          .spatial = {},
          .out = out};
}

std::span<const OpDef* const> contraction_ops() {
  static constexpr const OpDef* ops[] = {&dot_op, &conv_op, &conv_data_grad_op, &conv_weight_grad_op};
  return ops;
}

}  // namespace espalier::op
