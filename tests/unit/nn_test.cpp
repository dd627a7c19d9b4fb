// Layers, losses and models against their formulas, written out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numbers>

#include "format/onnx.h"
#include "nn/layers.h"
#include "nn/losses.h"
#include "nn/optim.h"
#include "support/errors.h"

namespace espalier::nn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Vector = std::vector<double>;

TEST(Losses, LabelsAndIdsOfACompiledFunctionAreChecked) {
  Init init(1);
  const Embedding table(5, 3, init);
  Compiled loss = compile(
      [&](const std::vector<Tensor>& in) -> std::vector<Tensor> {
        const Tensor labels = in[1].cast(Dtype::i64).reshape({4});
        return {cross_entropy(table(in[0]), labels), accuracy(table(in[0]), labels)};
      },
      {.argument_names = {"ids", "labels"}});
  const auto call = [&](double id, double label) {
    try {
      loss({Tensor::of({0, 1, id, 2}, Dtype::i64), Tensor::of({{0, 2}, {1, label}}, Dtype::i32)});
    } catch (const UserError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(call(4, 2), "");
  EXPECT_NE(call(5, 2).find("input ids, element 2"), std::string::npos) << call(5, 2);
  EXPECT_NE(call(-1, 2).find("0 to 4"), std::string::npos) << call(-1, 2);
  EXPECT_NE(call(4, 3).find("input labels, element 3"), std::string::npos) << call(4, 3);
  EXPECT_NE(call(4, -1).find("0 to 2"), std::string::npos) << call(4, -1);
  Compiled trained = compile([&](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Tensor value = cross_entropy(in[0], in[1]);
    return {value, grad(value, std::vector{in[0]})[0]};
  });
  const Tensor logits = Tensor::ones({2, 3});
  EXPECT_THROW(trained({logits, Tensor::of({0, 3}, Dtype::i32)}), UserError);
  Compiled wider = compile(
      [&](const std::vector<Tensor>& in) -> std::vector<Tensor> { return {cross_entropy(in[0], in[1])}; },
      {.argument_ranges = {{1, {-1, 3}}}});
  EXPECT_NO_THROW(wider({logits, Tensor::of({0, -1}, Dtype::i32)}));
  EXPECT_THROW(wider({logits, Tensor::of({0, 3}, Dtype::i32)}), UserError);
}

TEST(Loss, ValuesOutOfRangeAreNamedWithoutAFunctionToo) {
  const Tensor logits = Tensor::ones({2, 3});
  const auto text = [](auto&& look) {
    try {
      (void)look();
    } catch (const UserError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(text([&] { return cross_entropy(logits, Tensor::of({0, 2}, Dtype::i32)).item(); }), "no error");
  EXPECT_THAT(text([&] {
                return cross_entropy(logits, Tensor::of({0, 3}, Dtype::i32)).item();
              }),
              AllOf(HasSubstr("element 1"), HasSubstr("got 3"), HasSubstr("0 to 2")));
  EXPECT_THAT(text([&] {
                return cross_entropy(logits, Tensor::of({-100, 2}, Dtype::i32)).item();
              }),
              HasSubstr("got -100"));
  Init init(1);
  const Embedding table(4, 2, init);
  EXPECT_THAT(text([&] { return table(Tensor::of({1, 9}, Dtype::i32)).array(); }), HasSubstr("got 9"));
  // Targets of a mask: 0 to 1, not 0 to 255.
  const Tensor mask = Tensor::of({0, 255}), half = Tensor::of({0.5F, 1}), two = Tensor::of({1, -1});
  EXPECT_EQ(text([&] { return bce_with_logits(two, half).item(); }), "no error");
  EXPECT_THAT(text([&] { return bce_with_logits(two, mask).item(); }), HasSubstr("got 255"));
  EXPECT_THAT(text([&] {
                return bce_with_logits(two, Tensor::of({std::nanf(""), 1})).item();
              }),
              HasSubstr("nan"));
  EXPECT_THAT(text([&] {
                return bce_with_logits(two, Tensor::of({0, 255}, Dtype::u8).cast(Dtype::f32)).item();
              }),
              HasSubstr("got 255"));
  EXPECT_EQ(text([&] { return bce_with_logits(two, mask.cast(Dtype::boolean).cast(Dtype::f32)).item(); }),
            "no error");
  // Captured by a traced function, and as an argument of one.
  Compiled captured = compile([&](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {cross_entropy(in[0], Tensor::of({0, 7}, Dtype::i32))};
  });
  EXPECT_THAT(text([&] { return captured({logits}); }),
              AllOf(HasSubstr("cross_entropy"), HasSubstr("got 7")));
  Compiled loss = compile(
      [&](const std::vector<Tensor>& in) -> std::vector<Tensor> { return {bce_with_logits(in[0], in[1])}; });
  EXPECT_EQ(text([&] { return loss({two, half}); }), "no error");
  EXPECT_THAT(text([&] { return loss({two, mask}); }), AllOf(HasSubstr("element 1"), HasSubstr("0 to 1")));
}

TEST(Model, AFileKeepsWhatIsAParameterAndWhatIsTrainable) {
  Init init(1);
  const Linear layer(10, 1, init);
  BatchNorm norm(10);
  Linear named = layer;
  std::vector<Parameter> all = parameters_of(named, "layer");
  for (const Parameter& p : parameters_of(norm, "norm")) all.push_back(p);
  for (size_t i = 0; i < all.size(); ++i)
    std::memcpy(all[i].write(), Tensor::randn(all[i].dims(), i + 1).square().array().data(),
                static_cast<size_t>(all[i].storage().bytes()));
  const Model model = Model::traced(
      [&](const std::vector<Tensor>& in) { return std::vector<Tensor>{layer(norm(in[0], Mode::eval))}; },
      std::vector{ir::Type{Dtype::f32, {4, 10}}});
  const ir::Graph read = format::parse_onnx(format::onnx_bytes(model.frozen(), model.metadata()), "model");
  const Model again(read, model.metadata());
  const auto table = [](const Model& m) {
    std::map<std::string, std::pair<bool, std::string>> out;
    for (const Parameter& p : m.parameters()) out[p.name()] = {p.trainable(), p.type().text()};
    return out;
  };
  EXPECT_EQ(table(model).size(), 6u);
  EXPECT_EQ(table(again), table(model));
  const Tensor x = Tensor::randn({4, 10}, 9);
  EXPECT_EQ(again({x})[0].to_vector<float>(), model({x})[0].to_vector<float>());
  EXPECT_EQ(Model(read).parameters().size(), 5u) << "without the list: all of more than one element";
  EXPECT_THROW(Model(read, {{"espalier.parameters", "layer.weight"}}), UserError);
}

TEST(BatchNorm, NormalisesAndTracksTheUnbiasedVariance) {
  BatchNorm norm(2, 0.1, 1e-5);
  parameters_of(norm);
  const Tensor x = Tensor::randn({3, 2, 2, 2}, 4) * 2 + 1;
  Compiled step = compile(
      [&](const std::vector<Tensor>& in) -> std::vector<Tensor> { return {norm(in[0], Mode::train)}; });
  const std::vector<float> y = step({x})[0].to_vector<float>(), e = x.to_vector<float>();
  for (size_t c = 0; c < 2; ++c) {
    double mean = 0, var = 0;
    for (size_t i = c; i < e.size(); i += 2) mean += e[i] / 12;
    for (size_t i = c; i < e.size(); i += 2) var += (e[i] - mean) * (e[i] - mean);
    for (size_t i = c; i < e.size(); i += 2)
      EXPECT_NEAR(y[i], (e[i] - mean) / std::sqrt(var / 12 + 1e-5), 1e-4);
    EXPECT_NEAR(norm.running_mean.storage().at(static_cast<int64_t>(c)), 0.1 * mean, 1e-5);
    EXPECT_NEAR(norm.running_var.storage().at(static_cast<int64_t>(c)), 0.9 + 0.1 * var / 11, 1e-5);
  }
  const Tensor fixed = norm(x, Mode::eval);
  for (size_t i = 0; i < e.size(); ++i) {
    const auto c = static_cast<int64_t>(i % 2);
    EXPECT_NEAR(
        fixed.to_vector<float>()[i],
        (e[i] - norm.running_mean.storage().at(c)) / std::sqrt(norm.running_var.storage().at(c) + 1e-5),
        1e-4);
  }
}

TEST(BatchNorm, OneValuePerChannelIsRefusedInTraining) {
  const BatchNorm norm(3);
  EXPECT_THAT(test::error_of([&] {
                norm(Tensor::ones({1, 1, 1, 3}), Mode::train);
              }),
              testing::HasSubstr("drop_last"));
  EXPECT_EQ(norm(Tensor::zeros({1, 3}), Mode::eval).to_vector<float>(), (std::vector<float>{0, 0, 0}));
}

TEST(LayerNorm, NormalisesEachRow) {
  const LayerNorm norm(5);
  const Tensor x = Tensor::randn({3, 5}, 6) * 3 - 1;
  const std::vector<float> e = x.to_vector<float>(), y = norm(x).to_vector<float>();
  for (size_t r = 0; r < 3; ++r) {
    double mean = 0, var = 0;
    for (size_t i = 0; i < 5; ++i) mean += e[5 * r + i] / 5;
    for (size_t i = 0; i < 5; ++i) var += (e[5 * r + i] - mean) * (e[5 * r + i] - mean) / 5;
    for (size_t i = 0; i < 5; ++i)
      EXPECT_NEAR(y[5 * r + i], (e[5 * r + i] - mean) / std::sqrt(var + 1e-5), 1e-4);
  }
}

TEST(GroupNorm, NormalisesEachGroupOfChannels) {
  const GroupNorm norm(2, 4);
  const Tensor x = Tensor::randn({2, 3, 4}, 7) + 2;
  const std::vector<float> e = x.to_vector<float>(), y = norm(x).to_vector<float>();
  const auto at = [](size_t n, size_t p, size_t c) { return (n * 3 + p) * 4 + c; };
  for (size_t n = 0; n < 2; ++n)
    for (size_t g = 0; g < 2; ++g) {
      double mean = 0, var = 0;
      for (size_t p = 0; p < 3; ++p)
        for (size_t c = 2 * g; c < 2 * g + 2; ++c) mean += e[at(n, p, c)] / 6;
      for (size_t p = 0; p < 3; ++p)
        for (size_t c = 2 * g; c < 2 * g + 2; ++c)
          var += (e[at(n, p, c)] - mean) * (e[at(n, p, c)] - mean) / 6;
      for (size_t p = 0; p < 3; ++p)
        for (size_t c = 2 * g; c < 2 * g + 2; ++c)
          EXPECT_NEAR(y[at(n, p, c)], (e[at(n, p, c)] - mean) / std::sqrt(var + 1e-5), 1e-4);
    }
}

/// Two masks of a step, of layers made by `layer`, in two steps, compiled or not.
std::vector<std::vector<float>> masks(const std::function<Dropout()>& layer, bool compiled) {
  const Dropout first = layer(), second = layer();
  const auto step = [&](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{first(in[0], Mode::train), second(in[0], Mode::train)};
  };
  Compiled program = compile(step);
  std::vector<std::vector<float>> all;
  for (int i = 0; i < 2; ++i) {
    const std::vector<Tensor> x{Tensor::ones({100, 100})};
    for (const Tensor& t : compiled ? program(x) : step(x)) all.push_back(t.to_vector<float>());
  }
  return all;
}

TEST(Dropout, KeepsItsShareAndDrawsAnewInEachStepAndLayer) {
  for (const bool compiled : {true, false}) {
    const auto draw = [&](uint64_t seed) {
      Init init(seed);
      return masks([&] { return Dropout(0.3, init); }, compiled);
    };
    const auto draws = draw(11);
    for (size_t i = 0; i < draws.size(); ++i) {
      int64_t kept = 0;
      for (const float v : draws[i]) {
        EXPECT_TRUE(v == 0 || std::fabs(v - 1 / 0.7) < 1e-5);
        kept += v != 0;
      }
      EXPECT_NEAR(static_cast<double>(kept) / 10000, 0.7, 0.02);
      for (size_t k = 0; k < i; ++k) EXPECT_NE(draws[i], draws[k]) << "two draws, one mask";
    }
    EXPECT_EQ(draw(11), draws);
    EXPECT_NE(draw(12), draws);
  }
}

TEST(Dropout, LayersOfOneGeneratorDrawApart) {
  for (const bool compiled : {true, false}) {
    const Generator generator(5);
    const auto draws = masks([&] { return Dropout(0.3, generator); }, compiled);
    for (size_t i = 0; i < draws.size(); ++i)
      for (size_t k = 0; k < i; ++k) EXPECT_NE(draws[i], draws[k]) << compiled;
  }
}

TEST(Dropout, RefusesWhatCannotDraw) {
  EXPECT_THROW(Dropout(1, Generator(1)), UserError);
  EXPECT_THROW(Dropout(-0.1, Generator(1)), UserError);
  EXPECT_THROW(Dropout(0.5, Generator())(Tensor::ones({4}), Mode::train), UserError);
  const Dropout off(0.3, Generator(1));
  EXPECT_EQ(off(Tensor::ones({4}), Mode::eval).to_vector<float>(), (std::vector<float>{1, 1, 1, 1}));
  Compiled frozen = compile(
      [&](const std::vector<Tensor>& in) { return std::vector{off(in[0], Mode::train)}; }, {.freeze = true});
  EXPECT_THROW(frozen({Tensor::ones({4})}), UserError);
}

TEST(Dropout, ShowsItsGeneratorLikeAnyLayer) {
  Dropout dropout(0.5, Generator(3));
  std::vector<std::string> paths;
  dropout.each([&](const std::string& path, Parameter&) { paths.push_back(path); }, "encoder.dropout");
  EXPECT_EQ(paths, (std::vector<std::string>{"encoder.dropout.rng.key", "encoder.dropout.rng.counter"}));
  EXPECT_EQ(parameters_of(dropout).size(), 2u);
}

TEST(Conv2d, IsTheNaiveSum) {
  Init init(8);
  const Conv2d conv(4, 6, 3, {.stride = 2, .padding = 1, .groups = 2}, init);
  const Tensor x = Tensor::randn({2, 5, 7, 4}, 9);
  const Tensor y = conv(x);
  EXPECT_EQ(y.dims(), (Dims{2, 3, 4, 6}));
  const std::vector<float> e = x.to_vector<float>(), got = y.to_vector<float>();
  for (int64_t n = 0, at = 0; n < 2; ++n)
    for (int64_t h = 0; h < 3; ++h)
      for (int64_t w = 0; w < 4; ++w)
        for (int64_t o = 0; o < 6; ++o, ++at) {
          double want = conv.bias.storage().at(o);
          for (int64_t kh = 0; kh < 3; ++kh)
            for (int64_t kw = 0; kw < 3; ++kw)
              for (int64_t i = 0; i < 2; ++i) {
                const int64_t r = 2 * h - 1 + kh, c = 2 * w - 1 + kw;
                if (r < 0 || r >= 5 || c < 0 || c >= 7) continue;
                want +=
                    static_cast<double>(e[static_cast<size_t>(((n * 5 + r) * 7 + c) * 4 + o / 3 * 2 + i)]) *
                    conv.weight.storage().at(((o * 3 + kh) * 3 + kw) * 2 + i);
              }
          EXPECT_NEAR(got[static_cast<size_t>(at)], want, 1e-4);
        }
}

TEST(ConvTranspose2d, IsTheGradientOfConv2d) {
  Init init(10);
  const ConvTranspose2d up(3, 2, 2, {.stride = 2, .bias = false}, init);
  const Tensor x = Tensor::randn({1, 3, 3, 3}, 11);
  const std::vector<float> e = x.to_vector<float>(), got = up(x).to_vector<float>();
  ASSERT_EQ(got.size(), 72u);
  for (int64_t h = 0, at = 0; h < 6; ++h)
    for (int64_t w = 0; w < 6; ++w)
      for (int64_t o = 0; o < 2; ++o, ++at) {
        double want = 0;
        for (int64_t i = 0; i < 3; ++i)
          want += static_cast<double>(e[static_cast<size_t>((h / 2 * 3 + w / 2) * 3 + i)]) *
                  up.weight.storage().at(((i * 2 + h % 2) * 2 + w % 2) * 2 + o);
        EXPECT_NEAR(got[static_cast<size_t>(at)], want, 1e-4);
      }
}

/// sum(y * g) of a layer's transpose is sum(x * layer(g)): for x of rank 3 (1-D), 4 or 5, both with groups and dilation.
template <class Down, class Up>
void expect_transposes(const std::vector<int64_t>& in, const std::vector<int64_t>& out) {
  Init init(20);
  const ConvOptions o{.stride = 2, .padding = 1, .dilation = 2, .groups = 2, .bias = false};
  const Down down(6, 4, 3, o, init);
  Up up(4, 6, 3, o, init);
  up.weight.assign(down.weight.tensor());
  const Tensor x = Tensor::randn(in, 21), g = Tensor::randn(out, 22);
  ASSERT_EQ(down(g).dims(), x.dims());
  ASSERT_EQ(up(x).dims(), g.dims());
  EXPECT_NEAR((up(x) * g).sum().item(), (down(g) * x).sum().item(), 1e-3);
}

TEST(ConvTranspose, TransposesTheConvolutionInOneToThreeDimensions) {
  expect_transposes<Conv1d, ConvTranspose1d>({2, 4, 4}, {2, 9, 6});
  expect_transposes<Conv2d, ConvTranspose2d>({2, 4, 3, 4}, {2, 9, 7, 6});
  expect_transposes<Conv3d, ConvTranspose3d>({1, 2, 4, 3, 4}, {1, 5, 9, 7, 6});
}

TEST(ConvTranspose, TakesASymbolicBatchAndRefusesASymbolicSize) {
  Init init(28);
  const ConvTranspose2d up(3, 2, 2, {.stride = 2}, init);
  const auto traced = [&](const Dim& height) {
    return Model::traced([&](const std::vector<Tensor>& x) { return std::vector{up(x[0])}; },
                         std::vector{ir::Type{Dtype::f32, {Dim::symbol("batch"), height, 4, 3}}});
  };
  EXPECT_EQ(traced(5).frozen().outputs[0].value.type().text(), "f32[batch,10,8,2]");
  const std::string said = test::error_of([&] { traced(Dim::symbol("h")); });
  EXPECT_NE(said.find("ConvTranspose2d: the size of a spatial axis is a symbol (got [batch,h,4,3]"),
            std::string::npos)
      << said;
  EXPECT_THROW(up(Tensor::randn({4, 4, 3}, 1)), UserError);
}

TEST(Conv, OfOneAndThreeDimensionsIsThatOfTwo) {
  Init init(23);
  const Conv1d line(3, 4, 3, {.stride = 2, .padding = 1, .dilation = 2}, init);
  const Tensor x = Tensor::randn({2, 9, 3}, 24);
  EXPECT_EQ(line.weight.dims(), (std::vector<int64_t>{4, 3, 3}));
  const std::vector<float> got = line(x).to_vector<float>(), e = x.to_vector<float>();
  ASSERT_EQ(line(x).dims(), (Dims{2, 4, 4}));
  for (int64_t n = 0, at = 0; n < 2; ++n)
    for (int64_t l = 0; l < 4; ++l)
      for (int64_t o = 0; o < 4; ++o, ++at) {
        double want = line.bias.storage().at(o);
        for (int64_t k = 0; k < 3; ++k)
          for (int64_t i = 0, r = 2 * l - 1 + 2 * k; i < 3; ++i)
            if (r >= 0 && r < 9)
              want += static_cast<double>(e[static_cast<size_t>((n * 9 + r) * 3 + i)]) *
                      line.weight.storage().at((o * 3 + k) * 3 + i);
        EXPECT_NEAR(got[static_cast<size_t>(at)], want, 1e-4);
      }

  Init again(25);
  const Conv3d deep(2, 4, 1, {}, again);  // a kernel of one voxel is a product over the channels
  const Tensor v = Tensor::randn({1, 2, 3, 4, 2}, 26);
  const Tensor product =
      matmul(v.reshape({24, 2}), deep.weight.tensor().reshape({4, 2}).transpose({1, 0})) + deep.bias.tensor();
  const std::vector<float> want = product.to_vector<float>(), have = deep(v).to_vector<float>();
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(have[i], want[i], 1e-5);
}

TEST(Conv, WeightsAreUniformWithinTheFan) {
  Init init(27);
  const auto largest = [](const Parameter& p) {
    double most = 0;
    for (int64_t i = 0; i < p.storage().size(); ++i) most = std::max(most, std::fabs(p.storage().at(i)));
    return most;
  };
  const Conv1d line(8, 64, 5, {.groups = 2}, init);
  EXPECT_NEAR(largest(line.weight), 1 / std::sqrt(4 * 5), 0.01);
  const Conv3d deep(8, 16, 3, {}, init);
  EXPECT_NEAR(largest(deep.weight), 1 / std::sqrt(8 * 27), 0.01);
  const ConvTranspose2d up(16, 64, 3, {.groups = 4}, init);
  EXPECT_EQ(up.weight.dims(), (std::vector<int64_t>{16, 3, 3, 16}));
  EXPECT_NEAR(largest(up.weight), 1 / std::sqrt(16 * 9), 0.01);
  EXPECT_NEAR(largest(up.bias), 1 / std::sqrt(16 * 9), 0.01);
}

TEST(Embedding, GivesRowsOfItsTable) {
  Init init(12);
  const Embedding table(5, 3, init);
  const std::vector<float> got = table(Tensor::of({4, 0, 4}, Dtype::i32)).to_vector<float>();
  for (size_t r = 0; r < 3; ++r)
    for (size_t i = 0; i < 3; ++i)
      EXPECT_EQ(got[3 * r + i], table.weight.storage().at(static_cast<int64_t>((r == 1 ? 0 : 4) * 3 + i)));
}

TEST(GlobalAvgPool, IsTheMeanOverSpatialAxesAlone) {
  const Tensor x = Tensor::of({{1, 2}, {3, 5}});
  EXPECT_EQ(global_avg_pool(x).to_vector<float>(), x.to_vector<float>());
  const Tensor y = global_avg_pool(x.reshape({1, 2, 1, 2}));
  EXPECT_EQ(y.dims(), (Dims{1, 2}));
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{2, 3.5}));
}

TEST(Losses, DiceWithoutExamplesAxesAndInHalfPrecision) {
  const Tensor x = Tensor::of({0.5, -2}), t = Tensor::of({1, 0});
  double want = 1;
  for (const auto& [logit, target] : {std::pair{0.5, 1.0}, {-2.0, 0.0}}) {
    const double p = 1 / (1 + std::exp(-logit));
    want -= (2 * p * target + 1) / (p + target + 1) / 2;
  }
  EXPECT_NEAR(dice_loss(x, t).item(), want, 1e-6);
  const Tensor half = dice_loss(x.cast(Dtype::bf16), t.cast(Dtype::bf16));
  EXPECT_EQ(half.dtype(), Dtype::f32);
  EXPECT_NEAR(half.item(), want, 1e-6);
}

TEST(Losses, FollowTheirFormulas) {
  const Tensor logits = Tensor::of({{1, 2, 0.5}, {-1, 0, 3}}), labels = Tensor::of({1, 2}, Dtype::i32);
  const double a = std::log(std::exp(1) + std::exp(2) + std::exp(0.5)) - 2,
               b = std::log(std::exp(-1) + 1 + std::exp(3)) - 3;
  EXPECT_NEAR(cross_entropy(logits, labels).item(), (a + b) / 2, 1e-5);
  EXPECT_NEAR(accuracy(logits, Tensor::of({1, 0}, Dtype::i32)).item(), 0.5, 1e-6);
  const auto bce = [](double x, double t) { return std::log1p(std::exp(-x)) + (1 - t) * x; };
  EXPECT_NEAR(bce_with_logits(Tensor::of({2, -1}), Tensor::of({1, 0.25})).item(),
              (bce(2, 1) + bce(-1, 0.25)) / 2, 1e-5);
  EXPECT_NEAR(bce_with_logits(Tensor::of({-200, 200}), Tensor::of({0, 1})).item(), 0, 1e-6);
  EXPECT_NEAR(mse(Tensor::of({1, 2}), Tensor::of({3, 5})).item(), 6.5, 1e-5);
  const double p = 1 / (1 + std::exp(-0.5));
  EXPECT_NEAR(dice_loss(Tensor::of({0.5, 0.5}).reshape({2, 1}), Tensor::of({1, 0}).reshape({2, 1})).item(),
              1 - (2 * p + 1) / (2 * p + 1 + 1), 1e-5);
}

}  // namespace
}  // namespace espalier::nn
