// Three steps of training of whole networks, planned for a GPU and run by the simulator's kernels, beside the CPU: the same losses and
// the same parameters, but for the order of sums.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "nn/losses.h"
#include "nn/models.h"
#include "nn/optim.h"
#include "run/device_executor.h"
#include "target/cpu/cpu_target.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"
#include "tensor/compile.h"

namespace espalier {
namespace {

using target::cuda::sim::SimOptions;

/// A step of training as a graph, with what every input begins with.
struct Training {
  ir::Graph graph;
  std::vector<Array> inputs;         ///< of every input of the graph; states as they begin
  std::set<std::string> parameters;  ///< inputs that are the network's, not the optimiser's
};

Array data_of(const ir::Type& type, int64_t classes) {
  Array a(type.dtype, ir::static_dims(type.dims));
  for (int64_t i = 0; i < a.size(); ++i)
    a.set(i, classes ? static_cast<double>(i * 7 % classes) : static_cast<double>(i * 7919 % 1000) / 500 - 1);
  return a;
}

/// Momentum, not Adam: where a gradient is a rounding of zero, Adam's step is its sign.
template <class Net, class Loss>
Training training_of(Net& net, const ir::Type& x, const ir::Type& y, int64_t classes, const Loss& loss) {
  nn::Sgd optimiser(parameters_of(net), {.rate = 1e-2, .momentum = 0.9});
  const std::vector<ir::Type> arguments{x, y};
  const Trace t = trace(
      [&](const std::vector<Tensor>& in) {
        const Tensor value = loss(in[0], in[1]);
        optimiser.minimise(value);
        return std::vector<Tensor>{value};
      },
      arguments);
  Training out{t.graph, {}, {}};
  for (const Parameter& p : parameters_of(net))
    for (size_t i = 0; i < t.parameters.size(); ++i)
      if (t.parameters[i] == p) out.parameters.insert(t.inputs[i]);
  for (size_t i = 0; i < t.graph.inputs.size(); ++i) {
    const auto p = std::find(t.inputs.begin(), t.inputs.end(), t.graph.input_name(i));
    out.inputs.push_back(p == t.inputs.end()
                             ? data_of(arguments[i], i == 1 ? classes : 0)
                             : t.parameters[static_cast<size_t>(p - t.inputs.begin())].storage().copied());
  }
  return out;
}

struct Trained {
  std::vector<double> losses;
  std::map<std::string, Array> states;
};

constexpr int steps = 3;

std::shared_ptr<const run::Program> compiled(const Training& t, const target::Target& target) {
  run::CompileOptions options;
  options.target = &target;
  options.exact = true;  // no Winograd
  return run::Program::compile(t.graph, options);
}

size_t loss_of(const run::Program& p) {
  size_t o = 0;
  while (p.is_state_output(o)) ++o;
  return o;
}

Trained on_cpu(const Training& t) {
  run::Executor e(compiled(t, target::cpu::cpu_target()));
  Trained out;
  for (size_t i = 0; i < t.inputs.size(); ++i)
    std::memcpy(e.input(i), t.inputs[i].data(), static_cast<size_t>(t.inputs[i].bytes()));
  for (int s = 0; s < steps; ++s) {
    e.poison();
    e.run();
    out.losses.push_back(*static_cast<const float*>(e.output(loss_of(e.program()))));
  }
  for (const run::State& s : e.program().state()) {
    const ir::Type& type = e.program().inputs()[static_cast<size_t>(s.input)].type;
    Array& a = out.states[s.name] = Array(type.dtype, ir::static_dims(type.dims));
    std::memcpy(a.write(), e.state(s.name), static_cast<size_t>(type.bytes()));
  }
  return out;
}

Trained on_device(const Training& t, const SimOptions& options) {
  const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device(options);
  const auto program =
      std::make_shared<run::DeviceProgram>(compiled(t, *target::cuda::cuda_target(device)), device);
  if (!options.lt_missing.empty())
    for (const target::CallRecord& call : program->calls())
      EXPECT_TRUE(!std::holds_alternative<target::GemmCall>(call.work) &&
                  !std::holds_alternative<target::ConvCall>(call.work))
          << target::text(call);
  run::DeviceExecutor e(program);
  const run::Program& p = e.program();
  Trained out;
  for (size_t i = 0; i < t.inputs.size(); ++i)
    if (p.is_state_input(i)) e.write_state(p.inputs()[i].name, t.inputs[i].data());
  for (int s = 0; s < steps; ++s) {
    e.poison();
    for (size_t i = 0; i < t.inputs.size(); ++i)
      if (!p.is_state_input(i))
        std::memcpy(e.input(i), t.inputs[i].data(), static_cast<size_t>(t.inputs[i].bytes()));
    out.losses.push_back(*static_cast<const float*>(e.output(e.run(), loss_of(p))));
  }
  for (const run::State& s : p.state()) {
    const ir::Type& type = p.inputs()[static_cast<size_t>(s.input)].type;
    e.read_state(s.name, (out.states[s.name] = Array(type.dtype, ir::static_dims(type.dims))).write());
  }
  return out;
}

void expect_equal_training(const Training& t, const SimOptions& options = {}) {
  const Trained want = on_cpu(t), got = on_device(t, options);
  ASSERT_EQ(got.losses.size(), want.losses.size());
  for (size_t s = 0; s < want.losses.size(); ++s)
    EXPECT_NEAR(got.losses[s], want.losses[s], 1e-5 * std::max(1.0, std::fabs(want.losses[s])))
        << "step " << s;
  EXPECT_NE(want.losses.front(), want.losses.back()) << "nothing was learnt";
  ASSERT_EQ(got.states.size(), want.states.size());
  for (const auto& [name, b] : want.states) {
    if (!t.parameters.contains(name)) continue;
    const Array& a = got.states.at(name);
    const Array& before = t.inputs[*t.graph.find_input(name)];
    double largest = 1, learnt = 0, off = 0;
    for (int64_t i = 0; i < b.size(); ++i) {
      largest = std::max(largest, std::fabs(b.at(i)));
      learnt = std::max(learnt, std::fabs(b.at(i) - before.at(i)));
      off = std::max(off, std::isnan(a.at(i)) ? 1e30 : std::fabs(a.at(i) - b.at(i)));
    }
    EXPECT_LE(off, 1e-4 * largest) << name << " " << b.type().text();
    EXPECT_LE(off, 1e-2 * learnt + 1e-6)
        << name << " changed by at most " << learnt;  // gradients are right too
  }
}

Training mlp() {
  nn::Init init(1);
  nn::Mlp net({20, 32, 32, 5}, init);
  return training_of(net, {ir::Dtype::f32, {16, 20}}, {ir::Dtype::i64, {16}}, 5,
                     [&](const Tensor& x, const Tensor& y) { return nn::cross_entropy(net(x), y); });
}

Training resnet() {
  nn::Init init(2);
  nn::ResNet net({.classes = 10, .width = 8, .small_input = true}, init);
  return training_of(
      net, {ir::Dtype::f32, {2, 32, 32, 3}}, {ir::Dtype::i64, {2}}, 10,
      [&](const Tensor& x, const Tensor& y) { return nn::cross_entropy(net(x, nn::Mode::train), y); });
}

Training unet() {
  nn::Init init(3);
  nn::UNet net(1, 2, init, 8);
  return training_of(
      net, {ir::Dtype::f32, {2, 32, 32, 1}}, {ir::Dtype::f32, {2, 32, 32, 2}}, 2,
      [&](const Tensor& x, const Tensor& y) { return nn::bce_with_logits(net(x, nn::Mode::train), y); });
}

TEST(DeviceTraining, AnMlpsThreeStepsAreTheCpus) { expect_equal_training(mlp()); }
TEST(DeviceTraining, AResNetsThreeStepsAreTheCpusHeavy) { expect_equal_training(resnet()); }
TEST(DeviceTraining, AUNetsThreeStepsAreTheCpusHeavy) { expect_equal_training(unet()); }

/// By kernels of our own alone.
SimOptions without_libraries() {
  SimOptions options;
  options.lt_missing = options.dnn_missing = "it is not installed";
  return options;
}

TEST(DeviceTraining, WithoutLibrariesAnMlpsThreeStepsAreTheCpus) {
  expect_equal_training(mlp(), without_libraries());
}
TEST(DeviceTraining, WithoutLibrariesAResNetsThreeStepsAreTheCpusHeavy) {
  expect_equal_training(resnet(), without_libraries());
}
TEST(DeviceTraining, WithoutLibrariesAUNetsThreeStepsAreTheCpusHeavy) {
  expect_equal_training(unet(), without_libraries());
}

}  // namespace
}  // namespace espalier
