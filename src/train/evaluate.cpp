#include "train/evaluate.h"

namespace espalier::train {

std::vector<double> scalar_results(const Step& step) {
  std::vector<double> values;
  for (size_t i = 0; i < step.results(); ++i) {
    const ir::Type type = step.result_type(i);
    if (type.elements() != 1)
      throw UserError({"trainer", "result " + std::to_string(i) + " of the loss function is no scalar",
                       type.text(), "f32[]"});
    values.push_back(ir::Array::borrow(type.dtype, {}, step.output(i), nullptr).at(0));
  }
  return values;
}

namespace {

/// Means over the epoch that `loader` stands at the begin of.
std::vector<double> means(Compiled& values, data::DataLoader& loader) {
  std::vector<double> sums;
  int64_t seen = 0;
  for (int64_t b = 0; b < loader.batches_per_epoch(); ++b) {
    const data::Batch batch = loader.next();
    std::vector<ir::Type> types;
    for (const ir::Array& a : batch.arrays) types.push_back(a.type());
    Step& step = values.step(types);
    for (size_t i = 0; i < batch.arrays.size(); ++i) step.set_input(i, batch.arrays[i]);
    step.run();
    const std::vector<double> now = scalar_results(step);
    sums.resize(now.size());
    for (size_t i = 0; i < now.size(); ++i) sums[i] += now[i] * static_cast<double>(batch.size);
    seen += batch.size;
  }
  for (double& s : sums) s /= static_cast<double>(seen);
  return sums;
}

}  // namespace

EvaluateFn mean_over(LossFn values, data::DataLoader& loader, CompileOptions options) {
  const auto compiled = std::make_shared<Compiled>(std::move(values), std::move(options));
  return [compiled, &loader] {
    const data::LoaderState before = loader.state();
    data::LoaderState begin = before;
    begin.epoch = begin.batch = 0;
    loader.restore(begin);
    try {
      std::vector<double> out = means(*compiled, loader);
      loader.restore(before);
      return out;
    } catch (...) {
      loader.restore(before);
      throw;
    }
  };
}

}  // namespace espalier::train
