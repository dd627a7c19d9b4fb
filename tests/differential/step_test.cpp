// Whole training steps through the program and the executor: exact memory, the same bits whatever lay in memory before and
// however many threads run them.
#include <gtest/gtest.h>

#include <cstring>

#include "base/threads.h"
#include "nn/losses.h"
#include "nn/models.h"
#include "nn/optim.h"
#include "run/executor.h"
#include "run/targets.h"
#include "tensor/compile.h"

namespace espalier {
namespace {

/// A small network with everything a step has: convolutions, batch norm, a residual, pooling, a softmax loss and Adam.
struct SmallNet {
  nn::ResNet net;
  nn::Adam adam;
  Compiled step;

  static nn::ResNet make_net(uint64_t seed) {
    nn::Init init(seed);
    nn::ResNetOptions options;
    options.blocks = {1, 1};
    options.classes = 5;
    options.width = 16;
    return nn::ResNet(options, init);
  }

  explicit SmallNet(const std::string& precision)
      : net(make_net(3)),
        adam(parameters_of(net), {.rate = 1e-2}),
        step(compile(
            [this](const std::vector<Tensor>& in) {
              const Tensor loss = nn::cross_entropy(net(in[0], nn::Mode::train), in[1]);
              adam.minimise(loss);
              return std::vector<Tensor>{loss};
            },
            options_for(precision))) {}

  static CompileOptions options_for(const std::string& precision) {
    CompileOptions o;
    o.precision = precision;
    return o;
  }

  /// Losses of three steps, then all elements of all parameters.
  std::vector<float> train(bool poison) {
    Step& s = step.step(std::vector<ir::Type>{{ir::Dtype::f32, {4, 32, 32, 3}}, {ir::Dtype::i64, {4}}});
    auto* x = static_cast<float*>(s.input(0));
    auto* labels = static_cast<int64_t*>(s.input(1));
    for (int64_t i = 0; i < 4 * 32 * 32 * 3; ++i) x[i] = static_cast<float>(i * 7919 % 1000) / 500 - 1;
    for (int64_t i = 0; i < 4; ++i) labels[i] = i;
    std::vector<float> numbers;
    for (int run = 0; run < 3; ++run) {
      if (poison) s.executor().poison();
      s.run();
      numbers.push_back(*static_cast<const float*>(s.output(0)));
    }
    for (const Parameter& p : parameters_of(net))
      for (int64_t i = 0; i < p.storage().size(); ++i) numbers.push_back(p.storage().data<float>()[i]);
    return numbers;
  }
};

std::vector<float> trained(int threads, const std::string& precision, bool poison = false) {
  set_threads(threads);
  std::vector<float> numbers = SmallNet(precision).train(poison);
  set_threads(available_threads());
  return numbers;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(TrainingStep, OneTwoAndThreeThreadsGiveTheSameBits) {
#if defined(__SANITIZE_THREAD__)
  const std::vector<std::string> precisions{"f32"};  // a minute each; races are those of either
#else
  const std::vector<std::string> precisions{"f32", "bf16"};
#endif
  for (const std::string& precision : precisions) {
    const std::vector<float> one = trained(1, precision);
    EXPECT_LT(one[2], one[0]) << "the loss falls";
    EXPECT_TRUE(same_bits(trained(2, precision), one)) << precision;
    EXPECT_TRUE(same_bits(trained(3, precision), one)) << precision;
  }
}

TEST(TrainingStep, NothingIsReadThatTheRunDidNotWrite) {
  for (const std::string precision : {"f32", "bf16"})
    EXPECT_TRUE(same_bits(trained(2, precision, true), trained(2, precision))) << precision;
}

/// The program of a step of `net` on images of `size`, planned for `target`.
std::shared_ptr<const run::Program> plan(nn::UNet& net, int64_t size, const std::string& target) {
  nn::Adam adam(parameters_of(net));
  const Trace traced = trace(
      [&](const std::vector<Tensor>& in) {
        const Tensor loss = nn::bce_with_logits(net(in[0], nn::Mode::train), in[1]);
        adam.minimise(loss);
        return std::vector<Tensor>{loss};
      },
      std::vector<ir::Type>{{ir::Dtype::f32, {2, size, size, 3}}, {ir::Dtype::f32, {2, size, size, 1}}});
  run::CompileOptions options;
  options.target = &run::find_target(target);
  return run::Program::compile(traced.graph, options);
}

TEST(TrainingStep, UNetsMemoryIsItsLargestLiveSetAndItsStateIsUpdatedInPlace) {
  nn::Init init(1);
  nn::UNet net(3, 1, init, 16);
  for (const std::string target : {"null", "cpu"}) {
    const auto program = plan(net, 64, target);
    const run::MemoryUse& m = program->memory();
    EXPECT_LE(static_cast<double>(m.arena), 1.05 * static_cast<double>(m.largest_live_set)) << target;
    if (target == "null") continue;
    for (const run::State& s : program->state()) EXPECT_TRUE(s.in_place) << s.name;
    for (const run::Step& s : program->steps()) EXPECT_NE(s.op, "copy");
  }
}

}  // namespace
}  // namespace espalier
