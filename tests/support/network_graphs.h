#pragma once
// Whole networks as graphs: a step of training (loss, gradients, an optimiser's update) and inference with frozen weights.
#include <set>
#include <string>
#include <vector>

#include "nn/losses.h"
#include "nn/models.h"
#include "nn/optim.h"
#include "tensor/compile.h"

namespace espalier::test {

/// One step of training; `parameters` are those of the network, the trace has the optimiser's as well.
struct TrainingStep {
  Trace trace;
  std::vector<Parameter> parameters;
};

/// `loss(x, y)` and its update by `optimiser`, as the graph's arguments 0 and 1.
template <class Net, class Optimiser, class Loss>
TrainingStep training_step(Net& net, Optimiser& optimiser, const ir::Type& x, const ir::Type& y,
                           const Loss& loss, const nn::MinimiseOptions& options = {}) {
  const std::vector<ir::Type> arguments{x, y};
  return {trace(
              [&](const std::vector<Tensor>& in) {
                const Tensor value = loss(in[0], in[1]);
                optimiser.minimise(value, options);
                return std::vector<Tensor>{value};
              },
              arguments),
          parameters_of(net)};
}

/// How large the three networks are.
struct NetworkSizes {
  std::vector<int64_t> mlp{784, 1024, 1024, 10};
  int64_t mlp_batch = 256;
  nn::ResNetOptions resnet{};
  int64_t resnet_batch = 32, resnet_side = 224;
  int64_t unet_width = 64, unet_batch = 16, unet_side = 256;
};
/// For texts: every kind of step that the large ones have.
inline NetworkSizes small_networks() {
  return {.mlp = {64, 96, 96, 10},
          .mlp_batch = 32,
          .resnet = {.classes = 10, .width = 16},
          .resnet_batch = 4,
          .resnet_side = 64,
          .unet_width = 16,
          .unet_batch = 2,
          .unet_side = 64};
}

enum class Optimisation : uint8_t { momentum, adam };

/// Makes `net` with the sizes' MLP, ResNet-18 and U-Net in turn: f(name, net, x, y, loss).
template <class F>
void each_network(const NetworkSizes& sizes, F&& f) {
  nn::Init init(1);
  {
    nn::Mlp net(sizes.mlp, init);
    f(
        "mlp", net, ir::Type{ir::Dtype::f32, {sizes.mlp_batch, sizes.mlp.front()}},
        ir::Type{ir::Dtype::i64, {sizes.mlp_batch}},
        [](const Tensor& l, const Tensor& t) { return nn::cross_entropy(l, t); },
        [&](const Tensor& x, nn::Mode) { return net(x); });
  }
  {
    nn::ResNet net(sizes.resnet, init);
    f(
        "resnet18", net,
        ir::Type{ir::Dtype::f32, {sizes.resnet_batch, sizes.resnet_side, sizes.resnet_side, 3}},
        ir::Type{ir::Dtype::i64, {sizes.resnet_batch}},
        [](const Tensor& l, const Tensor& t) { return nn::cross_entropy(l, t); },
        [&](const Tensor& x, nn::Mode mode) { return net(x, mode); });
  }
  {
    nn::UNet net(1, 2, init, sizes.unet_width);
    f(
        "unet", net, ir::Type{ir::Dtype::f32, {sizes.unet_batch, sizes.unet_side, sizes.unet_side, 1}},
        ir::Type{ir::Dtype::f32, {sizes.unet_batch, sizes.unet_side, sizes.unet_side, 2}},
        [](const Tensor& y, const Tensor& t) { return nn::bce_with_logits(y, t); },
        [&](const Tensor& x, nn::Mode mode) { return net(x, mode); });
  }
}

struct NetworkGraph {
  std::string name;  ///< "resnet18_train"
  ir::Graph graph;
};

/// Inference of a network whose parameters are constants, as a graph.
template <class Forward>
ir::Graph inference_graph(const ir::Type& x, const Forward& forward) {
  CompileOptions frozen;
  frozen.freeze = true;
  const std::vector<ir::Type> arguments{x};
  return trace(
             [&](const std::vector<Tensor>& in) {
               return std::vector<Tensor>{forward(in[0], nn::Mode::eval)};
             },
             arguments, frozen)
      .graph;
}

/// Training by momentum or Adam and, with the former, inference of `net` as graphs.
template <class Net, class Loss, class Forward>
void add_graphs(std::vector<NetworkGraph>& out, const std::string& name, Net& net, Optimisation how,
                const ir::Type& x, const ir::Type& y, const Loss& loss, const Forward& forward) {
  const auto step = [&](auto&& optimiser) {
    return training_step(net, optimiser, x, y,
                         [&](const Tensor& in, const Tensor& target) {
                           return loss(forward(in, nn::Mode::train), target);
                         })
        .trace.graph;
  };
  const std::vector<Parameter> parameters = parameters_of(net);
  if (how == Optimisation::adam) {
    out.push_back({name + "_adam", step(nn::Adam(parameters))});
    return;
  }
  out.push_back({name + "_train", step(nn::Sgd(parameters, {.rate = 0.1, .momentum = 0.9}))});
  out.push_back({name + "_infer", inference_graph(x, forward)});
}

/// Steps of training and inference of each network.
inline std::vector<NetworkGraph> network_graphs(const NetworkSizes& sizes, Optimisation how) {
  std::vector<NetworkGraph> out;
  each_network(sizes, [&](const char* name, auto& net, const ir::Type& x, const ir::Type& y, const auto& loss,
                          const auto& forward) { add_graphs(out, name, net, how, x, y, loss, forward); });
  return out;
}

/// The same of ResNet-50 (v1.5), for pictures of 224 by 224.
inline std::vector<NetworkGraph> resnet50_graphs(int64_t batch) {
  nn::Init init(1);
  nn::ResNet net = nn::resnet50(init);
  std::vector<NetworkGraph> out;
  add_graphs(
      out, "resnet50", net, Optimisation::momentum, {ir::Dtype::f32, {batch, 224, 224, 3}},
      {ir::Dtype::i64, {batch}}, [](const Tensor& l, const Tensor& t) { return nn::cross_entropy(l, t); },
      [&](const Tensor& x, nn::Mode mode) { return net(x, mode); });
  return out;
}

}  // namespace espalier::test
