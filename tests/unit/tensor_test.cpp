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

TEST(Tensor, NumbersAndRowsAreToldApart) {
  const int n = 7;
  EXPECT_EQ(Tensor::of({{0}, {4}}).dims(), (Dims{2, 1}));
  EXPECT_EQ(Tensor::of({{1, 2, n}}).dims(), (Dims{1, 3}));
  EXPECT_EQ(Tensor::of({{1.5, 2}, {3, 4}}).to_vector<float>(), (std::vector<float>{1.5, 2, 3, 4}));
  EXPECT_EQ(Tensor::of({0, 4}).dims(), (Dims{2}));
  EXPECT_EQ(Tensor::of({5}, Dtype::i32).dims(), (Dims{1}));
  EXPECT_EQ(Tensor::of({1, 2.5, n}).to_vector<float>(), (std::vector<float>{1, 2.5, 7}));
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

TEST(Model, ParametersOfEqualValuesAreFrozenToOneConstant) {
  const Array one = Array::of<float>({2}, {1, 1});
  const Parameter scale(one, true, "scale"), shift(one, true, "shift");
  const Model model = Model::traced(
      [&](const std::vector<Tensor>& in) {
        return std::vector<Tensor>{in[0] * scale.tensor() + shift.tensor()};
      },
      std::vector{ir::Type{Dtype::f32, {2}}});
  ASSERT_EQ(model.parameters().size(), 2u) << "they are two as long as they can be trained";
  const Model again(model.frozen());
  ASSERT_EQ(again.parameters().size(), 1u);
  EXPECT_EQ(again.parameters()[0].name(), model.parameters()[0].name()) << "the first one's name";
  const Tensor x = Tensor::of({3, 5});
  EXPECT_EQ(again({x})[0].to_vector<float>(), model({x})[0].to_vector<float>());
  shift.assign(Tensor::of({0, 2}));
  const Model apart(model.frozen());
  ASSERT_EQ(apart.parameters().size(), 2u);
  EXPECT_EQ(apart({x})[0].to_vector<float>(), (std::vector<float>{3, 7}));
}

}  // namespace
}  // namespace espalier
