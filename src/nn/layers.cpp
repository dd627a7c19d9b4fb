#include "nn/layers.h"

#include <fmt/format.h>

#include <cmath>

#include "op/activation.h"
#include "op/axes.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/norm.h"
#include "op/reduction.h"
#include "op/window.h"

namespace espalier::nn {

using ir::Value;

namespace {

Array filled(int64_t n, double value) { return Array::full(Dtype::f32, {n}, value); }
double bound(int64_t fan) { return 1.0 / std::sqrt(static_cast<double>(fan)); }

/// `value`, the `what` of a layer, which is `least` or more.
int64_t at_least(int64_t least, const std::string& layer, const char* what, int64_t value) {
  if (value < least)
    throw UserError(
        {layer + ": " + what, "is out of range", std::to_string(value), ">= " + std::to_string(least)});
  return value;
}

/// `channels`, which `groups` divides.
int64_t in_groups(const std::string& layer, const char* what, int64_t channels, int64_t groups) {
  at_least(1, layer, "groups", groups);
  if (at_least(1, layer, what, channels) % groups != 0)
    throw UserError({layer + ": " + what, "do not fall into groups", std::to_string(channels),
                     "multiples of " + std::to_string(groups)});
  return channels;
}

/// x + bias along the last axis.
Value biased(Value y, const Tensor& bias) {
  return op::add(y, op::broadcast_in(bias.value(), y.dims(), {y.rank() - 1}));
}

/// y, computed from x and w, plus the bias where there is one.
Tensor with_bias(const Value& y, const Tensor& x, const Tensor& w, const Parameter& bias) {
  if (!bias) return Tensor::from(y, {x, w});
  const Tensor b = bias.tensor();
  return Tensor::from(biased(y, b), {x, w, b});
}

void each_of(Parameter& weight, Parameter& bias, const ParameterVisitor& visit, const std::string& prefix) {
  visit(join_path(prefix, "weight"), weight);
  if (bias) visit(join_path(prefix, "bias"), bias);
}

op::ConvAttrs conv_attrs(int axes, const ConvOptions& o, Dtype dtype) {
  const auto n = static_cast<size_t>(axes);
  op::ConvAttrs a = op::plain_conv(axes, dtype);
  a.stride.assign(n, o.stride);
  a.pad_low.assign(n, o.padding);
  a.pad_high.assign(n, o.padding);
  a.dilation.assign(n, o.dilation);
  a.groups = o.groups;
  return a;
}

void check_conv(const std::string& layer, int64_t in, int64_t out, int64_t kernel, const ConvOptions& o) {
  in_groups(layer, "in", in, o.groups);
  in_groups(layer, "out", out, o.groups);
  at_least(1, layer, "kernel", kernel);
  at_least(1, layer, "stride", o.stride);
  at_least(0, layer, "padding", o.padding);
  at_least(1, layer, "dilation", o.dilation);
}

std::vector<int64_t> filter_dims(int axes, int64_t filters, int64_t kernel, int64_t channels) {
  std::vector<int64_t> dims(static_cast<size_t>(axes) + 2, kernel);
  dims.front() = filters, dims.back() = channels;
  return dims;
}
/// The weight of these dims and a bias of `out`, drawn within the fan of one filter.
template <class Layer>
void draw_filters(Layer& layer, const std::vector<int64_t>& dims, int64_t out, Init& init) {
  const double limit = bound(ir::count(std::span<const int64_t>(dims).subspan(1)));
  layer.weight = Parameter(init.uniform(dims, limit));
  if (layer.options.bias) layer.bias = Parameter(init.uniform({out}, limit));
}

op::PoolAttrs pool_attrs(int64_t kernel, int64_t stride, int64_t padding) {
  const int64_t s = stride == 0 ? kernel : stride;
  return {.window = {kernel, kernel},
          .stride = {s, s},
          .pad_low = {padding, padding},
          .pad_high = {padding, padding},
          .count_pad = false,
          .spatial = {}};
}

}  // namespace

Linear::Linear(int64_t in, int64_t out, Init& init, bool with_bias)
    : weight(init.uniform({at_least(1, "Linear", "in", in), at_least(1, "Linear", "out", out)}, bound(in))) {
  if (with_bias) bias = Parameter(init.uniform({out}, bound(in)));
}
Tensor Linear::operator()(const Tensor& x) const {
  const Tensor w = weight.tensor();
  return with_bias(op::matmul(x.value(), w.value()), x, w, bias);
}
void Linear::each(const ParameterVisitor& visit, const std::string& prefix) {
  each_of(weight, bias, visit, prefix);
}

template <int Axes>
Conv<Axes>::Conv(int64_t in, int64_t out, int64_t kernel, ConvOptions o, Init& init) : options(o) {
  check_conv(fmt::format("Conv{}d", Axes), in, out, kernel, o);
  draw_filters(*this, filter_dims(Axes, out, kernel, in / o.groups), out, init);
}
template <int Axes>
Tensor Conv<Axes>::operator()(const Tensor& x) const {
  const Tensor w = weight.tensor();
  return with_bias(op::conv(x.value(), w.value(), conv_attrs(Axes, options, x.dtype())), x, w, bias);
}
template <int Axes>
void Conv<Axes>::each(const ParameterVisitor& visit, const std::string& prefix) {
  each_of(weight, bias, visit, prefix);
}
template struct Conv<1>;
template struct Conv<2>;
template struct Conv<3>;

template <int Axes>
ConvTranspose<Axes>::ConvTranspose(int64_t in, int64_t out, int64_t kernel, ConvOptions o, Init& init)
    : options(o) {
  check_conv(fmt::format("ConvTranspose{}d", Axes), in, out, kernel, o);
  draw_filters(*this, filter_dims(Axes, in, kernel, out / o.groups), out, init);
}
template <int Axes>
Tensor ConvTranspose<Axes>::operator()(const Tensor& x) const {
  const Tensor w = weight.tensor();
  op::ConvAttrs a = conv_attrs(Axes, options, x.dtype());
  if (x.rank() != Axes + 2)
    throw UserError({fmt::format("ConvTranspose{}d", Axes), "is for another rank", ir::dims_text(x.dims()),
                     fmt::format("rank {}: batch, {} spatial, channels", Axes + 2, Axes)});
  for (int axis = 1; axis <= Axes; ++axis) {
    if (!x.dim(axis).is_static())
      throw UserError({fmt::format("ConvTranspose{}d", Axes), "the size of a spatial axis is a symbol",
                       ir::dims_text(x.dims()), "numbers for all axes but the batch"});
    a.spatial.push_back((x.dim(axis).value() - 1) * options.stride - 2 * options.padding +
                        options.dilation * (w.dim(axis).value() - 1) + 1);
  }
  return with_bias(op::conv_data_grad(x.value(), w.value(), a), x, w, bias);
}
template <int Axes>
void ConvTranspose<Axes>::each(const ParameterVisitor& visit, const std::string& prefix) {
  each_of(weight, bias, visit, prefix);
}
template struct ConvTranspose<1>;
template struct ConvTranspose<2>;
template struct ConvTranspose<3>;

BatchNorm::BatchNorm(int64_t channels, double m, double e)
    : weight(filled(at_least(1, "BatchNorm", "channels", channels), 1)),
      bias(filled(channels, 0)),
      running_mean(filled(channels, 0), false),
      running_var(filled(channels, 1), false),
      momentum(m),
      eps(e) {}
Tensor BatchNorm::operator()(const Tensor& x, Mode mode) const {
  const Tensor w = weight.tensor(), b = bias.tensor(), mean = running_mean.tensor(),
               var = running_var.tensor();
  if (mode == Mode::eval)
    return Tensor::from(op::batch_norm(x.value(), w.value(), b.value(), mean.value(), var.value(), eps),
                        {x, w, b, mean, var});
  int64_t examples = 1;
  for (int64_t i = 0; i + 1 < x.rank(); ++i) examples *= x.dim(i).is_static() ? x.dim(i).value() : 2;
  if (examples == 1)
    throw UserError(
        {"batch norm in training mode", "one value per channel has no variance", ir::dims_text(x.dims()),
         "two values per channel or more: a larger batch or picture (drop_last of the loader, where only "
         "the last batch is one sample)"});
  const std::vector<Value> r = op::batch_norm_train(x.value(), w.value(), b.value(), eps);
  const std::vector<int64_t> folded = op::axes_without(x.rank(), {x.rank() - 1});
  const Value n = op::dim_size(x.value(), folded, Dtype::f32);  // n / (n - 1) makes the variance unbiased
  const Tensor count = Tensor::from(n, {x});
  running_mean.assign(mean * (1 - momentum) + Tensor::from(r[1], {x, w, b}) * momentum);
  running_var.assign(var * (1 - momentum) + Tensor::from(r[2], {x, w, b}) * (momentum * count / (count - 1)));
  return Tensor::from(r[0], {x, w, b});
}
void BatchNorm::each(const ParameterVisitor& visit, const std::string& prefix) {
  each_of(weight, bias, visit, prefix);
  visit(join_path(prefix, "running_mean"), running_mean);
  visit(join_path(prefix, "running_var"), running_var);
}

LayerNorm::LayerNorm(int64_t features, double e)
    : weight(filled(at_least(1, "LayerNorm", "features", features), 1)), bias(filled(features, 0)), eps(e) {}
Tensor LayerNorm::operator()(const Tensor& x) const {
  const Tensor w = weight.tensor(), b = bias.tensor();
  return Tensor::from(op::layer_norm(x.value(), w.value(), b.value(), eps), {x, w, b});
}
void LayerNorm::each(const ParameterVisitor& visit, const std::string& prefix) {
  each_of(weight, bias, visit, prefix);
}

GroupNorm::GroupNorm(int64_t g, int64_t channels, double e)
    : weight(filled(in_groups("GroupNorm", "channels", channels, g), 1)),
      bias(filled(channels, 0)),
      groups(g),
      eps(e) {}
Tensor GroupNorm::operator()(const Tensor& x) const {
  const Tensor w = weight.tensor(), b = bias.tensor();
  return Tensor::from(op::group_norm(x.value(), w.value(), b.value(), groups, eps), {x, w, b});
}
void GroupNorm::each(const ParameterVisitor& visit, const std::string& prefix) {
  each_of(weight, bias, visit, prefix);
}

Embedding::Embedding(int64_t count, int64_t features, Init& init)
    : weight(init.normal(
          {at_least(1, "Embedding", "count", count), at_least(1, "Embedding", "features", features)}, 1)) {}
Tensor Embedding::operator()(const Tensor& ids) const {
  const Tensor w = weight.tensor();
  return Tensor::from(op::embedding(w.value(), ids.value()), {w, ids});
}
void Embedding::each(const ParameterVisitor& visit, const std::string& prefix) {
  visit(join_path(prefix, "weight"), weight);
}

Dropout::Dropout(double r, Init& init) : Dropout(r, Generator(init.seed())) {}
Dropout::Dropout(double r, Generator g) : rate(r), generator(std::move(g)) {
  if (!(rate >= 0 && rate < 1))
    throw UserError({"dropout", "rate out of range", std::to_string(rate), "0 <= rate < 1"});
}
Tensor Dropout::operator()(const Tensor& x, Mode mode) const {
  if (mode == Mode::eval || rate == 0) return x;
  const Generator::Draw d = generator.draw();
  return Tensor::from(op::dropout(x.value(), d.key.value(), d.counter.value(), rate, d.stream),
                      {x, d.key, d.counter});
}
void Dropout::each(const ParameterVisitor& visit, const std::string& prefix) {
  generator.each(visit, prefix);
}

Tensor relu(const Tensor& x) { return x.relu(); }
Tensor gelu(const Tensor& x, bool tanh_form) { return Tensor::from(op::gelu(x.value(), tanh_form), {x}); }
Tensor silu(const Tensor& x) { return Tensor::from(op::silu(x.value()), {x}); }
Tensor sigmoid(const Tensor& x) { return x.sigmoid(); }
Tensor log_softmax(const Tensor& x, int64_t axis) {
  return Tensor::from(op::log_softmax(x.value(), axis < 0 ? axis + x.rank() : axis), {x});
}
Tensor max_pool2d(const Tensor& x, int64_t kernel, int64_t stride, int64_t padding) {
  return Tensor::from(op::max_pool(x.value(), pool_attrs(kernel, stride, padding))[0], {x});
}
Tensor avg_pool2d(const Tensor& x, int64_t kernel, int64_t stride, int64_t padding) {
  return Tensor::from(op::avg_pool(x.value(), pool_attrs(kernel, stride, padding)), {x});
}
Tensor global_avg_pool(const Tensor& x) {
  if (x.rank() < 2)
    throw UserError(
        {"global_avg_pool", "has no examples and channels", ir::dims_text(x.dims()), "[N, ..., C]"});
  return Tensor::from(op::reduce_mean(x.value(), op::axes_without(x.rank(), {0, x.rank() - 1})), {x});
}
Tensor resize2d(const Tensor& x, int64_t height, int64_t width, bool linear) {
  return Tensor::from(
      op::resize(x.value(), {.spatial = {height, width},
                             .mode = linear ? op::ResizeMode::linear : op::ResizeMode::nearest,
                             .align_corners = false}),
      {x});
}

}  // namespace espalier::nn
