#pragma once
// Steps of training of whole networks as graphs, small enough for any target: what a GPU's steps are held against the CPU's with.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/text.h"
#include "run/device_executor.h"
#include "support/network_graphs.h"
#include "target/cpu/cpu_target.h"
#include "target/cuda/cuda_target.h"
#include "target/reference/reference_target.h"

namespace espalier::test {

/// A step of training as a graph, with what every input begins with.
struct Training {
  ir::Graph graph;
  std::vector<Array> inputs;         ///< of every input of the graph; states as they begin
  std::set<std::string> parameters;  ///< inputs that are the network's, not the optimiser's
};

inline Array data_of(const ir::Type& type, int64_t classes) {
  Array a(type.dtype, ir::static_dims(type.dims));
  for (int64_t i = 0; i < a.size(); ++i)
    a.set(i, classes ? static_cast<double>(i * 7 % classes) : static_cast<double>(i * 7919 % 1000) / 500 - 1);
  return a;
}

/// Momentum, not Adam: where a gradient is a rounding of zero, Adam's step is its sign.
template <class Net, class Loss>
Training training_of(Net& net, const ir::Type& x, const ir::Type& y, int64_t classes, const Loss& loss) {
  nn::Sgd optimiser(parameters_of(net), {.rate = 1e-2, .momentum = 0.9});
  const TrainingStep step = training_step(net, optimiser, x, y, loss);
  const Trace& t = step.trace;
  Training out{t.graph, {}, {}};
  for (const Parameter& p : step.parameters)
    for (size_t i = 0; i < t.parameters.size(); ++i)
      if (t.parameters[i] == p) out.parameters.insert(t.inputs[i]);
  for (size_t i = 0; i < t.graph.inputs.size(); ++i) {
    const auto p = std::find(t.inputs.begin(), t.inputs.end(), t.graph.input_name(i));
    out.inputs.push_back(p == t.inputs.end()
                             ? data_of(i == 1 ? y : x, i == 1 ? classes : 0)
                             : t.parameters[static_cast<size_t>(p - t.inputs.begin())].storage().copied());
  }
  return out;
}

inline Training mlp_training() {
  nn::Init init(1);
  nn::Mlp net({20, 32, 32, 5}, init);
  return training_of(net, {ir::Dtype::f32, {16, 20}}, {ir::Dtype::i64, {16}}, 5,
                     [&](const Tensor& x, const Tensor& y) { return nn::cross_entropy(net(x), y); });
}

inline Training resnet_training() {
  nn::Init init(2);
  nn::ResNet net({.classes = 10, .width = 8, .small_input = true}, init);
  return training_of(
      net, {ir::Dtype::f32, {2, 32, 32, 3}}, {ir::Dtype::i64, {2}}, 10,
      [&](const Tensor& x, const Tensor& y) { return nn::cross_entropy(net(x, nn::Mode::train), y); });
}

inline Training unet_training() {
  nn::Init init(3);
  nn::UNet net(1, 2, init, 8);
  return training_of(
      net, {ir::Dtype::f32, {2, 32, 32, 1}}, {ir::Dtype::f32, {2, 32, 32, 2}}, 2,
      [&](const Tensor& x, const Tensor& y) { return nn::bce_with_logits(net(x, nn::Mode::train), y); });
}

/// A U-Net of a single block and two steps up: layers of the kinds that nn::UNet has.
struct SmallUNet {
  explicit SmallUNet(nn::Init& init)
      : encoder({.blocks = {1}, .in_channels = 1, .width = width}, init), head(width / 2, 2, 1, {}, init) {
    encoder.head = {};
    decoder.emplace_back(width, width, width, init);
    decoder.emplace_back(width, 0, width / 2, init);
  }
  Tensor operator()(const Tensor& x, nn::Mode mode) const {
    const std::vector<Tensor> f = encoder.features(x, mode);
    const Tensor skips[] = {f[0], {}};
    Tensor y = f[1];
    for (size_t i = 0; i < decoder.size(); ++i) y = decoder[i](y, skips[i], mode);
    return head(y);
  }
  void each(const ParameterVisitor& visit, const std::string& prefix = "") {
    encoder.each(visit, join_path(prefix, "encoder"));
    for (size_t i = 0; i < decoder.size(); ++i)
      decoder[i].each(visit, join_path(prefix, "up" + std::to_string(i)));
    head.each(visit, join_path(prefix, "head"));
  }

  static constexpr int64_t width = 4;
  nn::ResNet encoder;
  std::vector<nn::UNet::Up> decoder;
  nn::Conv2d head;
};

/// The networks above with fewer, narrower layers of the same kinds: for the sanitizers.
inline Training small_resnet_training() {
  nn::Init init(2);
  nn::ResNet net({.blocks = {1, 1}, .classes = 5, .width = 4, .small_input = true}, init);
  return training_of(
      net, {ir::Dtype::f32, {2, 8, 8, 3}}, {ir::Dtype::i64, {2}}, 5,
      [&](const Tensor& x, const Tensor& y) { return nn::cross_entropy(net(x, nn::Mode::train), y); });
}

inline Training small_unet_training() {
  nn::Init init(3);
  SmallUNet net(init);
  return training_of(
      net, {ir::Dtype::f32, {2, 8, 8, 1}}, {ir::Dtype::f32, {2, 8, 8, 2}}, 2,
      [&](const Tensor& x, const Tensor& y) { return nn::bce_with_logits(net(x, nn::Mode::train), y); });
}

struct Trained {
  std::vector<double> losses;
  std::map<std::string, Array> states;
};

/// The step as it is compiled where nothing is asked for.
inline std::shared_ptr<const run::Program> default_step(const Training& t, const target::Target& target) {
  run::CompileOptions options;
  options.target = &target;
  return run::Program::compile(t.graph, options);
}

inline std::shared_ptr<const run::Program> compiled_step(const Training& t, const target::Target& target,
                                                         pass::Precision precision = pass::Precision::f32,
                                                         run::CompileOptions options = {}) {
  options.target = &target;
  options.precision = precision;
  options.exact = precision == pass::Precision::f32;  // no Winograd
  return run::Program::compile(t.graph, options);
}

/// The output that is no state.
inline size_t loss_of(const run::Program& p) {
  size_t o = 0;
  while (p.is_state_output(o)) ++o;
  return o;
}

/// The step, compiled for the host, run so often over memory that is poisoned before each.
inline Trained train_on_host(const Training& t, std::shared_ptr<const run::Program> step, int steps) {
  run::Executor e(std::move(step));
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

inline Trained train_by_reference(const Training& t, int steps) {
  return train_on_host(t, compiled_step(t, target::reference::reference_target()), steps);
}

inline Trained train_on_cpu(const Training& t, int steps) {
  const auto step = [&] {
    try {
      return compiled_step(t, target::cpu::cpu_target());
    } catch (const UserError&) {  // no LLVM on this machine, as where a GPU is checked
      return compiled_step(t, target::reference::reference_target());
    }
  };
  return train_on_host(t, step(), steps);
}

/// `e` runs the step of `t`, so many of them under way at once; each that finds none under way is over memory that is poisoned.
inline Trained train_on_device(const Training& t, run::DeviceExecutor& e, int steps, size_t under_way = 1) {
  const run::Program& p = e.program();
  Trained out;
  for (size_t i = 0; i < t.inputs.size(); ++i)
    if (p.is_state_input(i)) e.write_state(p.inputs()[i].name, t.inputs[i].data());
  std::deque<run::Ticket> begun;
  const auto end = [&] {
    e.wait(begun.front());
    out.losses.push_back(*static_cast<const float*>(e.output(begun.front(), loss_of(p))));
    begun.pop_front();
  };
  for (int s = 0; s < steps; ++s) {
    if (begun.empty()) e.poison();
    for (size_t i = 0; i < t.inputs.size(); ++i)
      if (!p.is_state_input(i))
        std::memcpy(e.input(i), t.inputs[i].data(), static_cast<size_t>(t.inputs[i].bytes()));
    begun.push_back(e.submit());
    if (begun.size() == under_way) end();
  }
  while (!begun.empty()) end();
  for (const run::State& s : p.state()) {
    const ir::Type& type = p.inputs()[static_cast<size_t>(s.input)].type;
    e.read_state(s.name, (out.states[s.name] = Array(type.dtype, ir::static_dims(type.dims))).write());
  }
  return out;
}

/// Where the losses are not within `loss` of one another, or a parameter not within `parameter` of its largest element (of 1 where it began as
/// zeros and is what was learnt alone); gradients are held to what was learnt: to a hundredth and 1e-2 * `parameter`, and to a
/// twentieth and a rounding. In words; "" where all is well.
inline std::string difference(const Training& t, const Trained& got, const Trained& want, double loss,
                              double parameter) {
  std::string all;
  for (size_t s = 0; s < want.losses.size(); ++s)
    if (!(std::fabs(got.losses.at(s) - want.losses[s]) <= loss * std::max(1.0, std::fabs(want.losses[s]))))
      all += "the loss of step " + std::to_string(s) + " is " + number_text(got.losses[s]) + ", not " +
             number_text(want.losses[s]) + "\n";
  if (want.losses.front() == want.losses.back()) all += "nothing was learnt\n";
  for (const auto& [name, b] : want.states) {
    if (!t.parameters.contains(name)) continue;
    const Array& a = got.states.at(name);
    const Array& before = t.inputs[*t.graph.find_input(name)];
    double began = 0, largest = 0, learnt = 0, off = 0;
    for (int64_t i = 0; i < b.size(); ++i) {
      began = std::max(began, std::fabs(before.at(i)));
      largest = std::max(largest, std::fabs(b.at(i)));
      learnt = std::max(learnt, std::fabs(b.at(i) - before.at(i)));
      off = std::max(off, std::isnan(a.at(i)) ? 1e30 : std::fabs(a.at(i) - b.at(i)));
    }
    const double size = began > 0 ? largest : std::max(1.0, largest),
                 of_learnt = std::min(1e-2 * learnt + 1e-2 * parameter, 5e-2 * learnt + 0x1p-22 * largest);
    if (off > parameter * size || off > of_learnt)
      all += name + " " + b.type().text() + " is off by " + number_text(off) +
             ", having changed by at most " + number_text(learnt) + "\n";
  }
  return all;
}

}  // namespace espalier::test
