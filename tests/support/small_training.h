#pragma once
// A small training that needs all a checkpoint holds: running statistics, dropout, moments, shuffling, random samples, a
// schedule, callbacks with state.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "nn/layers.h"
#include "nn/losses.h"
#include "train/callbacks.h"

namespace espalier::test {

inline std::string file_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// Calls a function after a given step.
struct AtStep : train::Callback {
  AtStep(int64_t step, std::function<void()> then) : step(step), then(std::move(then)) {}
  void on_step(const train::Progress& p) override {
    if (p.step == step) then();
  }
  int64_t step;
  std::function<void()> then;
};

/// Two layers with batch norm and dropout between, 40 noisy samples in batches of 8: 5 steps an epoch.
class SmallTraining {
 public:
  static constexpr int64_t epochs = 4, steps = 20;

  explicit SmallTraining(train::TrainerOptions options = {})
      : first_(6, 8, init_),
        second_(8, 2, init_),
        norm_(8),
        dropout_(0.25, Generator(5)),
        cells_(collect()),
        adam_(cells_, {.rate = 0.05}),
        loader_(samples(), {.batch_size = 8, .shuffle = true, .seed = 9}),
        trainer_([this](const std::vector<Tensor>& b) { return loss(b); }, cells_, adam_, loader_,
                 complete(std::move(options))) {}

  train::Trainer& trainer() { return trainer_; }
  train::Ending fit() { return trainer_.fit(); }

  /// The bits of every cell of the model and the optimiser.
  std::string bits() {
    std::string all;
    const auto add = [&](const std::string&, Parameter& p) {
      all.append(static_cast<const char*>(p.storage().data()), static_cast<size_t>(p.storage().bytes()));
    };
    for (Parameter& p : cells_) add("", p);
    adam_.each_state(add);
    return all;
  }
  const std::vector<Parameter>& cells() const { return cells_; }

 private:
  std::vector<Tensor> loss(const std::vector<Tensor>& batch) {
    const Tensor hidden = dropout_(nn::relu(norm_(first_(batch[0]), nn::Mode::train)), nn::Mode::train);
    const Tensor value = nn::cross_entropy(second_(hidden), batch[1]);
    return {value};
  }
  std::vector<Parameter> collect() {
    std::vector<Parameter> all;
    const auto add = [&](const std::string& path, Parameter& p) {
      p.set_name(path);
      all.push_back(p);
    };
    first_.each(add, "first");
    norm_.each(add, "norm");
    second_.each(add, "second");
    dropout_.each(add, "dropout");
    return all;
  }
  static std::shared_ptr<data::Dataset> samples() {
    const auto plain = std::make_shared<data::FakeData>(
        40, std::vector<data::FakeField>{{"x", {Dtype::f32, {6}}, -1, 1}, {"label", {Dtype::i32, {}}, 0, 1}});
    return std::make_shared<data::Mapped>(plain, [](data::Sample s, data::Rng& rng) {
      for (int64_t i = 0; i < s[0].value.size(); ++i) s[0].value.write<float>()[i] += 0.1f * rng.normal();
      return s;
    });
  }
  static train::TrainerOptions complete(train::TrainerOptions o) {
    o.epochs = epochs;
    o.rate = nn::cosine_rate(0.05, steps, 2);
    o.argument_ranges = {{1, {0, 2}}};
    return o;
  }

  nn::Init init_{3};
  nn::Linear first_, second_;
  nn::BatchNorm norm_;
  nn::Dropout dropout_;
  std::vector<Parameter> cells_;
  nn::Adam adam_;
  data::DataLoader loader_;
  train::Trainer trainer_;
};

}  // namespace espalier::test
