#include <gtest/gtest.h>

#include "nn/losses.h"
#include "nn/models.h"
#include "nn/optim.h"
#include "tensor/compile.h"

namespace espalier {
namespace {

TEST(Tensor, ArithmeticBroadcastsAndIsLazy) {
  const Tensor a = Tensor::of({{1, 2, 3}, {4, 5, 6}}), b = Tensor::of({10, 20, 30});
  const Tensor c = a + b * 2;
  EXPECT_FALSE(c.computed());
  EXPECT_EQ(c.to_vector<float>(), (std::vector<float>{21, 42, 63, 24, 45, 66}));
  EXPECT_TRUE(c.computed());
  const Tensor d = matmul(a, a.transpose());
  EXPECT_EQ(d.to_vector<float>(), (std::vector<float>{14, 32, 32, 77}));
  EXPECT_DOUBLE_EQ((c.sum() + d.max()).item(), 261 + 77);
}

TEST(Tensor, ComputedTensorsAreLeavesOfWhatFollows) {
  Tensor x = Tensor::of({1, 2});
  const int64_t before = ir::live_nodes();
  for (int i = 0; i < 50; ++i) {
    x = x * 0.5 + 1;
    (void)x.array();
  }
  EXPECT_LT(ir::live_nodes(), before + 200);
  EXPECT_NEAR(x.to_vector<float>()[0], 2, 1e-6);
}

TEST(Tensor, ErrorsNameWhatCame) {
  const Tensor f = Tensor::of({1, 2}), i = Tensor::of({1, 2}, Dtype::i32);
  try {
    (void)(f + i);
    FAIL();
  } catch (const UserError& e) {
    EXPECT_NE(std::string(e.what()).find("f32 and i32"), std::string::npos) << e.what();
  }
  EXPECT_THROW((void)f.item(), UserError);
  EXPECT_THROW((void)Tensor().dims(), UserError);
}

TEST(Compile, TrainingStepUpdatesParametersInPlace) {
  nn::Init init(1);
  nn::Linear layer(10, 1, init);
  nn::Sgd sgd(parameters_of(layer, "linear"), {.rate = 0.1});
  Compiled step = compile([&](const std::vector<Tensor>& in) {
    const Tensor loss = nn::mse(layer(in[0]), in[1]);
    sgd.minimise(loss);
    return std::vector<Tensor>{loss};
  });
  const Tensor x = Tensor::randn({32, 10}, 3);
  const Tensor t = matmul(x, Tensor::randn({10, 1}, 4)) + 0.5;
  double first = 0, last = 0;
  for (int i = 0; i < 200; ++i) {
    last = step({x, t})[0].item();
    if (i == 0) first = last;
  }
  EXPECT_GT(first, 1);
  EXPECT_LT(last, 1e-3);
  EXPECT_NEAR(layer.bias.storage().at(0), 0.5, 0.05);
}

TEST(Compile, AdamFollowsItsFormula) {
  Parameter p(Array::of<float>({2}, {1, -2}), true, "p");
  nn::Adam adam({p}, {.rate = 0.1});
  Compiled step = compile([&](const std::vector<Tensor>&) {
    const Tensor loss = (p.tensor() * p.tensor()).sum();
    adam.minimise(loss);
    return std::vector<Tensor>{loss};
  });
  double want[2] = {1, -2}, m[2] = {0, 0}, v[2] = {0, 0};
  for (int t = 1; t <= 5; ++t) {
    (void)step({});
    for (int i = 0; i < 2; ++i) {
      const double g = 2 * want[i];
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.999 * v[i] + 0.001 * g * g;
      want[i] -= 0.1 * (m[i] / (1 - std::pow(0.9, t))) / (std::sqrt(v[i] / (1 - std::pow(0.999, t))) + 1e-8);
      EXPECT_NEAR(p.storage().at(i), want[i], 1e-4) << t;
    }
  }
}

TEST(Model, FrozenGraphGivesTheSameResults) {
  nn::Init init(2);
  nn::LeNet net(init);
  parameters_of(net);
  const ir::Type image{Dtype::f32, {2, 28, 28, 1}};
  const Model model =
      Model::traced([&](const std::vector<Tensor>& in) { return std::vector<Tensor>{net(in[0])}; },
                    std::vector{image}, {.name = "lenet"});
  EXPECT_EQ(model.parameters().size(), 10u);
  const Tensor x = Tensor::randn({2, 28, 28, 1}, 5);
  const Model again(model.frozen());
  EXPECT_EQ(again.parameters().size(), 10u);
  Compiled a = compile([&](const std::vector<Tensor>& in) { return model(in); });
  Compiled b = compile([&](const std::vector<Tensor>& in) { return again(in); });
  EXPECT_EQ(a({x})[0].to_vector<float>(), b({x})[0].to_vector<float>());
}

}  // namespace
}  // namespace espalier
