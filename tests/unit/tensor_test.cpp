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

TEST(Tensor, ComparesElementByElement) {
  static_assert(!std::is_constructible_v<bool, Tensor>, "if (a == b) would be true for any a and b");
  EXPECT_FALSE(Tensor().defined());
  const Tensor a = Tensor::of({1, 2, 3}), b = Tensor::of({3, 2, 1});
  const auto bits = [](const Tensor& t) {
    EXPECT_EQ(t.dtype(), Dtype::boolean);
    return t.cast(Dtype::i32).to_vector<int32_t>();
  };
  using Bits = std::vector<int32_t>;
  EXPECT_EQ(bits(a == b), (Bits{0, 1, 0}));
  EXPECT_EQ(bits(a != b), (Bits{1, 0, 1}));
  EXPECT_EQ(bits(a < b), (Bits{1, 0, 0}));
  EXPECT_EQ(bits(a <= b), (Bits{1, 1, 0}));
  EXPECT_EQ(bits(a > b), (Bits{0, 0, 1}));
  EXPECT_EQ(bits(a >= b), (Bits{0, 1, 1}));
}

TEST(Tensor, NumbersTakeTheTensorsDtype) {
  for (const Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::i32}) {
    const Tensor x = Tensor::of({1, 2, 3}, dtype);
    const auto numbers = [&](const Tensor& t) {
      EXPECT_EQ(t.dtype(), dtype);
      return t.cast(Dtype::f32).to_vector<float>();
    };
    const auto bits = [](const Tensor& t) { return t.cast(Dtype::i32).to_vector<int32_t>(); };
    using Bits = std::vector<int32_t>;
    EXPECT_EQ(bits(x == 2), (Bits{0, 1, 0}));
    EXPECT_EQ(bits(x != 2), (Bits{1, 0, 1}));
    EXPECT_EQ(bits(x < 2), (Bits{1, 0, 0}));
    EXPECT_EQ(bits(x <= 2), (Bits{1, 1, 0}));
    EXPECT_EQ(bits(x > 2), (Bits{0, 0, 1}));
    EXPECT_EQ(bits(x >= 2), (Bits{0, 1, 1}));
    EXPECT_EQ(numbers(maximum(x, 2)), (std::vector<float>{2, 2, 3}));
    EXPECT_EQ(numbers(minimum(x, 2)), (std::vector<float>{1, 2, 2}));
    EXPECT_EQ(numbers(pow(x, 2)), (std::vector<float>{1, 4, 9}));
    EXPECT_EQ(numbers(where(x > 1, x, 7)), (std::vector<float>{7, 2, 3}));
    EXPECT_EQ(numbers(where(x > 1, 7, x)), (std::vector<float>{1, 7, 7}));
    EXPECT_EQ(where(x > 1, 1, 0).to_vector<float>(), (std::vector<float>{0, 1, 1}));
  }
  EXPECT_THROW((void)(Tensor::of({1, 2}, Dtype::i32) > 0.5), UserError);
  EXPECT_THROW((void)(Tensor::of({1, 2}, Dtype::i32) * 0.5), UserError);
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

TEST(TensorGrad, GoesThroughWhatWasLookedAt) {
  const Tensor w = Tensor::of({1, 2, 3}), x = Tensor::of({2, 0, -1});
  const Tensor h = w * x, y = (h * h).tanh(), loss = y.sum();
  const std::vector<float> want = grad(loss, std::vector{w})[0].to_vector<float>();
  EXPECT_NE(want[0], 0);
  (void)h.array();
  EXPECT_EQ(grad(loss, std::vector{w})[0].to_vector<float>(), want) << "an intermediate was looked at later";
  const Tensor again = (h * h).tanh().sum();
  EXPECT_EQ(grad(again, std::vector{w})[0].to_vector<float>(), want)
      << "an intermediate was looked at before";
  (void)loss.item();
  (void)again.item();
  EXPECT_EQ(grad(loss, std::vector{w})[0].to_vector<float>(), want) << "the loss was looked at";
  EXPECT_EQ(grad(again, std::vector{w})[0].to_vector<float>(), want);
  EXPECT_EQ(grad(loss, std::vector{h})[0].to_vector<float>(),
            grad(again, std::vector{h})[0].to_vector<float>());
  EXPECT_NE(grad(loss, std::vector{h})[0].to_vector<float>()[0], 0) << "with respect to what was looked at";
  EXPECT_EQ(grad(loss, std::vector{Tensor::ones({2})})[0].to_vector<float>(), (std::vector<float>{0, 0}));
}

TEST(TensorGrad, GoesThroughDrawnTensorsThatWereLookedAt) {
  const Tensor r = Tensor::randn({3}, 1), loss = (r * r).sum();
  std::vector<float> twice = r.to_vector<float>();
  for (float& v : twice) v *= 2;
  EXPECT_EQ(grad(loss, std::vector{r})[0].to_vector<float>(), twice);
}

TEST(TensorGrad, OfAGradientThatWasLookedAt) {
  const Tensor x = Tensor::of({2, 3}), cube = (x * x * x).sum();
  (void)cube.item();
  const Tensor slope = grad(cube, std::vector{x})[0];
  EXPECT_EQ(slope.to_vector<float>(), (std::vector<float>{12, 27}));
  EXPECT_EQ(grad(slope.sum(), std::vector{x})[0].to_vector<float>(), (std::vector<float>{12, 18}));
}

TEST(TensorGrad, OfALayerIsTheCompiledOne) {
  nn::Init init(4);
  nn::Linear layer(5, 3, init);
  parameters_of(layer, "linear");
  const Tensor x = Tensor::randn({4, 5}, 6), t = Tensor::randn({4, 3}, 7);
  const auto gradients = [&](const std::vector<Tensor>& in) {
    return grad(nn::mse(layer(in[0]), in[1]), std::vector<Tensor>{layer.weight, layer.bias});
  };
  const std::vector<Tensor> want = compile(gradients)({x, t}), got = gradients({x, t});
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(got[i].to_vector<float>(), want[i].to_vector<float>());
    EXPECT_NE(got[i].to_vector<float>()[0], 0);
  }
}

TEST(TensorGrad, OptimisersTrainOutsideACompiledStepToo) {
  const auto train = [](bool compiled) {
    nn::Init init(1);
    nn::Linear layer(3, 2, init);
    nn::Sgd sgd(parameters_of(layer, "linear"), {.rate = 0.1, .momentum = 0.9});
    const Tensor x = Tensor::randn({8, 3}, 3), t = Tensor::randn({8, 2}, 4);
    const auto step = [&](const std::vector<Tensor>& in) {
      const Tensor loss = nn::mse(layer(in[0]), in[1]);
      sgd.minimise(loss);
      return std::vector<Tensor>{loss};
    };
    Compiled program = compile(step);
    std::vector<double> losses;
    for (int i = 0; i < 5; ++i) losses.push_back((compiled ? program({x, t}) : step({x, t}))[0].item());
    return losses;
  };
  const std::vector<double> eager = train(false), compiled = train(true);
  EXPECT_LT(eager[4], eager[0]);
  for (size_t i = 0; i < eager.size(); ++i) EXPECT_NEAR(eager[i], compiled[i], 1e-5);
}

TEST(TensorGrad, RefusesAParameterThatChangedSinceTheLoss) {
  const Parameter p(Array::of<float>({2}, {1, 2}), true, "scale");
  const auto stale = [&](const std::function<void()>& call) {
    try {
      call();
      ADD_FAILURE() << "no error";
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("scale"), std::string::npos) << e.what();
    }
  };
  const Tensor loss = p.tensor().square().sum();
  nn::Sgd sgd({p}, {.rate = 0.1});
  sgd.minimise(loss);
  EXPECT_NEAR(p.storage().at(1), 1.6, 1e-6);
  stale([&] { sgd.minimise(loss); });
  (void)loss.item();
  stale([&] { sgd.minimise(loss); });
  stale([&] {
    compile([&](const std::vector<Tensor>&) {
      const Tensor twice = p.tensor().square().sum();
      sgd.minimise(twice);
      sgd.minimise(twice);
      return std::vector<Tensor>{twice};
    })({});
  });
}

TEST(Tensor, ForgetsHowItWasComputedOnceNobodyCanAsk) {
  const Tensor x0 = Tensor::of({1, 2}), w = Tensor::of({0.5, 0.5});
  const auto nodes_of = [](const std::function<void()>& call) {
    const int64_t before = ir::live_nodes();
    call();
    return ir::live_nodes() - before;
  };
  Tensor x = Tensor::of({1, 2});
  EXPECT_LT(nodes_of([&] {
              for (int i = 0; i < 100; ++i) {
                const Tensor y = x * 0.5 + 1;
                (void)y.array();
                x = y;
              }
            }),
            20);
  Tensor held = w;
  EXPECT_GT(nodes_of([&] {
              for (int i = 0; i < 300; ++i) {
                held = held * 0.5 + w;
                (void)held.array();
              }
            }),
            300);
  EXPECT_NEAR(grad(held.sum(), std::vector{w})[0].to_vector<float>()[0], 2, 1e-5);
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

TEST(Compile, AParameterMayHaveAnArgumentsName) {
  const Parameter weight(Array::of<float>({2}, {3, 4}), true, "weight"),
      other(Array::of<float>({2}, {1, 1}), true, "other");
  Compiled step = compile(
      [&](const std::vector<Tensor>& in) {
        const Tensor y = in[0] * weight.tensor() + other.tensor();
        weight.assign(weight.tensor() + 1);
        other.assign(other.tensor() + 1);
        return std::vector{y};
      },
      {.argument_names = {"weight"}, .result_names = {"other.next"}});
  EXPECT_EQ(step({Tensor::of({1, 2})})[0].to_vector<float>(), (std::vector<float>{4, 9}));
  EXPECT_EQ(step({Tensor::of({1, 2})})[0].to_vector<float>(), (std::vector<float>{6, 12}));
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

TEST(Model, ParametersOfEqualValuesStayTwo) {
  const Array one = Array::of<float>({2}, {1, 1});
  const Parameter scale(one, true, "scale"), shift(one, true, "shift");
  const Model model = Model::traced(
      [&](const std::vector<Tensor>& in) {
        return std::vector<Tensor>{in[0] * scale.tensor() + shift.tensor()};
      },
      std::vector{ir::Type{Dtype::f32, {2}}});
  ASSERT_EQ(model.parameters().size(), 2u);
  const Model again(model.frozen());
  ASSERT_EQ(again.parameters().size(), 2u);
  EXPECT_EQ(again.parameters()[0].name(), "scale");
  EXPECT_EQ(again.parameters()[1].name(), "shift");
  again.parameters()[1].assign(Tensor::of({0, 2}));
  EXPECT_EQ(again({Tensor::of({3, 5})})[0].to_vector<float>(), (std::vector<float>{3, 7}));
}

}  // namespace
}  // namespace espalier
