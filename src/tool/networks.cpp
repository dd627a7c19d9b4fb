#include "tool/networks.h"

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "nn/losses.h"
#include "nn/models.h"

namespace espalier::tool {

namespace {

enum class Loss : uint8_t { cross_entropy, bce, mse };

/// How a network is made and measured.
struct Recipe {
  const char* name;
  std::vector<int64_t> input;   ///< without the batch
  std::vector<int64_t> target;  ///< of real-valued targets
  int64_t classes;
  Loss loss;
  bool adam;
  void (*build)(Network&, nn::Init&);
};

/// Move `layer` into the network's forward function and name its parameters.
template <class Layer, class F>
void hold(Network& net, Layer layer, F&& call) {
  auto shared = std::make_shared<Layer>(std::move(layer));
  net.parameters = parameters_of(*shared);
  net.forward = [shared, call](const Tensor& x, nn::Mode mode) { return call(*shared, x, mode); };
}

constexpr auto plain = [](const auto& layer, const Tensor& x, nn::Mode) { return layer(x); };
constexpr auto with_mode = [](const auto& layer, const Tensor& x, nn::Mode mode) { return layer(x, mode); };

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all{
      {"linear",
       {10},
       {1},
       0,
       Loss::mse,
       false,
       [](Network& n, nn::Init& i) { hold(n, nn::Linear(10, 1, i), plain); }},
      {"mlp-fraud",
       {30},
       {1},
       0,
       Loss::bce,
       true,
       [](Network& n, nn::Init& i) {
         hold(n, nn::Mlp({30, 128, 64, 1}, i), plain);
       }},
      {"mlp",
       {784},
       {},
       10,
       Loss::cross_entropy,
       true,
       [](Network& n, nn::Init& i) {
         hold(n, nn::Mlp({784, 512, 512, 10}, i), plain);
       }},
      {"lenet",
       {28, 28, 1},
       {},
       10,
       Loss::cross_entropy,
       true,
       [](Network& n, nn::Init& i) { hold(n, nn::LeNet(i), plain); }},
      {"resnet18",
       {224, 224, 3},
       {},
       1000,
       Loss::cross_entropy,
       false,
       [](Network& n, nn::Init& i) { hold(n, nn::resnet18(i), with_mode); }},
      {"resnet50",
       {224, 224, 3},
       {},
       1000,
       Loss::cross_entropy,
       false,
       [](Network& n, nn::Init& i) { hold(n, nn::resnet50(i), with_mode); }},
      {"resnet18-cifar",
       {32, 32, 3},
       {},
       10,
       Loss::cross_entropy,
       false,
       [](Network& n, nn::Init& i) {
         nn::ResNetOptions o;
         o.classes = 10;
         o.small_input = true;
         hold(n, nn::ResNet(o, i), with_mode);
       }},
      {"unet-r18",
       {128, 128, 3},
       {128, 128, 1},
       0,
       Loss::bce,
       true,
       [](Network& n, nn::Init& i) { hold(n, nn::UNet(3, 1, i), with_mode); }},
  };
  return all;
}

ir::Type batched(int64_t batch, const std::vector<int64_t>& dims, Dtype dtype) {
  ir::Dims d{ir::Dim(batch)};
  d.insert(d.end(), dims.begin(), dims.end());
  return {dtype, d};
}

}  // namespace

std::vector<std::string> network_names() {
  std::vector<std::string> names;
  for (const Recipe& r : recipes()) names.emplace_back(r.name);
  return names;
}

Network make_network(const std::string& name, int64_t batch, uint64_t seed) {
  if (batch < 1) throw UserError({"--batch", "out of range", std::to_string(batch), ">= 1"});
  for (const Recipe& r : recipes()) {
    if (name != r.name) continue;
    nn::Init init(seed);
    Network net;
    net.name = name;
    r.build(net, init);
    net.input = batched(batch, r.input, Dtype::f32);
    net.target = r.classes ? batched(batch, {}, Dtype::i64) : batched(batch, r.target, Dtype::f32);
    net.classes = r.classes;
    net.binary = r.loss == Loss::bce;
    net.loss = r.loss == Loss::mse ? nn::mse : r.loss == Loss::bce ? nn::bce_with_logits : nn::cross_entropy;
    if (r.adam) net.optimiser = std::make_unique<nn::Adam>(net.parameters);
    else
      net.optimiser =
          std::make_unique<nn::Sgd>(net.parameters, nn::SgdOptions{.rate = 1e-2, .momentum = 0.9});
    return net;
  }
  throw UserError({"--net", "unknown network", name, join(network_names(), " ")});
}

ir::Array random_data(const ir::Type& type, int64_t classes, bool binary, uint64_t seed) {
  nn::Init init(seed);
  const std::vector<int64_t> dims = ir::static_dims(type.dims);
  if (ir::is_float(type.dtype) && !binary) return init.normal(dims, 1).cast(type.dtype);
  const ir::Array uniform = init.uniform(dims, 0.5);  // in [-0.5, 0.5)
  ir::Array out(type.dtype, dims);
  const double range = binary ? 2 : static_cast<double>(std::max<int64_t>(1, classes));
  for (int64_t i = 0; i < out.size(); ++i)
    out.set(i, std::min(range - 1, std::floor((uniform.at(i) + 0.5) * range)));
  return out;
}

}  // namespace espalier::tool
