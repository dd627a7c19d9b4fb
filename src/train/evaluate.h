#pragma once
// Values of a model over a dataset that it is not trained on: what a Trainer asks for after each epoch.
#include <functional>
#include <vector>

#include "data/loader.h"
#include "tensor/compile.h"

namespace espalier::train {

/// The loss function of a batch: its fields as tensors -> {loss, metrics...}, all scalars.
using LossFn = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;
/// Values of the model as it is now.
using EvaluateFn = std::function<std::vector<double>()>;

/// The results of a step's last run. UserError where one is no scalar.
std::vector<double> scalar_results(const Step& step);

/// `values` of every batch of one epoch of `loader`, which must outlive it: their means, weighted by the batches' samples. Each call goes
/// through the loader's first epoch, so that equal parameters give equal values, and leaves the loader where it was. `values` should ask layers for Mode::eval, and
/// must assign no parameter.
ESPALIER_API EvaluateFn mean_over(LossFn values, data::DataLoader& loader, CompileOptions options = {});

}  // namespace espalier::train
