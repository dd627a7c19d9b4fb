#pragma once
// Networks the tool builds by name, as the peers' benchmark names them, with the inputs and losses they are measured on.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nn/layers.h"
#include "nn/optim.h"

namespace espalier::tool {

/// A network with random weights of one seed.
struct Network {
  std::string name;
  std::vector<Parameter> parameters;
  std::function<Tensor(const Tensor&, nn::Mode)> forward;
  ir::Type input, target;  ///< of the training step, for the batch it was made for
  int64_t classes = 0;     ///< labels in [0, classes), or 0 for real targets
  bool binary = false;     ///< targets are 0 or 1
  std::function<Tensor(const Tensor&, const Tensor&)> loss;
  std::unique_ptr<nn::Optimiser> optimiser;
};

/// The names, for help and errors.
std::vector<std::string> network_names();
/// Build one; UserError lists the names.
Network make_network(const std::string& name, int64_t batch, uint64_t seed = 0);
/// Random data of a type: normal floats, or 0 and 1 where `binary`; integers below `classes`.
ir::Array random_data(const ir::Type& type, int64_t classes, bool binary, uint64_t seed);

}  // namespace espalier::tool
