#include "op/norm.h"

#include <algorithm>

#include "op/infer.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "op/table.h"
#include "op/widen.h"

namespace espalier::op {

using ir::Array;
using ir::Dims;
using ir::Dtype;
using ir::GradCtx;
using ir::InferCtx;
using ir::Kind;
using ir::Node;
using ir::OpDef;
using ir::Sample;
using ir::SampleRng;
using ir::Type;

namespace {

/// UserError unless operand i has the statistics' dtype and `dims`.
void check_stat(const InferCtx& c, size_t i, const char* name, const Dims& dims) {
  const Type allowed{wide_dtype(c.in[0].dtype), dims};
  if (c.in[i] != allowed) c.fail(std::string(name) + " has a wrong type", allowed.text(), c.in[i].text());
}

// ---- batch norm

/// v, of the channel dims, repeated over x's other axes.
Value spread(const Value& v, const Value& x, const std::vector<int64_t>& channel_axes) {
  return broadcast_in(v, x.dims(), channel_axes);
}

/// `v` divided by how many elements of x one channel has.
Value per_element(const Value& v, const Value& x, const std::vector<int64_t>& folded) {
  return div(v, broadcast_in(dim_size(x, folded, v.dtype()), v.dims(), {}));
}

std::vector<Type> infer_batch_norm_train(const InferCtx& c) {
  const auto& axes = c.attrs.get<BatchNormAttrs>().channel_axes;
  check_axes(c, axes, c.in[0].rank());
  const Dims channels = pick(c.in[0].dims, axes);
  check_stat(c, 1, "scale", channels);
  check_stat(c, 2, "bias", channels);
  return {c.in[0], c.in[1], c.in[1]};
}

/// The first element of every channel, or zeros where there is none.
Value first_of_channels(const Value& x, const std::vector<int64_t>& channel_axes) {
  const Dims channels = pick(x.dims(), channel_axes);
  Dims size(x.dims().size(), 1);
  for (const int64_t a : channel_axes) size[static_cast<size_t>(a)] = x.dims()[static_cast<size_t>(a)];
  for (size_t i = 0; i < size.size(); ++i)
    if (x.dims()[i] == ir::Dim(0)) return broadcast_in(ir::constant(x.dtype(), 0), channels, {});
  return reshape(slice(x, std::vector<int64_t>(size.size(), 0), size), channels);
}

// One pass gives both sums: of (x - k) and of (x - k)^2, with k the channel's first element. Since k lies within a few
// standard deviations of the mean, var = E[(x-k)^2] - E[x-k]^2 loses no more than a few bits however far the mean is from
// zero (Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance": shifted data).
std::vector<Value> expand_batch_norm_train(const Node& n) {
  const auto& at = n.attrs<BatchNormAttrs>();
  const Value x = widened(n.input(0));
  const std::vector<int64_t> folded = axes_without(x.rank(), at.channel_axes);
  const Value shift = widened(first_of_channels(n.input(0), at.channel_axes));
  const Value d = sub(x, spread(shift, x, at.channel_axes));
  const Value d_mean = per_element(reduce_sum(d, folded), x, folded);
  const Value square_mean = per_element(reduce_sum(square(d), folded), x, folded);
  const Value mean = add(shift, d_mean);
  const Value var = max(sub(square_mean, square(d_mean)), zeros_like(d_mean));
  const Value factor = mul(rsqrt(add(var, at.eps)), n.input(1));
  const Value y = add(mul(sub(x, spread(mean, x, at.channel_axes)), spread(factor, x, at.channel_axes)),
                      spread(n.input(2), x, at.channel_axes));
  return {cast(y, n.input(0).dtype()), mean, var};
}

std::vector<Value> batch_norm_train_grad(const GradCtx& c) {
  const auto& at = c.node.attrs<BatchNormAttrs>();
  const Value& x = c.in(0);
  const Value mean = c.out(1), var = c.out(2);
  std::vector<Value> grads(3);
  if (c.dout[0]) grads = make_all(batch_norm_grad_op, {x, c.in(1), mean, var, c.dout[0]}, at);
  if (!c.needed[0] || (!c.dout[1] && !c.dout[2])) return grads;
  // The statistics' own gradients: d mean / dx = 1/n, d var / dx = 2 (x - mean) / n.
  const std::vector<int64_t> folded = axes_without(x.rank(), at.channel_axes);
  const Value wide = widened(x);
  Value dx;
  if (c.dout[1]) dx = spread(per_element(c.dout[1], x, folded), x, at.channel_axes);
  if (c.dout[2]) {
    const Value factor = spread(mul(per_element(c.dout[2], x, folded), 2.0), x, at.channel_axes);
    const Value from_var = mul(sub(wide, spread(mean, x, at.channel_axes)), factor);
    dx = dx ? add(dx, from_var) : from_var;
  }
  dx = cast(dx, x.dtype());
  grads[0] = grads[0] ? add(grads[0], dx) : dx;
  return grads;
}

std::vector<Type> infer_batch_norm_grad(const InferCtx& c) {
  const auto& axes = c.attrs.get<BatchNormAttrs>().channel_axes;
  check_axes(c, axes, c.in[0].rank());
  const Dims channels = pick(c.in[0].dims, axes);
  check_stat(c, 1, "scale", channels);
  check_stat(c, 2, "mean", channels);
  check_stat(c, 3, "var", channels);
  if (c.in[4] != c.in[0]) c.fail("dy is of another type than x", c.in[0].text(), c.in[4].text());
  return {c.in[0], c.in[1], c.in[1]};
}

// Ioffe and Szegedy 2015, arranged as one pass of two sums and one pointwise pass:
// dx = scale r (dy - sum(dy)/n - (x - mean) r^2 sum(dy (x - mean))/n),  r = 1/sqrt(var + eps).
std::vector<Value> expand_batch_norm_grad(const Node& n) {
  const auto& at = n.attrs<BatchNormAttrs>();
  const Value x = widened(n.input(0)), dy = widened(n.input(4));
  const Value &scale = n.input(1), &mean = n.input(2), &var = n.input(3);
  const std::vector<int64_t> folded = axes_without(x.rank(), at.channel_axes);
  const Value d = sub(x, spread(mean, x, at.channel_axes));
  const Value sum = reduce_sum(dy, folded), sum_d = reduce_sum(mul(dy, d), folded);
  const Value r = rsqrt(add(var, at.eps));
  const Value slope = mul(square(r), per_element(sum_d, x, folded));
  const Value centred = sub(dy, spread(per_element(sum, x, folded), x, at.channel_axes));
  const Value dx =
      mul(spread(mul(scale, r), x, at.channel_axes), sub(centred, mul(d, spread(slope, x, at.channel_axes))));
  return {cast(dx, n.input(0).dtype()), mul(sum_d, r), sum};
}

std::vector<Type> infer_batch_norm(const InferCtx& c) {
  if (c.in[0].rank() < 1) c.fail("x has no channel axis", "rank >= 1");
  const Dims channels{c.in[0].dims.back()};
  const char* names[] = {"", "scale", "bias", "mean", "var"};
  for (size_t i = 1; i < 5; ++i) check_stat(c, i, names[i], channels);
  return {c.in[0]};
}

std::vector<Value> expand_batch_norm(const Node& n) {
  const Value x = widened(n.input(0));
  const std::vector<int64_t> last{x.rank() - 1};
  const Value factor = mul(rsqrt(add(n.input(4), n.attrs<NormAttrs>().eps)), n.input(1));
  const Value y =
      add(mul(sub(x, spread(n.input(3), x, last)), spread(factor, x, last)), spread(n.input(2), x, last));
  return {cast(y, n.input(0).dtype())};
}

// ---- layer and group norm: normalise over some axes of a view of x, then scale channels

/// How x is seen for its statistics: reshaped to `dims`, folded over `axes`.
struct NormView {
  Dims dims;
  std::vector<int64_t> axes;
};

NormView layer_view(const Node& n) { return {n.input(0).dims(), {n.input(0).rank() - 1}}; }

/// [N, spatial..., C] as [N, spatial..., groups, C/groups], folded over all but N and groups.
NormView group_view(const Node& n) {
  NormView view{n.input(0).dims(), {}};
  const auto rank = static_cast<int64_t>(view.dims.size());
  const ir::Dim groups = n.attrs<NormAttrs>().groups;
  view.dims.back() = view.dims.back() / groups;
  view.dims.insert(view.dims.end() - 1, groups);
  for (int64_t i = 1; i < rank - 1; ++i) view.axes.push_back(i);
  view.axes.push_back(rank);
  return view;
}

Value viewed(const Value& x, const Dims& dims) { return x.dims() == dims ? x : reshape(x, dims); }

/// x minus its mean, and 1 / sqrt(var + eps), in two passes over the view (which fits a cache line of rows).
struct Centred {
  Value d, r;
};

Centred centre(const Value& x, const NormView& view, double eps) {
  const Value wide = viewed(widened(x), view.dims);
  const Value d = sub(wide, unreduce(reduce_mean(wide, view.axes), wide, view.axes));
  return {d, rsqrt(add(reduce_mean(square(d), view.axes), eps))};
}

std::vector<Value> expand_normalised(const Node& n, const NormView& view) {
  const Value& x = n.input(0);
  const auto [d, r] = centre(x, view, n.attrs<NormAttrs>().eps);
  const Value hat = viewed(mul(d, unreduce(r, d, view.axes)), x.dims());
  const std::vector<int64_t> last{x.rank() - 1};
  const Value y = add(mul(hat, spread(n.input(1), x, last)), spread(n.input(2), x, last));
  return {cast(y, x.dtype())};
}

// dx = r (g - mean(g) - d r^2 mean(g d)) with g = dy * scale.
std::vector<Value> normalised_grad(const GradCtx& c, const NormView& view) {
  const Value &x = c.in(0), dy = widened(c.dout[0]);
  const std::vector<int64_t> last{x.rank() - 1}, leading = axes_without(x.rank(), last);
  const Centred centred = centre(x, view, c.node.attrs<NormAttrs>().eps);
  const Value &d = centred.d, &r = centred.r;
  const auto back = [&](const Value& v) { return unreduce(v, d, view.axes); };
  std::vector<Value> grads(3);
  if (c.needed[0]) {
    const Value g = viewed(mul(dy, spread(c.in(1), x, last)), view.dims);
    const Value slope = mul(square(r), reduce_mean(mul(g, d), view.axes));
    const Value dx = mul(back(r), sub(sub(g, back(reduce_mean(g, view.axes))), mul(d, back(slope))));
    grads[0] = cast(viewed(dx, x.dims()), x.dtype());
  }
  if (c.needed[1]) grads[1] = reduce_sum(mul(dy, viewed(mul(d, back(r)), x.dims())), leading);
  if (c.needed[2]) grads[2] = reduce_sum(dy, leading);
  return grads;
}

std::vector<Type> infer_layer_norm(const InferCtx& c) {
  if (c.in[0].rank() < 1) c.fail("x has no axis to normalise", "rank >= 1");
  check_stat(c, 1, "scale", {c.in[0].dims.back()});
  check_stat(c, 2, "bias", {c.in[0].dims.back()});
  return {c.in[0]};
}

std::vector<Type> infer_group_norm(const InferCtx& c) {
  if (c.in[0].rank() < 2) c.fail("x needs a batch and a channel axis", "rank >= 2");
  const ir::Dim channels = c.in[0].dims.back();
  const int64_t groups = c.attrs.get<NormAttrs>().groups;
  if (!channels.is_static()) c.fail("the number of channels is symbolic", "a number", channels.text());
  if (groups < 1 || channels.value() % groups)
    c.fail("groups does not divide the channels", "a divisor of " + channels.text(), std::to_string(groups));
  check_stat(c, 1, "scale", {channels});
  check_stat(c, 2, "bias", {channels});
  return {c.in[0]};
}

// ---- samples

double draw_eps(SampleRng& rng) { return draw_chance(rng, 0.5) ? 0.1 : 0.01; }

/// x of rank 2 to 4 with random channel axes; no other dim is 0, because the mean of nothing is no number.
struct DrawnBatchNorm {
  BatchNormAttrs at;
  std::vector<int64_t> x, channels;
};

DrawnBatchNorm draw_batch_norm(SampleRng& rng) {
  DrawnBatchNorm d{{.eps = draw_eps(rng), .channel_axes = {}}, draw_dims(rng, draw(rng, 2, 4), 4), {}};
  const auto rank = static_cast<int64_t>(d.x.size());
  d.at.channel_axes = {rank - 1};
  if (rank > 2 && draw_chance(rng, 0.4))
    d.at.channel_axes.insert(d.at.channel_axes.begin(), draw(rng, 0, rank - 2));
  for (int64_t i = 0; i < rank; ++i) {
    int64_t& dim = d.x[static_cast<size_t>(i)];
    if (std::ranges::count(d.at.channel_axes, i)) d.channels.push_back(dim);
    else dim = std::max<int64_t>(dim, 1);
  }
  return d;
}

Sample sample_batch_norm_train(SampleRng& rng, Dtype dtype) {
  const DrawnBatchNorm d = draw_batch_norm(rng);
  const Dtype stat = wide_dtype(dtype);
  return {{draw_array(rng, dtype, d.x), draw_array(rng, stat, d.channels), draw_array(rng, stat, d.channels)},
          d.at,
          {}};
}

Sample sample_batch_norm_grad(SampleRng& rng, Dtype dtype) {
  const DrawnBatchNorm d = draw_batch_norm(rng);
  const Dtype stat = wide_dtype(dtype);
  return {{draw_array(rng, dtype, d.x), draw_array(rng, stat, d.channels), draw_array(rng, stat, d.channels),
           draw_array(rng, stat, d.channels, 0.2, 2), draw_array(rng, dtype, d.x)},
          d.at,
          {}};
}

Sample sample_batch_norm(SampleRng& rng, Dtype dtype) {
  const std::vector<int64_t> x = draw_dims(rng, draw(rng, 1, 4), 4), channels{x.back()};
  const Dtype stat = wide_dtype(dtype);
  return {{draw_array(rng, dtype, x), draw_array(rng, stat, channels), draw_array(rng, stat, channels),
           draw_array(rng, stat, channels), draw_array(rng, stat, channels, 0.2, 2)},
          NormAttrs{.eps = draw_eps(rng), .groups = 1},
          {}};
}

Sample draw_normalised(SampleRng& rng, Dtype dtype, std::vector<int64_t> x, int64_t groups) {
  const Dtype stat = wide_dtype(dtype);
  const std::vector<int64_t> channels{x.back()};
  return {{draw_array(rng, dtype, std::move(x)), draw_array(rng, stat, channels),
           draw_array(rng, stat, channels)},
          NormAttrs{.eps = draw_eps(rng), .groups = groups},
          {}};
}

Sample sample_layer_norm(SampleRng& rng, Dtype dtype) {
  return draw_normalised(rng, dtype, draw_dims(rng, draw(rng, 1, 3)), 1);
}

Sample sample_group_norm(SampleRng& rng, Dtype dtype) {
  std::vector<int64_t> x = draw_dims(rng, draw(rng, 2, 4), 4);
  const int64_t groups = draw(rng, 1, 3);
  x.back() *= groups;
  return draw_normalised(rng, dtype, std::move(x), groups);
}

}  // namespace

constinit const OpDef batch_norm_train_op{
    .name = "batch_norm_train",
    .doc = "Batch normalisation with the batch's statistics: (x, scale, bias) -> y, mean, biased variance.",
    .kind = Kind::composite,
    .arity = {3, 3},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<BatchNormAttrs>(),
    .infer = infer_batch_norm_train,
    .grad = ir::rule(batch_norm_train_grad),
    .expand = expand_batch_norm_train,
    .scalar = {},
    .eval = nullptr,
    .sample = sample_batch_norm_train,
};

constinit const OpDef batch_norm_grad_op{
    .name = "batch_norm_grad",
    .doc = "Gradient of batch_norm_train's y: (x, scale, mean, var, dy) -> dx, dscale, dbias.",
    .kind = Kind::composite,
    .arity = {5, 5},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<BatchNormAttrs>(),
    .infer = infer_batch_norm_grad,
    .grad = ir::by_expansion,
    .expand = expand_batch_norm_grad,
    .scalar = {},
    .eval = nullptr,
    .sample = sample_batch_norm_grad,
};

constinit const OpDef batch_norm_op{
    .name = "batch_norm",
    .doc = "Batch normalisation with given statistics: (x, scale, bias, mean, var) -> y.",
    .kind = Kind::composite,
    .arity = {5, 5},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<NormAttrs>(),
    .infer = infer_batch_norm,
    .grad = ir::by_expansion,
    .expand = expand_batch_norm,
    .scalar = {},
    .eval = nullptr,
    .sample = sample_batch_norm,
};

constinit const OpDef layer_norm_op{
    .name = "layer_norm",
    .doc = "Normalisation over the last axis, then scale and bias: (x, scale, bias) -> y.",
    .kind = Kind::composite,
    .arity = {3, 3},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<NormAttrs>(),
    .infer = infer_layer_norm,
    .grad = ir::rule([](const GradCtx& c) { return normalised_grad(c, layer_view(c.node)); }),
    .expand = [](const Node& n) { return expand_normalised(n, layer_view(n)); },
    .scalar = {},
    .eval = nullptr,
    .sample = sample_layer_norm,
};

constinit const OpDef group_norm_op{
    .name = "group_norm",
    .doc = "Normalisation over the spatial axes and the channels of each group: (x, scale, bias) -> y.",
    .kind = Kind::composite,
    .arity = {3, 3},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<NormAttrs>(),
    .infer = infer_group_norm,
    .grad = ir::rule([](const GradCtx& c) { return normalised_grad(c, group_view(c.node)); }),
    .expand = [](const Node& n) { return expand_normalised(n, group_view(n)); },
    .scalar = {},
    .eval = nullptr,
    .sample = sample_group_norm,
};

std::vector<Value> batch_norm_train(Value x, Value scale, Value bias, double eps) {
  const int64_t channel_axis = x.rank() - 1;
  return make_all(batch_norm_train_op, {std::move(x), std::move(scale), std::move(bias)},
                  BatchNormAttrs{.eps = eps, .channel_axes = {channel_axis}});
}

Value batch_norm(Value x, Value scale, Value bias, Value mean, Value var, double eps) {
  return make(batch_norm_op,
              {std::move(x), std::move(scale), std::move(bias), std::move(mean), std::move(var)},
              NormAttrs{.eps = eps, .groups = 1});
}

Value layer_norm(Value x, Value scale, Value bias, double eps) {
  return make(layer_norm_op, {std::move(x), std::move(scale), std::move(bias)},
              NormAttrs{.eps = eps, .groups = 1});
}

Value group_norm(Value x, Value scale, Value bias, int64_t groups, double eps) {
  return make(group_norm_op, {std::move(x), std::move(scale), std::move(bias)},
              NormAttrs{.eps = eps, .groups = groups});
}

std::span<const OpDef* const> norm_ops() {
  static constexpr const OpDef* ops[] = {&batch_norm_train_op, &batch_norm_grad_op, &batch_norm_op,
                                         &layer_norm_op, &group_norm_op};
  return ops;
}

}  // namespace espalier::op
