#include "nn/models.h"

namespace espalier::nn {

Mlp::Mlp(const std::vector<int64_t>& sizes, Init& init) {
  for (size_t i = 0; i + 1 < sizes.size(); ++i) layers.emplace_back(sizes[i], sizes[i + 1], init);
}
Tensor Mlp::operator()(const Tensor& x) const {
  Tensor y = x;
  for (size_t i = 0; i < layers.size(); ++i) {
    y = layers[i](y);
    if (i + 1 < layers.size()) y = relu(y);
  }
  return y;
}
void Mlp::each(const ParameterVisitor& visit, const std::string& prefix) {
  for (size_t i = 0; i < layers.size(); ++i)
    layers[i].each(visit, join_path(prefix, "layer" + std::to_string(i + 1)));
}

LeNet::LeNet(Init& init)
    : conv1(1, 6, 5, {.padding = 2}, init),
      conv2(6, 16, 5, {}, init),
      fc1(400, 120, init),
      fc2(120, 84, init),
      fc3(84, 10, init) {}
Tensor LeNet::operator()(const Tensor& x) const {
  Tensor y = max_pool2d(relu(conv1(x)), 2);
  y = max_pool2d(relu(conv2(y)), 2);
  return fc3(relu(fc2(relu(fc1(y.flatten())))));
}
void LeNet::each(const ParameterVisitor& visit, const std::string& prefix) {
  conv1.each(visit, join_path(prefix, "conv1"));
  conv2.each(visit, join_path(prefix, "conv2"));
  fc1.each(visit, join_path(prefix, "fc1"));
  fc2.each(visit, join_path(prefix, "fc2"));
  fc3.each(visit, join_path(prefix, "fc3"));
}

ConvNorm::ConvNorm(int64_t in, int64_t out, int64_t kernel, int64_t stride, bool act, Init& init,
                   bool he_init)
    : conv(in, out, kernel, {.stride = stride, .padding = kernel / 2, .bias = false}, init),
      norm(out),
      activate(act) {
  if (he_init) conv.weight = Parameter(init.he_normal({out, kernel, kernel, in}, out * kernel * kernel));
}
Tensor ConvNorm::operator()(const Tensor& x, Mode mode) const {
  const Tensor y = norm(conv(x), mode);
  return activate ? relu(y) : y;
}
void ConvNorm::each(const ParameterVisitor& visit, const std::string& conv_path,
                    const std::string& norm_path) {
  conv.each(visit, conv_path);
  norm.each(visit, norm_path);
}

ResidualBlock::ResidualBlock(int64_t in, int64_t width, int64_t stride, bool bottleneck, Init& init) {
  const int64_t out = bottleneck ? 4 * width : width;
  if (bottleneck) {
    body.emplace_back(in, width, 1, 1, true, init);
    body.emplace_back(width, width, 3, stride, true, init);
    body.emplace_back(width, out, 1, 1, false, init);
  } else {
    body.emplace_back(in, out, 3, stride, true, init);
    body.emplace_back(out, out, 3, 1, false, init);
  }
  if (stride != 1 || in != out) shortcut.emplace(in, out, 1, stride, false, init);
}
int64_t ResidualBlock::out_channels() const { return body.back().conv.weight.dims()[0]; }
Tensor ResidualBlock::operator()(const Tensor& x, Mode mode) const {
  Tensor y = x;
  for (const ConvNorm& c : body) y = c(y, mode);
  return relu(y + (shortcut ? (*shortcut)(x, mode) : x));
}
void ResidualBlock::each(const ParameterVisitor& visit, const std::string& prefix) {
  for (size_t i = 0; i < body.size(); ++i)
    body[i].each(visit, join_path(prefix, "conv" + std::to_string(i + 1)),
                 join_path(prefix, "bn" + std::to_string(i + 1)));
  if (shortcut) shortcut->each(visit, join_path(prefix, "downsample.0"), join_path(prefix, "downsample.1"));
}

ResNet::ResNet(const ResNetOptions& o, Init& init)
    : options(o), stem(o.in_channels, o.width, o.small_input ? 3 : 7, o.small_input ? 1 : 2, true, init) {
  int64_t channels = o.width;
  for (size_t s = 0; s < o.blocks.size(); ++s) {
    std::vector<ResidualBlock> stage;
    for (int64_t b = 0; b < o.blocks[s]; ++b) {
      stage.emplace_back(channels, o.width << s, s > 0 && b == 0 ? 2 : 1, o.bottleneck, init);
      channels = stage.back().out_channels();
    }
    stages.push_back(std::move(stage));
  }
  head = Linear(channels, o.classes, init);
}
std::vector<Tensor> ResNet::features(const Tensor& x, Mode mode) const {
  std::vector<Tensor> out{stem(x, mode)};
  Tensor y = options.small_input ? out[0] : max_pool2d(out[0], 3, 2, 1);
  for (const auto& stage : stages) {
    for (const ResidualBlock& b : stage) y = b(y, mode);
    out.push_back(y);
  }
  return out;
}
Tensor ResNet::operator()(const Tensor& x, Mode mode) const {
  return head(global_avg_pool(features(x, mode).back()));
}
void ResNet::each(const ParameterVisitor& visit, const std::string& prefix) {
  stem.each(visit, join_path(prefix, "conv1"), join_path(prefix, "bn1"));
  for (size_t s = 0; s < stages.size(); ++s)
    for (size_t b = 0; b < stages[s].size(); ++b)
      stages[s][b].each(visit, join_path(prefix, "layer" + std::to_string(s + 1) + "." + std::to_string(b)));
  if (head.weight) head.each(visit, join_path(prefix, "fc"));
}

void ResNet::set_norm_momentum(double momentum) {
  stem.norm.momentum = momentum;
  for (auto& stage : stages)
    for (ResidualBlock& block : stage) {
      for (ConvNorm& c : block.body) c.norm.momentum = momentum;
      if (block.shortcut) block.shortcut->norm.momentum = momentum;
    }
}

ResNet resnet18(Init& init, int64_t classes, int64_t in_channels) {
  return ResNet({.in_channels = in_channels, .classes = classes}, init);
}
ResNet resnet50(Init& init, int64_t classes, int64_t in_channels) {
  return ResNet({.blocks = {3, 4, 6, 3}, .bottleneck = true, .in_channels = in_channels, .classes = classes},
                init);
}

UNet::Up::Up(int64_t in, int64_t skip, int64_t out, Init& init)
    : up(in, out, 2, {.stride = 2}, init),
      first(out + skip, out, 3, 1, true, init, false),
      second(out, out, 3, 1, true, init, false) {}
Tensor UNet::Up::operator()(const Tensor& x, const Tensor& skip, Mode mode) const {
  Tensor y = up(x);
  if (skip.defined()) y = concat(std::vector<Tensor>{y, skip}, 3);
  return second(first(y, mode), mode);
}
void UNet::Up::each(const ParameterVisitor& visit, const std::string& prefix) {
  up.each(visit, join_path(prefix, "up"));
  first.each(visit, join_path(prefix, "body.0"), join_path(prefix, "body.1"));
  second.each(visit, join_path(prefix, "body.3"), join_path(prefix, "body.4"));
}

UNet::UNet(int64_t in_channels, int64_t classes, Init& init, int64_t width)
    : encoder({.in_channels = in_channels, .width = width}, init) {
  encoder.head = {};
  const int64_t w = width;
  decoder.emplace_back(8 * w, 4 * w, 4 * w, init);
  decoder.emplace_back(4 * w, 2 * w, 2 * w, init);
  decoder.emplace_back(2 * w, w, w, init);
  decoder.emplace_back(w, w, w, init);
  decoder.emplace_back(w, 0, w / 2, init);
  head = Conv2d(w / 2, classes, 1, {}, init);
}
Tensor UNet::operator()(const Tensor& x, Mode mode) const {
  for (const int axis : {1, 2})
    if (x.dim(axis).is_static() && x.dim(axis).value() % 32 != 0)
      throw UserError(
          {"UNet", "picture size does not fit", ir::dims_text(x.dims()), "height and width multiples of 32"});
  const std::vector<Tensor> f = encoder.features(x, mode);
  Tensor y = f[4];
  for (size_t i = 0; i < decoder.size(); ++i) y = decoder[i](y, i < 4 ? f[3 - i] : Tensor(), mode);
  return head(y);
}
void UNet::set_norm_momentum(double momentum) {
  encoder.set_norm_momentum(momentum);
  for (Up& up : decoder) up.first.norm.momentum = up.second.norm.momentum = momentum;
}
void UNet::each(const ParameterVisitor& visit, const std::string& prefix) {
  encoder.each(visit, join_path(prefix, "encoder"));
  for (size_t i = 0; i < decoder.size(); ++i)
    decoder[i].each(visit, join_path(prefix, "up" + std::to_string(4 - i)));
  head.each(visit, join_path(prefix, "head"));
}

}  // namespace espalier::nn
