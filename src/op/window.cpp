#include "op/window.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/sampling.h"
#include "op/spatial.h"
#include "op/table.h"

namespace espalier::op {

using ir::Array;
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

int64_t count(const std::vector<int64_t>& dims) { return ir::count(std::span<const int64_t>(dims)); }

int64_t static_batch(const Array& a) { return a.dims().front(); }

/// The number of spatial axes of operand 0.
size_t spatial_axes(const InferCtx& c) {
  const int rank = c.in[0].rank();
  if (rank < 3 || rank > 5) c.fail("operand 0 does not have 1 to 3 spatial axes", "rank 3 to 5");
  return static_cast<size_t>(rank - 2);
}

// ---- pooling

/// The windows over an input of `in`; `out` follows.
Sliding pool_windows(const InferCtx& c, const PoolAttrs& at, std::vector<int64_t> in, bool with_spatial) {
  const size_t axes = spatial_axes(c);
  check_per_axis(c, "window", at.window, axes, 1);
  check_per_axis(c, "stride", at.stride, axes, 1);
  check_per_axis(c, "pad_low", at.pad_low, axes, 0);
  check_per_axis(c, "pad_high", at.pad_high, axes, 0);
  check_per_axis(c, "spatial", at.spatial, with_spatial ? axes : 0, 0);
  for (size_t i = 0; i < axes; ++i)
    if (at.pad_low[i] >= at.window[i] || at.pad_high[i] >= at.window[i])
      c.fail("padding is as large as the window on spatial axis " + std::to_string(i),
             "less than " + std::to_string(at.window[i]),
             std::to_string(at.pad_low[i]) + " and " + std::to_string(at.pad_high[i]));
  Sliding s{std::move(in), at.window, {}, at.stride, at.pad_low, std::vector<int64_t>(axes, 1)};
  s.out = sliding_out(c, s, at.pad_high);
  return s;
}

/// The windows of a gradient: dy's spatial dims must follow from attrs.spatial.
Sliding pool_grad_windows(const InferCtx& c, const PoolAttrs& at) {
  spatial_axes(c);
  Sliding s = pool_windows(c, at, at.spatial, true);
  if (const std::vector<int64_t> out = spatial_dims(c, c.in[0]); out != s.out)
    c.fail("dy's spatial dims do not follow from the attributes",
           ir::dims_text(std::span<const int64_t>(s.out)), ir::dims_text(std::span<const int64_t>(out)));
  return s;
}

Sliding windows_of(const EvalCtx& c, bool gradient) {
  const std::vector<Type> in{c.in[0].type()};
  const InferCtx ctx{c.node.op(), in, c.node.attrs()};
  const auto& at = c.attrs<PoolAttrs>();
  return gradient ? pool_grad_windows(ctx, at) : pool_windows(ctx, at, spatial_dims(ctx, in[0]), false);
}

Dtype index_dtype(const PoolAttrs& at) { return count(at.window) <= 256 ? Dtype::u8 : Dtype::i32; }

std::vector<Type> infer_pool(const InferCtx& c) {
  const auto& at = c.attrs.get<PoolAttrs>();
  spatial_axes(c);
  const Sliding s = pool_windows(c, at, spatial_dims(c, c.in[0]), false);
  return {spatial_type(c.in[0].dtype, c.in[0].dims[0], s.out, c.in[0].dims.back())};
}

std::vector<Type> infer_pool_grad(const InferCtx& c) {
  const auto& at = c.attrs.get<PoolAttrs>();
  pool_grad_windows(c, at);
  return {spatial_type(c.in[0].dtype, c.in[0].dims[0], at.spatial, c.in[0].dims.back())};
}

std::vector<Type> infer_max_pool(const InferCtx& c) {
  Type y = infer_pool(c)[0];
  return {y, {index_dtype(c.attrs.get<PoolAttrs>()), y.dims}};
}

std::vector<Type> infer_max_pool_grad(const InferCtx& c) {
  const Type index{index_dtype(c.attrs.get<PoolAttrs>()), c.in[0].dims};
  if (c.in[1] != index) c.fail("index is not max_pool's", index.text(), c.in[1].text());
  return infer_pool_grad(c);
}

/// Does `candidate` replace `best`? NaN wins, the first of equals stays.
template <class T>
bool beats(T candidate, T best) {
  if constexpr (is_float16<T>) return beats(static_cast<float>(candidate), static_cast<float>(best));
  else return best == best && (candidate != candidate || candidate > best);
}

std::vector<Array> eval_max_pool(const EvalCtx& c) {
  const Sliding s = windows_of(c, false);
  const Array& x = c.in[0];
  const int64_t channels = x.dims().back(), in = count(s.in), outs = count(s.out);
  const std::vector<int64_t> dims = ir::static_dims(c.node.types()[0].dims);
  Array y = Array::full(x.dtype(), dims,
                        ir::is_float(x.dtype()) ? -std::numeric_limits<double>::infinity() : -0x1p63);
  Array index(c.node.types()[1].dtype, dims);
  std::vector<char> found(static_cast<size_t>(y.size()), 0);
  ir::dispatch(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* px = x.data<T>();
    T* py = y.write<T>();
    for (int64_t n = 0; n < static_batch(x); ++n)
      each_tap(s, [&](int64_t i, int64_t k, int64_t o) {
        for (int64_t ch = 0; ch < channels; ++ch) {
          const T candidate = px[(n * in + i) * channels + ch];
          const int64_t at = (n * outs + o) * channels + ch;
          if (found[static_cast<size_t>(at)] && !beats(candidate, py[at])) continue;
          found[static_cast<size_t>(at)] = 1;
          py[at] = candidate;
          index.set(at, static_cast<double>(k));
        }
      });
  });
  return {y, index};
}

std::vector<Array> eval_max_pool_grad(const EvalCtx& c) {
  const Sliding s = windows_of(c, true);
  const Array &dy = c.in[0], &index = c.in[1];
  const int64_t channels = dy.dims().back(), in = count(s.in), outs = count(s.out);
  Array dx(Dtype::f64, ir::static_dims(c.node.types()[0].dims));
  double* out = dx.write<double>();
  for (int64_t n = 0; n < static_batch(dy); ++n)
    each_tap(s, [&](int64_t i, int64_t k, int64_t o) {
      for (int64_t ch = 0; ch < channels; ++ch) {
        const int64_t at = (n * outs + o) * channels + ch;
        if (static_cast<int64_t>(index.at(at)) == k) out[(n * in + i) * channels + ch] += dy.at(at);
      }
    });
  return {dx.cast(dy.dtype())};
}

/// What each window of an average divides by.
std::vector<double> pool_divisors(const Sliding& s, bool count_pad) {
  std::vector<double> n(static_cast<size_t>(count(s.out)),
                        count_pad ? static_cast<double>(count(s.window)) : 0);
  if (!count_pad) each_tap(s, [&](int64_t, int64_t, int64_t o) { n[static_cast<size_t>(o)] += 1; });
  return n;
}

/// Average over windows, or (gradient) its transpose.
std::vector<Array> eval_avg_pool(const EvalCtx& c, bool gradient) {
  const Sliding s = windows_of(c, gradient);
  const std::vector<double> divisor = pool_divisors(s, c.attrs<PoolAttrs>().count_pad);
  const Array from = c.in[0].cast(Dtype::f64);
  const int64_t channels = from.dims().back(), in = count(s.in), outs = count(s.out);
  Array to(Dtype::f64, ir::static_dims(c.node.types()[0].dims));
  const double* p = from.data<double>();
  double* q = to.write<double>();
  for (int64_t n = 0; n < static_batch(from); ++n)
    each_tap(s, [&](int64_t i, int64_t, int64_t o) {
      const int64_t x = (n * in + i) * channels, y = (n * outs + o) * channels;
      const double factor = 1 / divisor[static_cast<size_t>(o)];
      for (int64_t ch = 0; ch < channels; ++ch) {
        if (gradient) q[x + ch] += p[y + ch] * factor;
        else q[y + ch] += p[x + ch] * factor;
      }
    });
  return {to.cast(c.in[0].dtype())};
}

template <class Attrs>
Attrs with_spatial(Attrs at, std::vector<int64_t> spatial) {
  at.spatial = std::move(spatial);
  return at;
}

std::vector<Value> max_pool_rule(const GradCtx& c) {
  if (!c.dout[0]) return {Value()};
  return {max_pool_grad(c.dout[0], c.out(1), with_spatial(c.node.attrs<PoolAttrs>(), spatial_dims(c.in(0))))};
}

/// The transpose of max_pool_grad reads g where each maximum was found.
std::vector<Value> max_pool_grad_rule(const GradCtx& c) {
  const auto& at = c.node.attrs<PoolAttrs>();
  const Value &g = c.dout[0], &dy = c.in(0);
  const int64_t inputs = count(at.spatial);
  if (inputs == 0) return {zeros_like(dy), Value()};
  const Type position{Dtype::i64, dy.dims()};
  Value rest = cast(c.in(1), Dtype::i64), flat = zeros_like(rest);
  int64_t below = count(at.window);
  for (size_t d = 0; d < at.window.size(); ++d) {
    below /= at.window[d];
    const Value tap = div(rest, static_cast<double>(below));
    rest = sub(rest, mul(tap, static_cast<double>(below)));
    const Value start = mul(iota(position, static_cast<int64_t>(d) + 1), static_cast<double>(at.stride[d]));
    const Value place = add(sub(start, static_cast<double>(at.pad_low[d])), tap);
    flat = add(mul(flat, static_cast<double>(at.spatial[d])), place);
  }
  const Dims by_position{dy.dims()[0], count(spatial_dims(dy)), dy.dims().back()};
  const Value rows = reshape(g, {g.dims()[0], inputs, g.dims().back()});
  return {reshape(gather_along(rows, reshape(flat, by_position), 1), dy.dims()), Value()};
}

/// Attributes and spatial dims of a random pool; with_input: attrs.spatial is filled too.
struct DrawnPool {
  PoolAttrs at;
  std::vector<int64_t> in, out;
};

DrawnPool draw_pool(SampleRng& rng) {
  DrawnPool d;
  const int64_t axes = draw(rng, 1, 3);
  d.at.count_pad = draw_chance(rng, 0.5);
  for (int64_t i = 0; i < axes; ++i) {
    const int64_t window = draw(rng, 1, axes == 3 ? 2 : 3), low = draw(rng, 0, window - 1),
                  high = draw(rng, 0, window - 1);
    const int64_t least = std::max<int64_t>(window - low - high, 1),
                  in = draw(rng, least, least + (axes == 3 ? 2 : 4));
    d.at.window.push_back(window);
    d.at.stride.push_back(draw(rng, 1, 3));
    d.at.pad_low.push_back(low), d.at.pad_high.push_back(high);
    d.in.push_back(in), d.out.push_back((in + low + high - window) / d.at.stride.back() + 1);
  }
  return d;
}

std::vector<int64_t> draw_around(SampleRng& rng, const std::vector<int64_t>& spatial) {
  std::vector<int64_t> dims{draw_dim(rng, 2)};
  dims.insert(dims.end(), spatial.begin(), spatial.end());
  dims.push_back(draw_dim(rng, 3));
  return dims;
}

Sample sample_pool(SampleRng& rng, Dtype dtype) {
  const DrawnPool d = draw_pool(rng);
  return {{draw_distinct(rng, dtype, draw_around(rng, d.in))}, d.at, {}};
}

Sample sample_avg_pool_grad(SampleRng& rng, Dtype dtype) {
  const DrawnPool d = draw_pool(rng);
  return {{draw_array(rng, dtype, draw_around(rng, d.out))}, with_spatial(d.at, d.in), {}};
}

Sample sample_max_pool_grad(SampleRng& rng, Dtype dtype) {
  const DrawnPool d = draw_pool(rng);
  const std::vector<int64_t> dims = draw_around(rng, d.out);
  Array index(index_dtype(d.at), dims);
  // A tap inside the input for every window, as max_pool gives it.
  const Sliding s{d.in, d.at.window, d.out, d.at.stride, d.at.pad_low, std::vector<int64_t>(d.in.size(), 1)};
  std::vector<std::vector<int64_t>> taps(static_cast<size_t>(count(d.out)));
  each_tap(s, [&](int64_t, int64_t k, int64_t o) { taps[static_cast<size_t>(o)].push_back(k); });
  for (int64_t i = 0; i < index.size(); ++i) {
    const auto& inside = taps[static_cast<size_t>(i / dims.back() % count(d.out))];
    index.set(i, static_cast<double>(
                     inside[static_cast<size_t>(draw(rng, 0, static_cast<int64_t>(inside.size()) - 1))]));
  }
  return {{draw_array(rng, dtype, dims), std::move(index)}, with_spatial(d.at, d.in), {}};
}

// ---- resize

void check_resize(const InferCtx& c, const ResizeAttrs& at) {
  check_per_axis(c, "spatial", at.spatial, spatial_axes(c), 0);
  if (at.mode == ResizeMode::linear && !ir::is_float(c.in[0].dtype))
    c.fail("linear interpolation needs floats", "f64 f32 bf16 f16, or mode nearest");
}

void check_resize_extents(const InferCtx& c, const std::vector<int64_t>& in,
                          const std::vector<int64_t>& out) {
  for (size_t i = 0; i < in.size(); ++i)
    if (in[i] == 0 && out[i] != 0) c.fail("an empty axis cannot be resized", "0", std::to_string(out[i]));
}

std::vector<Type> infer_resize(const InferCtx& c) {
  const auto& at = c.attrs.get<ResizeAttrs>();
  check_resize(c, at);
  check_resize_extents(c, spatial_dims(c, c.in[0]), at.spatial);
  return {spatial_type(c.in[0].dtype, c.in[0].dims[0], at.spatial, c.in[0].dims.back())};
}

std::vector<Type> infer_resize_grad(const InferCtx& c) {
  const auto& at = c.attrs.get<ResizeAttrs>();
  check_resize(c, at);
  check_resize_extents(c, at.spatial, spatial_dims(c, c.in[0]));
  return {spatial_type(c.in[0].dtype, c.in[0].dims[0], at.spatial, c.in[0].dims.back())};
}

/// Call f(input, output, weight), flat spatial positions, for every pair that meets; output by output.
template <class F>
void each_resize_tap(const std::vector<int64_t>& in, const std::vector<int64_t>& out, const ResizeAttrs& at,
                     F&& f) {
  if (count(out) == 0) return;
  std::vector<std::vector<ResizeTap>> taps;
  for (size_t d = 0; d < in.size(); ++d)
    taps.push_back(resize_taps(in[d], out[d], at.mode, at.align_corners));
  std::vector<int64_t> o(out.size(), 0), i(out.size(), 0);
  do {
    for (unsigned corner = 0; corner < (1u << out.size()); ++corner) {
      double weight = 1;
      for (size_t d = 0; d < out.size(); ++d) {
        const ResizeTap& tap = taps[d][static_cast<size_t>(o[d])];
        const bool high = (corner >> d) & 1;
        i[d] = high ? tap.high : tap.low;
        weight *= high ? tap.weight : 1 - tap.weight;
      }
      if (weight != 0) f(flat_index(i, in), flat_index(o, out), weight);
    }
  } while (advance(o, out));
}

/// The resized array, or (gradient) its transpose, summed as T: double, or int64_t where elements are only copied.
template <class T>
Array eval_resize_as(const EvalCtx& c, bool gradient) {
  const auto& at = c.attrs<ResizeAttrs>();
  const Array from = c.in[0].cast(ir::dtype_of<T>());
  const std::vector<int64_t> here = spatial_dims(from.dims());
  const std::vector<int64_t>&in = gradient ? at.spatial : here, &out = gradient ? here : at.spatial;
  const int64_t channels = from.dims().back(), ins = count(in), outs = count(out);
  Array to(ir::dtype_of<T>(), ir::static_dims(c.node.types()[0].dims));
  const T* p = from.data<T>();
  T* q = to.write<T>();
  for (int64_t n = 0; n < static_batch(from); ++n)
    each_resize_tap(in, out, at, [&](int64_t i, int64_t o, double weight) {
      const int64_t x = (n * ins + i) * channels, y = (n * outs + o) * channels;
      for (int64_t ch = 0; ch < channels; ++ch) {
        if (gradient) q[x + ch] += static_cast<T>(weight) * p[y + ch];
        else q[y + ch] += static_cast<T>(weight) * p[x + ch];
      }
    });
  return to.cast(c.in[0].dtype());
}

std::vector<Array> eval_resize(const EvalCtx& c, bool gradient) {
  return {ir::is_float(c.in[0].dtype()) ? eval_resize_as<double>(c, gradient)
                                        : eval_resize_as<int64_t>(c, gradient)};
}

std::vector<Value> resize_rule(const GradCtx& c) {
  return {resize_grad(c.dout[0], with_spatial(c.node.attrs<ResizeAttrs>(), spatial_dims(c.in(0))))};
}

std::vector<Value> resize_grad_rule(const GradCtx& c) {
  return {resize(c.dout[0], with_spatial(c.node.attrs<ResizeAttrs>(), spatial_dims(c.in(0))))};
}

Sample sample_resize(SampleRng& rng, Dtype dtype) {
  ResizeAttrs at{.spatial = {}, .mode = ResizeMode::nearest, .align_corners = draw_chance(rng, 0.5)};
  if (ir::is_float(dtype) && draw_chance(rng, 0.6)) at.mode = ResizeMode::linear;
  const int64_t axes = draw(rng, 1, 3);
  std::vector<int64_t> here;
  for (int64_t i = 0; i < axes; ++i) {
    here.push_back(draw(rng, 1, axes == 3 ? 3 : 5));
    at.spatial.push_back(draw(rng, 1, axes == 3 ? 3 : 5));
  }
  return {{draw_array(rng, dtype, draw_around(rng, here))}, at, {}};
}

}  // namespace

std::vector<ResizeTap> resize_taps(int64_t in, int64_t out, ResizeMode mode, bool align_corners) {
  std::vector<ResizeTap> taps;
  const int64_t span = std::max<int64_t>(out - 1, 1), last = in - 1;
  for (int64_t i = 0; i < out; ++i) {
    if (mode == ResizeMode::nearest) {
      const int64_t at = align_corners ? (2 * i * last + span) / (2 * span) : (2 * i + 1) * in / (2 * out);
      taps.push_back({std::min(at, last), std::min(at, last), 0});
      continue;
    }
    const auto position = static_cast<double>(i), size = static_cast<double>(in);
    const double centre = align_corners ? position * static_cast<double>(last) / static_cast<double>(span)
                                        : (position + 0.5) * size / static_cast<double>(out) - 0.5;
    const double held = std::clamp(centre, 0.0, static_cast<double>(last));
    const auto low = static_cast<int64_t>(held);
    taps.push_back({low, std::min(low + 1, last), held - static_cast<double>(low)});
  }
  return taps;
}

constinit const OpDef max_pool_op{
    .name = "max_pool",
    .doc = "Maxima of sliding windows of x [N, spatial, C], and where in its window each was found.",
    .kind = Kind::window,
    .arity = {1, 1},
    .dtypes = ir::number_types,
    .attrs = ir::attr_type<PoolAttrs>(),
    .infer = infer_max_pool,
    .grad = ir::rule(max_pool_rule),
    .expand = nullptr,
    .scalar = {},
    .eval = eval_max_pool,
    .sample = sample_pool,
};

constinit const OpDef max_pool_grad_op{
    .name = "max_pool_grad",
    .doc = "Gradient of max_pool: (dy, index) -> dx.",
    .kind = Kind::window,
    .arity = {2, 2},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<PoolAttrs>(),
    .infer = infer_max_pool_grad,
    .grad = ir::rule(max_pool_grad_rule),
    .expand = nullptr,
    .scalar = {},
    .eval = eval_max_pool_grad,
    .sample = sample_max_pool_grad,
};

constinit const OpDef avg_pool_op{
    .name = "avg_pool",
    .doc = "Averages of sliding windows of x [N, spatial, C].",
    .kind = Kind::window,
    .arity = {1, 1},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<PoolAttrs>(),
    .infer = infer_pool,
    .grad = ir::rule([](const GradCtx& c) {
      return std::vector{
          avg_pool_grad(c.dout[0], with_spatial(c.node.attrs<PoolAttrs>(), spatial_dims(c.in(0))))};
    }),
    .expand = nullptr,
    .scalar = {},
    .eval = [](const EvalCtx& c) { return eval_avg_pool(c, false); },
    .sample = sample_pool,
};

constinit const OpDef avg_pool_grad_op{
    .name = "avg_pool_grad",
    .doc = "Gradient of avg_pool: dy -> dx.",
    .kind = Kind::window,
    .arity = {1, 1},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<PoolAttrs>(),
    .infer = infer_pool_grad,
    .grad = ir::rule([](const GradCtx& c) {
      return std::vector{avg_pool(c.dout[0], with_spatial(c.node.attrs<PoolAttrs>(), {}))};
    }),
    .expand = nullptr,
    .scalar = {},
    .eval = [](const EvalCtx& c) { return eval_avg_pool(c, true); },
    .sample = sample_avg_pool_grad,
};

constinit const OpDef resize_op{
    .name = "resize",
    .doc =
        "x [N, spatial, C] resampled to other spatial dims, nearest or linear (a neighbour of weight 0 is "
        "not read).",
    .kind = Kind::window,
    .arity = {1, 1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<ResizeAttrs>(),
    .infer = infer_resize,
    .grad = ir::rule(resize_rule),
    .expand = nullptr,
    .scalar = {},
    .eval = [](const EvalCtx& c) { return eval_resize(c, false); },
    .sample = sample_resize,
};

constinit const OpDef resize_grad_op{
    .name = "resize_grad",
    .doc = "Gradient of resize: dy -> dx.",
    .kind = Kind::window,
    .arity = {1, 1},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<ResizeAttrs>(),
    .infer = infer_resize_grad,
    .grad = ir::rule(resize_grad_rule),
    .expand = nullptr,
    .scalar = {},
    .eval = [](const EvalCtx& c) { return eval_resize(c, true); },
    .sample = sample_resize,
};

std::vector<Value> max_pool(Value x, PoolAttrs attrs) {
  return make_all(max_pool_op, {std::move(x)}, std::move(attrs));
}
Value max_pool_grad(Value dy, Value index, PoolAttrs attrs) {
  return make(max_pool_grad_op, {std::move(dy), std::move(index)}, std::move(attrs));
}
Value avg_pool(Value x, PoolAttrs attrs) { return make(avg_pool_op, {std::move(x)}, std::move(attrs)); }
Value avg_pool_grad(Value dy, PoolAttrs attrs) {
  return make(avg_pool_grad_op, {std::move(dy)}, std::move(attrs));
}
Value resize(Value x, ResizeAttrs attrs) { return make(resize_op, {std::move(x)}, std::move(attrs)); }
Value resize_grad(Value dy, ResizeAttrs attrs) {
  return make(resize_grad_op, {std::move(dy)}, std::move(attrs));
}

std::span<const OpDef* const> window_ops() {
  static constexpr const OpDef* ops[] = {&max_pool_op,      &max_pool_grad_op, &avg_pool_op,
                                         &avg_pool_grad_op, &resize_op,        &resize_grad_op};
  return ops;
}

}  // namespace espalier::op
