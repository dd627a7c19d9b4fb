// Optimisers, schedules and loss scaling against their formulas, written out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numbers>

#include "nn/layers.h"
#include "nn/losses.h"
#include "nn/optim.h"
#include "support/errors.h"

namespace espalier::nn {
namespace {

using Vector = std::vector<double>;

TEST(Schedule, FollowsItsFormula) {
  EXPECT_EQ(constant_rate(0.3)(1000), 0.3);
  const Schedule decay = step_decay(0.4, 0.5, 10);
  EXPECT_DOUBLE_EQ(decay(0), 0.4);
  EXPECT_DOUBLE_EQ(decay(9), 0.4);
  EXPECT_DOUBLE_EQ(decay(10), 0.2);
  EXPECT_DOUBLE_EQ(decay(35), 0.05);
  const Schedule cosine = cosine_rate(1, 110, 10);
  for (int64_t s = 0; s < 10; ++s) EXPECT_DOUBLE_EQ(cosine(s), static_cast<double>(s + 1) / 10);
  for (int64_t s = 10; s < 110; ++s)
    EXPECT_NEAR(cosine(s), (1 + std::cos(std::numbers::pi * static_cast<double>(s - 10) / 100)) / 2, 1e-12);
  EXPECT_NEAR(cosine(500), 0, 1e-12);
}

TEST(Schedule, WarmupBeginsAnyScheduleGently) {
  const Schedule s = with_warmup(step_decay(0.4, 0.5, 10), 4);
  EXPECT_DOUBLE_EQ(s(0), 0.1);
  EXPECT_DOUBLE_EQ(s(3), 0.4);
  EXPECT_DOUBLE_EQ(s(9), 0.4);
  EXPECT_DOUBLE_EQ(s(10), 0.2);
  EXPECT_DOUBLE_EQ(with_warmup(step_decay(0.4, 0.5, 2), 4)(2), 0.15);
  EXPECT_DOUBLE_EQ(with_warmup(constant_rate(3), 0)(0), 3);
  EXPECT_THROW(with_warmup(constant_rate(3), -1), UserError);
  EXPECT_THROW(with_warmup({}, 1), UserError);
}

TEST(Schedule, RefusesImpossibleCounts) {
  EXPECT_THROW(step_decay(1, 0.5, 0), UserError);
  EXPECT_THROW(cosine_rate(1, 0), UserError);
  EXPECT_THROW(cosine_rate(1, 10, 10), UserError);
  EXPECT_THROW(cosine_rate(1, 10, -1), UserError);
}

/// Five steps of an optimiser on sum(a p^2), whose gradient is 2 a p, against `formula`(p, g, step from 1).
void expect_follows(const Parameter& p, Optimiser& optimiser,
                    const std::function<void(Vector&, const Vector&, int)>& formula) {
  const Vector a{1, 0.5, 3};
  Compiled step = compile([&](const std::vector<Tensor>&) -> std::vector<Tensor> {
    const Tensor loss = (p.tensor().square() * Tensor::of({1, 0.5, 3})).sum();
    optimiser.minimise(loss);
    return {loss};
  });
  Vector want{p.storage().at(0), p.storage().at(1), p.storage().at(2)};
  for (int t = 1; t <= 5; ++t) {
    const double loss = step({})[0].item();
    double wanted_loss = 0;
    Vector g;
    for (size_t i = 0; i < 3; ++i) wanted_loss += a[i] * want[i] * want[i], g.push_back(2 * a[i] * want[i]);
    EXPECT_NEAR(loss, wanted_loss, 1e-4 * (1 + wanted_loss)) << "step " << t;
    formula(want, g, t);
    for (size_t i = 0; i < 3; ++i)
      EXPECT_NEAR(p.storage().at(static_cast<int64_t>(i)), want[i], 2e-5)
          << "step " << t << ", element " << i;
  }
}

Parameter three() { return Parameter(Array::of<float>({3}, {1, -2, 0.5}), true, "p"); }

TEST(Sgd, Plain) {
  const Parameter p = three();
  Sgd sgd({p}, {.rate = 0.05});
  expect_follows(p, sgd, [](Vector& x, const Vector& g, int) {
    for (size_t i = 0; i < x.size(); ++i) x[i] -= 0.05 * g[i];
  });
}

TEST(Sgd, MomentumAndWeightDecay) {
  const Parameter p = three();
  Sgd sgd({p}, {.rate = 0.05, .momentum = 0.9, .weight_decay = 0.1});
  Vector v(3);
  expect_follows(p, sgd, [&](Vector& x, const Vector& g, int) {
    for (size_t i = 0; i < x.size(); ++i) {
      v[i] = 0.9 * v[i] + g[i] + 0.1 * x[i];
      x[i] -= 0.05 * v[i];
    }
  });
}

TEST(Sgd, Nesterov) {
  const Parameter p = three();
  Sgd sgd({p}, {.rate = 0.05, .momentum = 0.8, .nesterov = true});
  Vector v(3);
  expect_follows(p, sgd, [&](Vector& x, const Vector& g, int) {
    for (size_t i = 0; i < x.size(); ++i) {
      v[i] = 0.8 * v[i] + g[i];
      x[i] -= 0.05 * (g[i] + 0.8 * v[i]);
    }
  });
}

/// Adam's update with its decay on the gradient or, decoupled, on the parameter.
auto adam_formula(double rate, double decay, bool decoupled) {
  return [=, m = Vector(3), v = Vector(3)](Vector& x, const Vector& gradient, int t) mutable {
    for (size_t i = 0; i < x.size(); ++i) {
      const double g = gradient[i] + (decoupled ? 0 : decay * x[i]);
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.999 * v[i] + 0.001 * g * g;
      if (decoupled) x[i] -= rate * decay * x[i];
      x[i] -= rate * (m[i] / (1 - std::pow(0.9, t))) / (std::sqrt(v[i] / (1 - std::pow(0.999, t))) + 1e-8);
    }
  };
}

TEST(Adam, DecayOnTheGradient) {
  const Parameter p = three();
  Adam adam({p}, {.rate = 0.1, .weight_decay = 0.2});
  expect_follows(p, adam, adam_formula(0.1, 0.2, false));
}

TEST(Adam, DecoupledDecay) {
  const Parameter p = three();
  const auto adam = adamw({p}, 0.1, 0.3);
  expect_follows(p, *adam, adam_formula(0.1, 0.3, true));
}

TEST(Optimiser, SetRateActsFromTheNextRun) {
  const Parameter p = three();
  Sgd sgd({p}, {.rate = 0.5});
  sgd.set_rate(0.01);
  EXPECT_NEAR(sgd.rate(), 0.01, 1e-9);
  expect_follows(p, sgd, [&](Vector& x, const Vector& g, int t) {
    for (size_t i = 0; i < x.size(); ++i) x[i] -= 0.01 * t * g[i];
    sgd.set_rate(0.01 * (t + 1));
  });
}

TEST(Optimiser, RefusesAnotherNumberOfGradientsAndOtherDims) {
  Sgd sgd({three()});
  const auto update = [&](std::vector<Tensor> gradients) {
    compile([&](const std::vector<Tensor>&) -> std::vector<Tensor> {
      sgd.update(gradients);
      return {Tensor(1.0)};
    })({});
  };
  EXPECT_THROW(update({}), UserError);
  EXPECT_THROW(update({Tensor::zeros({3}), Tensor::zeros({3})}), UserError);
  EXPECT_THROW(update({Tensor::zeros({1})}), UserError);
  EXPECT_NO_THROW(update({Tensor::zeros({3})}));
}

/// Parameters of each dtype follow the formula: Adam's moments are kept in f32 at least.
TEST(Optimiser, UpdatesParametersOfOtherDtypes) {
  for (const auto& [dtype, tolerance] :
       {std::pair{Dtype::f64, 1e-7}, {Dtype::bf16, 4e-2}, {Dtype::f16, 5e-3}}) {
    for (const bool use_adam : {false, true}) {
      const Parameter p(Tensor::of({1, -2, 0.5}).cast(dtype).array(), true, "p");
      Sgd sgd({p}, {.rate = 0.05, .momentum = 0.9, .weight_decay = 0.1});
      Adam adam({p}, {.rate = 0.1, .weight_decay = 0.2, .decoupled = true});
      Compiled step = compile([&](const std::vector<Tensor>&) -> std::vector<Tensor> {
        const Tensor loss = (p.tensor().square() * Tensor::of({1, 0.5, 3}).cast(dtype)).sum();
        (use_adam ? static_cast<Optimiser&>(adam) : sgd).minimise(loss, {.clip_norm = 1e9});
        return {loss};
      });
      Vector want{1, -2, 0.5}, v(3);
      const Vector a{1, 0.5, 3};
      auto follow = adam_formula(0.1, 0.2, true);
      for (int t = 1; t <= 4; ++t) {
        step({});
        Vector g;
        for (size_t i = 0; i < 3; ++i) g.push_back(2 * a[i] * want[i]);
        if (use_adam) {
          follow(want, g, t);
        } else {
          for (size_t i = 0; i < 3; ++i) v[i] = 0.9 * v[i] + g[i] + 0.1 * want[i], want[i] -= 0.05 * v[i];
        }
        for (size_t i = 0; i < 3; ++i)
          EXPECT_NEAR(p.storage().at(static_cast<int64_t>(i)), want[i], tolerance)
              << ir::dtype_name(dtype) << (use_adam ? " Adam" : " SGD") << " step " << t;
      }
    }
  }
}

TEST(Optimiser, MinimiseClipsTheGradients) {
  const Parameter p(Array::of<float>({2}, {0, 0}), true, "p"), q(Array::of<float>({}, {0}), true, "q");
  Sgd sgd({p, q}, {.rate = 1});
  compile([&](const std::vector<Tensor>&) -> std::vector<Tensor> {
    const Tensor loss = (p.tensor() * Tensor::of({3, 0})).sum() + q.tensor() * 4;  // the gradients' norm is 5
    sgd.minimise(loss, {.clip_norm = 0.5});
    return {loss};
  })({});
  EXPECT_NEAR(p.storage().at(0), -0.3, 1e-5);
  EXPECT_NEAR(q.storage().at(0), -0.4, 1e-5);
  EXPECT_THROW(sgd.minimise(Tensor(1.0), {.clip_norm = -1}), UserError);
  EXPECT_THROW(sgd.minimise(Tensor(1.0), {.clip_norm = std::nan("")}), UserError);
}

/// A layer in f16 whose gradient is `size` before any scale: one step of Adam moves what has a gradient by 0.1.
struct TinyGradients {
  explicit TinyGradients(double size, double fixed, const LossScale* found)
      : step(compile(
            [=, this](const std::vector<Tensor>& in) -> std::vector<Tensor> {
              const Tensor loss = matmul(in[0], weight.tensor()).sum() * size;
              adam.minimise(loss, {.loss_scale = found});
              return {loss};
            },
            {.precision = "f16", .loss_scale = fixed})) {}
  /// How far the last step moved the weights, and Adam's count.
  double move() {
    const double before = weight.storage().at(0);
    step({Tensor::ones({1, 4})});
    return before - weight.storage().at(0);
  }
  Parameter weight{Array(Dtype::f32, {4, 3}), true, "weight"};
  Adam adam{{weight}, {.rate = 0.1, .eps = 1e-20}};
  Compiled step;
};

TEST(LossScale, KeepsSmallGradientsOfF16AboveZero) {
  EXPECT_EQ(TinyGradients(1e-9, 1, nullptr).move(), 0) << "no underflow: the test shows nothing";
  EXPECT_NEAR(TinyGradients(1e-9, 65536, nullptr).move(), 0.1, 1e-3);
  const LossScale scale;
  TinyGradients found(1e-9, 1, &scale);
  EXPECT_NEAR(found.move(), 0.1, 1e-3);
  EXPECT_EQ(scale.value(), 65536);
  EXPECT_EQ(scale.skipped(), 0);
  EXPECT_THROW(TinyGradients(1, 0, nullptr).move(), UserError);
}

TEST(LossScale, AStepThatOverflowsChangesNothingAndHalvesIt) {
  const LossScale scale(65536, 2);
  TinyGradients run(4, 1, &scale);  // 4 * 2^14 is beyond f16's 65504
  for (const double before : {65536, 32768, 16384}) {
    EXPECT_EQ(scale.value(), before);
    EXPECT_EQ(run.move(), 0) << before;
    run.adam.each_state([](const std::string& path, Parameter& p) {
      if (path != "optimiser.rate") EXPECT_EQ(p.storage().at(0), 0) << path;
    });
  }
  EXPECT_EQ(scale.skipped(), 3);
  for (const double before : {8192, 8192, 16384, 8192}) {  // doubled after two good steps, which is too much
    EXPECT_EQ(scale.value(), before);
    if (before > 10000) EXPECT_EQ(run.move(), 0);
    else EXPECT_NEAR(run.move(), 0.1, 1e-3);
  }
  EXPECT_EQ(scale.skipped(), 4);
}

TEST(LossScale, StaysInItsRange) {
  const LossScale low(2), high(1 << 23, 1);
  TinyGradients nan(std::nan(""), 1, &low), small(1e-12, 1, &high);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(nan.move(), 0);
  EXPECT_EQ(low.value(), 1);
  for (int i = 0; i < 3; ++i) small.move();
  EXPECT_EQ(high.value(), 1 << 24);
  EXPECT_THROW(LossScale(3), UserError);
  EXPECT_THROW(LossScale(0.5), UserError);
  EXPECT_THROW(LossScale(65536, 0), UserError);
}

TEST(ClipByNorm, ScalesOnlyWhatIsTooLong) {
  const std::vector<Tensor> g{Tensor::of({3, 0}), Tensor::of({0, 4}).reshape({2, 1})};  // global norm 5
  const std::vector<Tensor> cut = clip_by_norm(g, 1);
  EXPECT_NEAR(cut[0].to_vector<float>()[0], 0.6, 1e-5);
  EXPECT_NEAR(cut[1].to_vector<float>()[1], 0.8, 1e-5);
  const std::vector<Tensor> kept = clip_by_norm(g, 10);
  EXPECT_EQ(kept[0].to_vector<float>(), g[0].to_vector<float>());
  EXPECT_EQ(kept[1].to_vector<float>(), g[1].to_vector<float>());
  const std::vector<Tensor> none{Tensor::zeros({3})};
  EXPECT_EQ(clip_by_norm(none, 1)[0].to_vector<float>(), (std::vector<float>{0, 0, 0}));
  EXPECT_TRUE(clip_by_norm({}, 1).empty());
  const std::vector<Tensor> mixed{Tensor::of({3, 0}, Dtype::f64), Tensor::of({0, 4}, Dtype::bf16)};
  const std::vector<Tensor> mixed_cut = clip_by_norm(mixed, 1);
  EXPECT_NEAR(mixed_cut[0].to_vector<double>()[0], 0.6, 1e-6);
  EXPECT_EQ(mixed_cut[1].dtype(), Dtype::bf16);
}

}  // namespace
}  // namespace espalier::nn
