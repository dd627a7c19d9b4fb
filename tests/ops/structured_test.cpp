// Contractions, windows, norms, activations, losses: values worked out by hand or by plain loops, and what they refuse.
#include <gmock/gmock.h>

#include <cmath>

#include "op/activation.h"
#include "op/contraction.h"
#include "op/control.h"
#include "op/elementwise.h"
#include "op/loss.h"
#include "op/norm.h"
#include "op/sampling.h"
#include "op/window.h"
#include "support/arrays.h"
#include "support/errors.h"
#include "support/op_samples.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dim;
using ir::Dtype;
using ir::Type;
using ir::Value;

Array array(Dtype dtype, std::vector<int64_t> dims, std::vector<double> values) {
  Array a(dtype, std::move(dims));
  EXPECT_EQ(a.size(), static_cast<int64_t>(values.size()));
  for (int64_t i = 0; i < a.size(); ++i) a.set(i, values[static_cast<size_t>(i)]);
  return a;
}

std::vector<Array> eval_all(const std::vector<Value>& values) {
  ir::Graph g;
  for (const Value& v : values) g.outputs.push_back({"y" + std::to_string(g.outputs.size()), v});
  return target::reference::evaluate(g, {});
}
Array eval(const Value& v) { return eval_all({v})[0]; }

std::vector<double> numbers(const Value& v) {
  const Array a = eval(v);
  std::vector<double> out;
  for (int64_t i = 0; i < a.size(); ++i) out.push_back(a.at(i));
  return out;
}

/// f32 constant.
Value in(std::vector<int64_t> dims, std::vector<double> values) {
  return ir::constant(array(Dtype::f32, std::move(dims), std::move(values)));
}

Value random(ir::SampleRng& rng, std::vector<int64_t> dims, Dtype dtype = Dtype::f64) {
  return ir::constant(op::draw_array(rng, dtype, std::move(dims)));
}

using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

// ---- dot

TEST(Dot, MatrixProductsAndOuterProducts) {
  const Value a = in({2, 3}, {1, 2, 3, 4, 5, 6}), b = in({3, 2}, {1, 0, 0, 1, 1, 1});
  EXPECT_THAT(numbers(op::matmul(a, b)), ElementsAre(4, 5, 10, 11));
  const Value v = in({2}, {2, 3}), w = in({2}, {5, 7});
  EXPECT_THAT(numbers(op::dot(v, w, {})), ElementsAre(10, 14, 15, 21));
  EXPECT_THAT(numbers(op::dot(v, w, {.batch_a = {0}, .batch_b = {0}, .contract_a = {}, .contract_b = {}})),
              ElementsAre(10, 21));
  EXPECT_THAT(numbers(op::dot(v, w, {.batch_a = {}, .batch_b = {}, .contract_a = {0}, .contract_b = {0}})),
              ElementsAre(31));
}

TEST(Dot, AnyContractionEqualsPlainLoops) {
  // y[n, i, j] = sum_{k, l} a[k, n, i, l] b[l, j, k, n]
  ir::SampleRng rng(1);
  const Value a = random(rng, {2, 3, 4, 5}), b = random(rng, {5, 6, 2, 3});
  const op::DotAttrs at{
      .batch_a = {1}, .batch_b = {3}, .contract_a = {0, 3}, .contract_b = {2, 0}, .out = Dtype::f64};
  const Array x = eval(a), w = eval(b), y = eval(op::dot(a, b, at));
  ASSERT_EQ(y.dims(), (std::vector<int64_t>{3, 4, 6}));
  for (int64_t n = 0; n < 3; ++n)
    for (int64_t i = 0; i < 4; ++i)
      for (int64_t j = 0; j < 6; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < 2; ++k)
          for (int64_t l = 0; l < 5; ++l)
            sum += x.at(((k * 3 + n) * 4 + i) * 5 + l) * w.at(((l * 6 + j) * 2 + k) * 3 + n);
        EXPECT_NEAR(y.at((n * 4 + i) * 6 + j), sum, 1e-12);
      }
}

TEST(Dot, AccumulatesWide) {
  const Value bytes = ir::constant(array(Dtype::i8, {3}, {100, 100, 100}));
  const op::DotAttrs at{
      .batch_a = {}, .batch_b = {}, .contract_a = {0}, .contract_b = {0}, .out = Dtype::i32};
  EXPECT_THAT(numbers(op::dot(bytes, bytes, at)), ElementsAre(30000));
  op::DotAttrs narrow = at;
  narrow.out = Dtype::i8;
  EXPECT_THAT(numbers(op::dot(bytes, bytes, narrow)), ElementsAre(30000 - 117 * 256));  // wraps
  // 256 + 1 + 1 in bf16: each sum alone would round back to 256.
  const Value halves = ir::constant(array(Dtype::bf16, {3}, {16, 1, 1}));
  op::DotAttrs wide = at;
  wide.out = Dtype::f32;
  EXPECT_THAT(numbers(op::dot(halves, halves, wide)), ElementsAre(258));
}

TEST(Dot, RefusesByName) {
  ir::SampleRng rng(1);
  const Value a = random(rng, {2, 3}), b = random(rng, {2, 3});
  EXPECT_THAT(error_of([&] { op::matmul(a, b); }),
              AllOf(HasSubstr("op dot"), HasSubstr("axis 1 of a is 3, axis 0 of b is 2")));
  EXPECT_THAT(error_of([&] { op::matmul(a, random(rng, {3})); }), HasSubstr("matmul: ranks do not fit"));
  EXPECT_THAT(error_of([&] {
                op::dot(
                    a, b,
                    {.batch_a = {2}, .batch_b = {0}, .contract_a = {}, .contract_b = {}, .out = Dtype::f64});
              }),
              HasSubstr("out of range"));
  EXPECT_THAT(
      error_of([&] {
        op::dot(a, b,
                {.batch_a = {1}, .batch_b = {1}, .contract_a = {1}, .contract_b = {0}, .out = Dtype::f64});
      }),
      HasSubstr("named twice"));
  EXPECT_THAT(error_of([&] { op::dot(a, b, {}); }), HasSubstr("got f32; allowed: f64"));
  EXPECT_THAT(error_of([&] {
                op::matmul(a, random(rng, {3, 2}, Dtype::f32));
              }),
              HasSubstr("different dtypes"));
}

// ---- convolution

TEST(Conv, OneAxisByHand) {
  // x = 1 2 3 4, w = 1 10: correlation, not flipped.
  const Value x = in({1, 4, 1}, {1, 2, 3, 4}), w = in({1, 2, 1}, {1, 10});
  op::ConvAttrs at = op::plain_conv(1, Dtype::f32);
  EXPECT_THAT(numbers(op::conv(x, w, at)), ElementsAre(21, 32, 43));
  at.pad_low = {1}, at.pad_high = {2};
  EXPECT_THAT(numbers(op::conv(x, w, at)), ElementsAre(10, 21, 32, 43, 4, 0));
  at.stride = {2};
  EXPECT_THAT(numbers(op::conv(x, w, at)), ElementsAre(10, 32, 4));
  at.dilation = {2};
  EXPECT_THAT(numbers(op::conv(x, w, at)), ElementsAre(20, 42, 4));
}

TEST(Conv, TransposedSpreadsEachInput) {
  // Stride 2, kernel 2: every input makes two outputs; the first axis of w is the input's channels.
  op::ConvAttrs at = op::plain_conv(1, Dtype::f32);
  at.stride = {2}, at.spatial = {6};
  const Value x = in({1, 3, 1}, {1, 2, 3}), w = in({1, 2, 1}, {1, 10});
  EXPECT_THAT(numbers(op::conv_data_grad(x, w, at)), ElementsAre(1, 10, 2, 20, 3, 30));
}

/// The definition, loop by loop, for two spatial axes.
double conv_at(const Array& x, const Array& w, const op::ConvAttrs& at, int64_t n, int64_t p, int64_t q,
               int64_t o) {
  const auto &xd = x.dims(), &wd = w.dims();
  const int64_t per_group = wd[0] / at.groups, first = o / per_group * wd[3];
  double sum = 0;
  for (int64_t r = 0; r < wd[1]; ++r)
    for (int64_t s = 0; s < wd[2]; ++s) {
      const int64_t i = p * at.stride[0] + r * at.dilation[0] - at.pad_low[0];
      const int64_t j = q * at.stride[1] + s * at.dilation[1] - at.pad_low[1];
      if (i < 0 || i >= xd[1] || j < 0 || j >= xd[2]) continue;
      for (int64_t c = 0; c < wd[3]; ++c)
        sum += x.at(((n * xd[1] + i) * xd[2] + j) * xd[3] + first + c) *
               w.at(((o * wd[1] + r) * wd[2] + s) * wd[3] + c);
    }
  return sum;
}

TEST(Conv, TwoAxesEqualPlainLoops) {
  ir::SampleRng rng(2);
  const Value x = random(rng, {2, 7, 6, 4}), w = random(rng, {6, 3, 2, 2});
  const op::ConvAttrs at{.stride = {2, 1},
                         .pad_low = {1, 0},
                         .pad_high = {2, 3},
                         .dilation = {1, 2},
                         .groups = 2,
                         .spatial = {},
                         .out = Dtype::f64};
  const Array xs = eval(x), ws = eval(w), y = eval(op::conv(x, w, at));
  ASSERT_EQ(y.dims(), (std::vector<int64_t>{2, 4, 7, 6}));
  for (int64_t n = 0, k = 0; n < 2; ++n)
    for (int64_t p = 0; p < 4; ++p)
      for (int64_t q = 0; q < 7; ++q)
        for (int64_t o = 0; o < 6; ++o, ++k) EXPECT_NEAR(y.at(k), conv_at(xs, ws, at, n, p, q, o), 1e-12);
}

TEST(Conv, TheThreeAreTransposesOfEachOther) {
  // <conv(x, w), dy> = <x, data_grad(dy, w)> = <w, weight_grad(x, dy)> for every sample.
  ir::SampleRng rng(3);
  const auto inner = [](const Value& a, const Value& b) {
    const Value product = op::mul(a, b);
    return eval(op::reduce_sum(product, op::all_axes(product))).at(0);
  };
  for (int i = 0; i < 60; ++i) {
    const ir::Sample s = op::conv_op.sample(rng, Dtype::f64);
    const Value x = ir::constant(s.inputs[0]), w = ir::constant(s.inputs[1]),
                y = make(op::conv_op, {x, w}, s.attrs);
    const Value dy = random(rng, ir::static_dims(y.dims()));
    op::ConvAttrs data = s.attrs.get<op::ConvAttrs>(), weight = data;
    data.spatial.assign(s.inputs[0].dims().begin() + 1, s.inputs[0].dims().end() - 1);
    weight.spatial.assign(s.inputs[1].dims().begin() + 1, s.inputs[1].dims().end() - 1);
    const double want = inner(y, dy);
    EXPECT_NEAR(inner(x, op::conv_data_grad(dy, w, data)), want, 1e-10 * (1 + std::fabs(want)));
    EXPECT_NEAR(inner(w, op::conv_weight_grad(x, dy, weight)), want, 1e-10 * (1 + std::fabs(want)));
  }
}

TEST(Conv, RefusesByName) {
  const Value x = ir::new_input("x", {Dtype::f32, {Dim::symbol("batch"), 8, 8, 6}});
  const auto weights = [](ir::Dims dims) { return ir::new_input("w", {Dtype::f32, std::move(dims)}); };
  op::ConvAttrs at = op::plain_conv(2, Dtype::f32);
  EXPECT_EQ(op::conv(x, weights({4, 3, 3, 6}), at).type(),
            (Type{Dtype::f32, {Dim::symbol("batch"), 6, 6, 4}}));
  EXPECT_THAT(error_of([&] {
                op::conv(x, weights({4, 3, 3, 5}), at);
              }),
              AllOf(HasSubstr("op conv"), HasSubstr("got 5; allowed: 6")));
  EXPECT_THAT(error_of([&] {
                op::conv(x, weights({4, 9, 3, 6}), at);
              }),
              HasSubstr("larger than the padded input on spatial axis 0"));
  EXPECT_THAT(error_of([&] { op::conv(x, weights({4, 3, 3}), at); }), HasSubstr("ranks 3 to 5"));
  EXPECT_THAT(error_of([&] {
                op::conv(x, weights({4, 3, 3, 6}), op::plain_conv(1, Dtype::f32));
              }),
              HasSubstr("stride"));
  at.groups = 4;
  EXPECT_THAT(error_of([&] { op::conv(x, weights({4, 3, 3, 1}), at); }), HasSubstr("groups does not divide"));
  at = op::plain_conv(2, Dtype::f32);
  at.spatial = {9, 8};
  const Value dy = ir::new_input("dy", {Dtype::f32, {1, 6, 6, 4}});
  EXPECT_THAT(error_of([&] {
                op::conv_data_grad(dy, weights({4, 3, 3, 6}), at);
              }),
              AllOf(HasSubstr("op conv_data_grad"), HasSubstr("got [6,6]; allowed: [7,6]")));
  const Value symbolic = ir::new_input("x", {Dtype::f32, {1, Dim::symbol("rows"), 8, 6}});
  EXPECT_THAT(error_of([&] {
                op::conv(symbolic, weights({4, 3, 3, 6}), op::plain_conv(2, Dtype::f32));
              }),
              HasSubstr("symbolic"));
}

// ---- pooling and resizing

op::PoolAttrs pool(std::vector<int64_t> window, std::vector<int64_t> stride, std::vector<int64_t> low,
                   std::vector<int64_t> high) {
  return {.window = std::move(window),
          .stride = std::move(stride),
          .pad_low = std::move(low),
          .pad_high = std::move(high),
          .count_pad = false,
          .spatial = {}};
}

TEST(Pool, MaximaAndWhereTheyStand) {
  const Value x = in({1, 2, 4, 1}, {1, 5, 2, 2, 5, 0, 2, 2});
  const std::vector<Value> y = op::max_pool(x, pool({2, 2}, {2, 2}, {0, 0}, {0, 0}));
  EXPECT_THAT(numbers(y[0]), ElementsAre(5, 2));
  EXPECT_EQ(y[1].dtype(), Dtype::u8);
  EXPECT_THAT(numbers(y[1]), ElementsAre(1, 0)) << "the first of equals wins";
  op::PoolAttrs back = pool({2, 2}, {2, 2}, {0, 0}, {0, 0});
  back.spatial = {2, 4};
  EXPECT_THAT(numbers(op::max_pool_grad(in({1, 1, 2, 1}, {10, 20}), y[1], back)),
              ElementsAre(0, 10, 20, 0, 0, 0, 0, 0));
}

TEST(Pool, PaddingNeverWinsAndNanDoes) {
  const double nan = std::nan("");
  const std::vector<Value> y = op::max_pool(in({1, 3, 1}, {-4, -3, nan}), pool({2}, {1}, {1}, {1}));
  const Array got = eval(y[0]);
  EXPECT_EQ(got.at(0), -4);
  EXPECT_EQ(got.at(1), -3);
  EXPECT_TRUE(std::isnan(got.at(2)) && std::isnan(got.at(3)));
  EXPECT_THAT(numbers(y[1]), ElementsAre(1, 1, 1, 0));
}

TEST(Pool, LargeWindowsIndexInI32) {
  const Value x = ir::new_input("x", {Dtype::f32, {1, 20, 20, 1}});
  EXPECT_EQ(op::max_pool(x, pool({16, 16}, {1, 1}, {0, 0}, {0, 0}))[1].dtype(), Dtype::u8);
  EXPECT_EQ(op::max_pool(x, pool({16, 17}, {1, 1}, {0, 0}, {0, 0}))[1].dtype(), Dtype::i32);
}

TEST(Pool, AveragesCountWhatIsInside) {
  const Value x = in({1, 3, 1}, {2, 4, 6});
  op::PoolAttrs at = pool({2}, {1}, {1}, {1});
  EXPECT_THAT(numbers(op::avg_pool(x, at)), ElementsAre(2, 3, 5, 6));
  at.count_pad = true;
  EXPECT_THAT(numbers(op::avg_pool(x, at)), ElementsAre(1, 3, 5, 3));
  at.spatial = {3};
  EXPECT_THAT(numbers(op::avg_pool_grad(in({1, 4, 1}, {2, 2, 2, 2}), at)), ElementsAre(2, 2, 2));
}

TEST(Pool, RefusesByName) {
  const Value x = ir::new_input("x", {Dtype::f32, {1, 4, 1}});
  EXPECT_THAT(error_of([&] { op::max_pool(x, pool({2}, {1}, {2}, {0})); }),
              AllOf(HasSubstr("op max_pool"), HasSubstr("as large as the window")));
  EXPECT_THAT(error_of([&] { op::avg_pool(x, pool({5}, {1}, {0}, {0})); }),
              HasSubstr("larger than the padded input"));
  EXPECT_THAT(error_of([&] { op::max_pool(x, pool({2}, {0}, {0}, {0})); }), HasSubstr("stride is too small"));
}

op::ResizeAttrs to(std::vector<int64_t> spatial, op::ResizeMode mode, bool align = false) {
  return {.spatial = std::move(spatial), .mode = mode, .align_corners = align};
}

TEST(Resize, NearestAndLinearByHand) {
  using enum op::ResizeMode;
  const Value two = in({1, 2, 1}, {1, 3}), three = in({1, 3, 1}, {1, 2, 4});
  EXPECT_THAT(numbers(op::resize(two, to({4}, nearest))), ElementsAre(1, 1, 3, 3));
  EXPECT_THAT(numbers(op::resize(three, to({2}, nearest))), ElementsAre(1, 4));
  EXPECT_THAT(numbers(op::resize(two, to({4}, linear))), ElementsAre(1, 1.5, 2.5, 3));
  EXPECT_THAT(numbers(op::resize(two, to({3}, linear, true))), ElementsAre(1, 2, 3));
  EXPECT_THAT(numbers(op::resize(three, to({1}, linear, true))), ElementsAre(1));
  EXPECT_THAT(numbers(op::resize(three, to({1}, linear))), ElementsAre(2));
  EXPECT_THAT(numbers(op::resize(three, to({5}, nearest, true))), ElementsAre(1, 2, 2, 4, 4));
  // Two axes: the mean of four neighbours in the middle.
  EXPECT_THAT(numbers(op::resize(in({1, 2, 2, 1}, {0, 4, 8, 12}), to({3, 3}, linear, true))),
              ElementsAre(0, 2, 4, 4, 6, 8, 8, 10, 12));
  EXPECT_THAT(numbers(op::resize_grad(in({1, 4, 1}, {1, 1, 1, 1}), to({2}, linear))), ElementsAre(2, 2));
  const Value mask = ir::constant(array(Dtype::u8, {1, 2, 1}, {0, 200}));
  EXPECT_THAT(numbers(op::resize(mask, to({4}, nearest))), ElementsAre(0, 0, 200, 200));
  EXPECT_THAT(error_of([&] { op::resize(mask, to({4}, linear)); }), HasSubstr("needs floats"));
}

// ---- normalisation

/// Mean and biased variance of f32 data, in f64 and two passes.
std::pair<double, double> moments(const Array& x) {
  double mean = 0, var = 0;
  for (int64_t i = 0; i < x.size(); ++i) mean += x.at(i) / static_cast<double>(x.size());
  for (int64_t i = 0; i < x.size(); ++i)
    var += (x.at(i) - mean) * (x.at(i) - mean) / static_cast<double>(x.size());
  return {mean, var};
}

TEST(BatchNorm, StatisticsSurviveAMeanFarFromZero) {
  ir::SampleRng rng(4);
  for (const double mean : {0.0, 1.0, -100.0, 1000.0}) {
    const Array x =
        op::draw_array(rng, Dtype::f32, {50, 40, 1}, mean - 1.7320508, mean + 1.7320508);  // std 1
    const auto [want_mean, want_var] = moments(x);
    const Value one = in({1}, {1}), zero = in({1}, {0});
    const std::vector<Array> got = eval_all(op::batch_norm_train(ir::constant(x), one, zero, 0));
    EXPECT_NEAR(got[1].at(0), want_mean, 1e-6 * (1 + std::fabs(want_mean)));
    EXPECT_NEAR(got[2].at(0), want_var, 1e-5 * want_var) << "mean " << mean;
    const double r = 1 / std::sqrt(want_var);
    for (int64_t i = 0; i < 20; ++i) EXPECT_NEAR(got[0].at(i), (x.at(i) - want_mean) * r, 2e-4);
  }
}

TEST(BatchNorm, BlockedLayoutIsTheSameNumbers) {
  // [N, H, W, C] against [N, C/2, H, W, 2] with channels at axes 1 and 4.
  ir::SampleRng rng(5);
  const Value x = random(rng, {2, 3, 2, 4}), scale = random(rng, {4}), bias = random(rng, {4}),
              dy = random(rng, {2, 3, 2, 4});
  const auto block = [](const Value& v) {
    return op::transpose(op::reshape(v, {2, 3, 2, 2, 2}), {0, 3, 1, 2, 4});
  };
  const auto unblock = [](const Value& v) {
    return op::reshape(op::transpose(v, {0, 2, 3, 1, 4}), {2, 3, 2, 4});
  };
  const auto split = [](const Value& v) { return op::reshape(v, {2, 2}); };
  const op::BatchNormAttrs plain{.eps = 1e-3, .channel_axes = {3}},
      blocked{.eps = 1e-3, .channel_axes = {1, 4}};
  const std::vector<Value> a = make_all(op::batch_norm_train_op, {x, scale, bias}, plain);
  const std::vector<Value> b =
      make_all(op::batch_norm_train_op, {block(x), split(scale), split(bias)}, blocked);
  test::expect_close(eval_all({unblock(b[0]), op::reshape(b[1], {4}), op::reshape(b[2], {4})}), eval_all(a),
                     4);
  const std::vector<Value> da = make_all(op::batch_norm_grad_op, {x, scale, a[1], a[2], dy}, plain);
  const std::vector<Value> db =
      make_all(op::batch_norm_grad_op, {block(x), split(scale), b[1], b[2], block(dy)}, blocked);
  test::expect_close(eval_all({unblock(db[0]), op::reshape(db[1], {4}), op::reshape(db[2], {4})}),
                     eval_all(da), 10);
}

TEST(BatchNorm, SixteenBitInputsKeepStatisticsInF32) {
  const Value x = ir::new_input("x", {Dtype::bf16, {2, 3}}), s = ir::new_input("s", {Dtype::f32, {3}});
  const std::vector<Value> y = op::batch_norm_train(x, s, s, 1e-5);
  EXPECT_EQ(y[0].type(), x.type());
  EXPECT_EQ(y[1].type(), s.type());
  EXPECT_THAT(error_of([&] { op::batch_norm_train(x, x, s, 1e-5); }),
              AllOf(HasSubstr("op batch_norm_train"), HasSubstr("scale"), HasSubstr("allowed: f32[3]")));
}

TEST(Norm, LayerAndGroupNormByHand) {
  const Value x = in({1, 4}, {1, 3, 10, 30}), one = in({4}, {1, 1, 1, 2}), shift = in({4}, {0, 0, 0, 5});
  test::expect_close(eval(op::group_norm(x, one, shift, 2, 0)), array(Dtype::f32, {1, 4}, {-1, 1, -1, 7}));
  test::expect_close(eval(op::layer_norm(in({1, 2}, {1, 3}), in({2}, {1, 1}), in({2}, {0, 1}), 0)),
                     array(Dtype::f32, {1, 2}, {-1, 2}));
  // Groups fold the spatial axes too, but not the batch.
  const Value image = in({2, 2, 1}, {1, 3, 5, 9});
  test::expect_close(eval(op::group_norm(image, in({1}, {1}), in({1}, {0}), 1, 0)),
                     array(Dtype::f32, {2, 2, 1}, {-1, 1, -1, 1}));
  EXPECT_THAT(error_of([&] { op::group_norm(x, one, shift, 3, 0); }),
              HasSubstr("groups does not divide the channels"));
}

// ---- activations and losses

TEST(Softmax, DoesNotOverflow) {
  test::expect_close(eval(op::softmax(in({3}, {1000, 1000, -1000}), 0)),
                     array(Dtype::f32, {3}, {0.5, 0.5, 0}));
  test::expect_close(eval(op::log_softmax(in({2}, {1000, 0}), 0)), array(Dtype::f32, {2}, {0, -1000}));
  EXPECT_THAT(error_of([&] {
                op::softmax(in({3}, {1, 2, 3}), 1);
              }),
              AllOf(HasSubstr("op softmax"), HasSubstr("axis")));
}

TEST(Activations, KnownValues) {
  const Value x = in({3}, {-1, 0, 2});
  test::expect_close(eval(op::gelu(x)), array(Dtype::f32, {3}, {-0.15865525, 0, 1.9544997}));
  test::expect_close(eval(op::gelu(x, true)), array(Dtype::f32, {3}, {-0.15880801, 0, 1.9545977}));
  test::expect_close(eval(op::silu(x)), array(Dtype::f32, {3}, {-0.26894142, 0, 1.7615942}));
}

TEST(Dropout, KeepsTheMeanAndRepeatsItself) {
  const Value x = ir::constant(Array::full(Dtype::f32, {100, 100}, 1));
  const auto at = [&](int64_t counter, int64_t stream) {
    return op::dropout(x, ir::constant(Dtype::i64, 7), ir::constant(Dtype::i64, static_cast<double>(counter)),
                       0.25, stream);
  };
  double sum = 0;
  for (const double v : numbers(at(1, 0))) {
    EXPECT_TRUE(v == 0 || std::fabs(v - 1 / 0.75) < 1e-6);
    sum += v;
  }
  EXPECT_NEAR(sum / 10000, 1, 0.03);
  EXPECT_EQ(at(1, 0), at(1, 0));
  EXPECT_NE(eval(at(1, 0)), eval(at(2, 0)));
  EXPECT_NE(eval(at(1, 0)), eval(at(1, 1)));
  EXPECT_THAT(
      error_of([&] { op::dropout(x, ir::constant(Dtype::i64, 7), ir::constant(Dtype::i64, 1), 1, 0); }),
      HasSubstr("rate"));
}

TEST(Loss, KnownValuesAndExtremes) {
  const Value labels = ir::constant(array(Dtype::i32, {2}, {0, 2}));
  const Value logits = in({2, 3}, {1000, 0, 0, 0, 0, 1000});
  EXPECT_THAT(numbers(op::cross_entropy(logits, labels)), ElementsAre(0));
  EXPECT_NEAR(eval(op::cross_entropy(in({2, 3}, {0, 0, 0, 1, 1, 1}), labels)).at(0), std::log(3.0), 1e-6);
  EXPECT_THAT(numbers(op::cross_entropy(in({2, 3}, {0, 1000, 0, 1000, 0, 0}), labels)), ElementsAre(1000));
  EXPECT_THAT(numbers(op::bce_with_logits(in({4}, {1000, -1000, 1000, -1000}), in({4}, {1, 0, 0, 1}))),
              ElementsAre(500));
  EXPECT_NEAR(eval(op::bce_with_logits(in({1}, {0}), in({1}, {0.3}))).at(0), std::log(2.0), 1e-6);
  EXPECT_THAT(numbers(op::mse(in({2}, {1, 2}), in({2}, {3, 2}))), ElementsAre(2));
  const Value half = ir::constant(array(Dtype::bf16, {1}, {1}));
  EXPECT_EQ(op::mse(half, half).type(), (Type{Dtype::f32, {}}));
  EXPECT_THAT(error_of([&] {
                op::cross_entropy(logits, ir::constant(array(Dtype::i32, {3}, {0, 1, 2})));
              }),
              AllOf(HasSubstr("op cross_entropy"), HasSubstr("got [3]; allowed: [2]")));
  EXPECT_THAT(error_of([&] { op::cross_entropy(logits, in({2}, {0, 1})); }), HasSubstr("op cross_entropy"));
  EXPECT_TRUE(std::isnan(eval(op::mse(in({0}, {}), in({0}, {}))).at(0)));
}

// ---- control flow

TEST(Control, ScanCarriesAndStacksInEitherDirection) {
  const Value x = in({3}, {1, 2, 3}), zero = ir::constant(Dtype::f32, 0);
  const std::vector<Type> types(2, Type{Dtype::f32, {}});
  const ir::GraphRef body = op::body_graph("sum", types, [](const auto& i) {
    const Value next = op::add(i[0], i[1]);
    return std::vector{next, next};
  });
  op::ScanAttrs at{.body = body, .carries = 1, .slices = 1, .length = 3, .reverse = false};
  EXPECT_THAT(numbers(op::scan(at, {zero, x})[1]), ElementsAre(1, 3, 6));
  at.reverse = true;
  EXPECT_THAT(numbers(op::scan(at, {zero, x})[1]), ElementsAre(6, 5, 3));
  EXPECT_THAT(numbers(op::scan(at, {zero, x})[0]), ElementsAre(6));
  at.length = 4;
  EXPECT_THAT(error_of([&] {
                op::scan(at, {zero, x});
              }),
              AllOf(HasSubstr("op scan"), HasSubstr("first dim is not length")));
  at.length = 3, at.carries = 2, at.slices = 0;
  EXPECT_THAT(error_of([&] { op::scan(at, {zero, x}); }), HasSubstr("operands are not what body takes"));
}

TEST(Control, CondAndWhileLoop) {
  const std::vector<Type> types{{Dtype::f32, {}}};
  const ir::GraphRef twice =
      op::body_graph("twice", types, [](const auto& i) { return std::vector{op::add(i[0], i[0])}; });
  const ir::GraphRef small = op::body_graph(
      "small", types, [](const auto& i) { return std::vector{op::lt(i[0], op::full_like(i[0], 100))}; });
  const ir::GraphRef whole =
      op::body_graph("whole", types, [](const auto& i) { return std::vector{op::cast(i[0], Dtype::i32)}; });
  const Value x = ir::constant(Dtype::f32, 3), yes = ir::constant(Dtype::boolean, 1),
              no = ir::constant(Dtype::boolean, 0);
  EXPECT_THAT(numbers(op::while_loop({small, twice, 1}, {x})[0]), ElementsAre(192));
  const ir::GraphRef same = op::body_graph("same", types, [](const auto& i) { return std::vector{i[0]}; });
  EXPECT_THAT(numbers(op::cond(yes, twice, same, {x})[0]), ElementsAre(6));
  EXPECT_THAT(numbers(op::cond(no, twice, same, {x})[0]), ElementsAre(3));
  EXPECT_THAT(error_of([&] { op::cond(yes, twice, whole, {x}); }),
              HasSubstr("branches give results of different types"));
  EXPECT_THAT(error_of([&] { op::cond(x, twice, same, {x}); }), HasSubstr("bool"));
  EXPECT_THAT(error_of([&] {
                op::while_loop({twice, twice, 1}, {x});
              }),
              HasSubstr("does not give a bool scalar"));
}

}  // namespace
}  // namespace espalier
