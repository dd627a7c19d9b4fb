// Numbers that cannot be: labels and positions out of range, options of optimisers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nn/layers.h"
#include "nn/losses.h"
#include "nn/optim.h"
#include "support/errors.h"

namespace espalier {
namespace {

using test::error_of;
using testing::AllOf;
using testing::HasSubstr;

TEST(Values, EagerLabelsAndPositionsAreChecked) {
  nn::Init init(1);
  const nn::Embedding table(4, 2, init);
  const Tensor logits = Tensor::ones({2, 3});
  const Tensor bad = Tensor::of({0, 5}, Dtype::i64), floats = Tensor::of({0, 5});
  const auto message = AllOf(HasSubstr("5"), HasSubstr("2"));
  EXPECT_THAT(error_of([&] { nn::cross_entropy(logits, bad).item(); }), message);
  EXPECT_THAT(error_of([&] { nn::cross_entropy(logits, floats.cast(Dtype::i64)).item(); }),
              AllOf(HasSubstr("cross_entropy"), message));
  EXPECT_THAT(error_of([&] {
                nn::cross_entropy(logits, (bad + Tensor::of({0, 1}, Dtype::i64))).item();
              }),
              AllOf(HasSubstr("cross_entropy"), HasSubstr("6")));
  for (const double id : {4.0, -1.0}) {
    EXPECT_THAT(error_of([&] { (void)table(Tensor::of({id}, Dtype::i64)).array(); }),
                HasSubstr("out of range"));
    EXPECT_THAT(error_of([&] { (void)table(Tensor::of({id}).cast(Dtype::i64)).array(); }),
                AllOf(HasSubstr("embedding"), HasSubstr("0 to 3")));
  }
  EXPECT_EQ(error_of([&] { (void)table(Tensor::of({0, 3}).cast(Dtype::i64)).array(); }), "no error");
}

TEST(Values, OptionsOfOptimisersAreChecked) {
  nn::Init init(1);
  nn::Linear layer(3, 2, init);
  const std::vector<Parameter> p = parameters_of(layer);
  const double nan = std::nan("");
  const auto adam = [&](nn::AdamOptions o) { return error_of([&] { const nn::Adam a(p, o); }); };
  const auto sgd = [&](nn::SgdOptions o) { return error_of([&] { const nn::Sgd s(p, o); }); };
  EXPECT_THAT(adam({.rate = -1}), AllOf(HasSubstr("Adam: rate"), HasSubstr("-1")));
  EXPECT_THAT(adam({.rate = nan}), HasSubstr("Adam: rate"));
  EXPECT_THAT(adam({.beta1 = 1}), HasSubstr("Adam: beta1"));
  EXPECT_THAT(adam({.beta2 = -0.1}), HasSubstr("Adam: beta2"));
  EXPECT_THAT(adam({.eps = nan}), HasSubstr("Adam: eps"));
  EXPECT_THAT(adam({.weight_decay = -1}), HasSubstr("Adam: weight_decay"));
  EXPECT_EQ(adam({}), "no error");
  EXPECT_THAT(sgd({.rate = INFINITY}), HasSubstr("Sgd: rate"));
  EXPECT_THAT(sgd({.momentum = 2}), AllOf(HasSubstr("Sgd: momentum"), HasSubstr("2")));
  EXPECT_THAT(sgd({.weight_decay = nan}), HasSubstr("Sgd: weight_decay"));
  EXPECT_EQ(sgd({.rate = 0, .momentum = 0.9}), "no error");
  EXPECT_THAT(error_of([] { const nn::Adam none({}); }), HasSubstr("none is trainable"));
  EXPECT_THAT(error_of([&] {
                const nn::Sgd twice({p[0], p[1], p[0]});
              }),
              AllOf(HasSubstr("stands twice"), HasSubstr("number 2")));
  nn::Sgd good(p);
  EXPECT_THAT(error_of([&] { good.set_rate(nan); }), HasSubstr("rate"));
}

}  // namespace
}  // namespace espalier
