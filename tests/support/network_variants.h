#pragma once
// More steps of training of the networks of network_graphs.h: by any optimiser, and in f16 as the Trainer has it, with a scale of the loss
// that finds its size on the way.
#include <functional>
#include <memory>

#include "support/network_graphs.h"

namespace espalier::test {

using MakeOptimiser = std::function<std::unique_ptr<nn::Optimiser>(std::vector<Parameter>)>;

inline std::unique_ptr<nn::Optimiser> make_momentum(std::vector<Parameter> parameters) {
  return std::make_unique<nn::Sgd>(std::move(parameters), nn::SgdOptions{.rate = 0.1, .momentum = 0.9});
}
inline std::unique_ptr<nn::Optimiser> make_adam(std::vector<Parameter> parameters) {
  return std::make_unique<nn::Adam>(std::move(parameters));
}
inline std::unique_ptr<nn::Optimiser> make_adamw(std::vector<Parameter> parameters) {
  return nn::adamw(std::move(parameters));
}

/// A step of each network. `scaled`: with a scale of the loss, which and whose count of skipped steps come out behind the loss.
inline std::vector<NetworkGraph> training_graphs(const NetworkSizes& sizes, const std::string& optimiser_name,
                                                 const MakeOptimiser& make, bool scaled) {
  std::vector<NetworkGraph> out;
  each_network(sizes, [&](const char* name, auto& net, const ir::Type& x, const ir::Type& y, const auto& loss,
                          const auto& forward) {
    const std::unique_ptr<nn::Optimiser> optimiser = make(parameters_of(net));
    const nn::LossScale scale;
    const std::vector<ir::Type> arguments{x, y};
    const Trace made = trace(
        [&](const std::vector<Tensor>& in) {
          const Tensor value = loss(forward(in[0], nn::Mode::train), in[1]), used = scale.tensor();
          optimiser->minimise(value, {.loss_scale = scaled ? &scale : nullptr});
          return scaled ? std::vector<Tensor>{value, used, scale.count()} : std::vector<Tensor>{value};
        },
        arguments);
    out.push_back({std::string(name) + "_" + optimiser_name + (scaled ? "_scaled" : ""), made.graph});
  });
  return out;
}

}  // namespace espalier::test
