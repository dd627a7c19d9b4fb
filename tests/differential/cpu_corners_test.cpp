// Graphs at which two things that look alike are not: the CPU target against the reference.
#include <cmath>
#include <limits>

#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/random.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "op/window.h"
#include "support/arrays.h"
#include "support/cpu_run.h"
#include "support/op_samples.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
using ir::Value;

/// A graph over these inputs.
template <class Build>
void check_at(const std::vector<Array>& inputs, Build build, double factor = 8,
              const run::CompileOptions& options = {}) {
  ir::Graph g{.name = "corner", .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  for (const Array& a : inputs)
    g.inputs.push_back(ir::new_input("x" + std::to_string(g.inputs.size()), a.type()));
  for (const Value& v : build(g.inputs)) g.outputs.push_back({"y" + std::to_string(g.outputs.size()), v});
  SCOPED_TRACE(ir::print(g));
  test::expect_close(test::run_on_cpu(g, inputs, options), target::reference::evaluate(g, inputs), factor);
}

/// A graph over inputs of these types, at random values.
template <class Build>
void check(const std::vector<ir::Type>& types, Build build, double factor = 8) {
  ir::SampleRng rng(11);
  std::vector<Array> inputs;
  for (const ir::Type& t : types)
    inputs.push_back(op::draw_array(rng, t.dtype, ir::static_dims(t.dims), -2, 2));
  check_at(inputs, build, factor);
}
using Values = std::vector<Value>;

TEST(CpuCorners, AFoldThatIsAResultAndSpreadAlongBothAxesOfASquare) {
  for (const int64_t n : {16, 32, 33})
    check({{Dtype::f32, {n, 64}}}, [&](const Values& in) {
      const Value s = op::reduce_sum(op::mul(in[0], in[0]), {1});
      const ir::Dims square{n, n};
      return Values{s, op::add(op::broadcast_in(s, square, {0}), op::broadcast_in(s, square, {1})),
                    op::sub(op::broadcast_in(s, square, {1}), op::broadcast_in(s, square, {0}))};
    });
}

TEST(CpuCorners, ASquareConstantContractedAlongEitherAxis) {
  ir::SampleRng rng(12);
  const Value w = ir::constant(op::draw_array(rng, Dtype::f32, {256, 256}, -1, 1));
  check(
      {{Dtype::f32, {64, 256}}},
      [&](const Values& in) {
        op::DotAttrs plain{.batch_a = {}, .batch_b = {}, .contract_a = {1}, .contract_b = {0}},
            turned = plain;
        turned.contract_b = {1};
        return Values{op::dot(in[0], w, plain), op::dot(in[0], w, turned)};
      },
      256);
}

TEST(CpuCorners, AVectorOfTheLastAxisBesideAProductOfSeveralOrNoFreeAxes) {
  check(
      {{Dtype::f32, {64, 96}}, {Dtype::f32, {96, 8, 32}}, {Dtype::f32, {32}}},
      [](const Values& in) {
        const Value y =
            op::dot(in[0], in[1], {.batch_a = {}, .batch_b = {}, .contract_a = {1}, .contract_b = {0}});
        const Value row = op::broadcast_in(in[2], y.dims(), {2});
        return Values{op::relu(op::add(y, row)), op::mul(y, row)};
      },
      128);
  check(
      {{Dtype::f32, {64, 128, 96}}, {Dtype::f32, {96}}, {Dtype::f32, {128}}},
      [](const Values& in) {
        const Value y =
            op::dot(in[0], in[1], {.batch_a = {}, .batch_b = {}, .contract_a = {2}, .contract_b = {0}});
        return Values{op::add(y, op::broadcast_in(in[2], y.dims(), {1}))};
      },
      128);
}

TEST(CpuCorners, WholeNumbersThatADoubleHasNot) {
  constexpr int64_t most = std::numeric_limits<int64_t>::max();
  for (const int64_t n : {most, -most, (int64_t{1} << 53) + 1}) {
    Array scalar(Dtype::i64, {});
    *static_cast<int64_t*>(scalar.write()) = n;
    check({{Dtype::i64, {40}}}, [&](const Values& in) {
      const Value c = op::broadcast_in(ir::constant(scalar), in[0].dims(), {});
      return Values{op::min(in[0], c), op::max(in[0], c), op::logical_xor(in[0], c)};
    });
  }
}

TEST(CpuCorners, FloatsBetweenTwoIntegersSaturate) {
  const auto through = [](Dtype from, Dtype via, Dtype to) {
    check({{from, {64}}}, [&](const Values& in) {
      const Value hundred = op::broadcast_in(ir::constant(Dtype::f64, 100), in[0].dims(), {});
      const Value wide = op::mul(op::cast(in[0], Dtype::f64), hundred);
      const Value x = op::cast(wide, from);  // saturated: of every size
      return Values{op::cast(op::cast(x, via), to)};
    });
  };
  through(Dtype::u8, Dtype::f32, Dtype::i8);
  through(Dtype::i8, Dtype::f32, Dtype::u8);
  through(Dtype::i32, Dtype::f64, Dtype::i8);
}

TEST(CpuCorners, NotANumberIsOneWhateverItsSign) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const auto& [n, size] : {std::pair{nan, 40}, {-nan, 41}})  // kernels of their own
    check({{Dtype::f32, {size}}}, [&, n = n](const Values& in) {
      const Value c = op::broadcast_in(ir::constant(Dtype::f32, n), in[0].dims(), {});
      return Values{op::max(in[0], c), op::min(c, in[0]), op::relu(c)};
    });
}

TEST(CpuCorners, AResizeDoesNotReadNeighboursOfNoWeight) {
  ir::SampleRng rng(13);
  Array x = op::draw_array(rng, Dtype::f32, {2, 4, 5, 16}, -1, 1);
  x.set(200, std::numeric_limits<double>::infinity());
  for (const bool corners : {true, false})
    for (const std::vector<int64_t>& to : {std::vector<int64_t>{4, 5}, {7, 9}, {8, 10}, {2, 3}})
      check_at({x}, [&](const Values& in) {
        return Values{
            op::resize(in[0], {.spatial = to, .mode = op::ResizeMode::linear, .align_corners = corners})};
      });
}

TEST(CpuCorners, StreamsThatADoubleHasNot) {
  constexpr int64_t most = std::numeric_limits<int64_t>::max();
  for (const int64_t stream : {most, -most - 1, (int64_t{1} << 53) + 1})
    check_at({Array::of<int64_t>({}, {3}), Array::of<int64_t>({}, {7})}, [&](const Values& in) {
      return Values{op::random_uniform(in[0], in[1], {Dtype::f32, {40}}, stream),
                    op::random_normal(in[0], in[1], {Dtype::f64, {9}}, stream)};
    });
}

TEST(CpuCorners, ZerosOfBothSignsAreNoSplat) {
  const Array zeros = Array::of<float>({4}, {-0.0f, 0.0f, 0.0f, -0.0f});
  check_at({Array::full(Dtype::f32, {4}, -0.0)},
           [&](const Values& in) { return Values{op::reciprocal(op::add(in[0], ir::constant(zeros)))}; });
}

TEST(CpuCorners, ExactKeepsNotANumberThroughReluOverFrozenWeights) {
  ir::SampleRng rng(14);
  Array x = op::draw_array(rng, Dtype::f32, {64, 64}, -1, 1),
        picture = op::draw_array(rng, Dtype::f32, {2, 8, 8, 16}, -1, 1);
  x.set(5, std::numeric_limits<double>::quiet_NaN());
  picture.set(300, std::numeric_limits<double>::quiet_NaN());
  const Value w = ir::constant(op::draw_array(rng, Dtype::f32, {64, 64}, -1, 1)),
              k = ir::constant(op::draw_array(rng, Dtype::f32, {16, 3, 3, 16}, -1, 1));
  run::CompileOptions options;
  options.exact = true;
  check_at(
      {x, picture},
      [&](const Values& in) {
        op::ConvAttrs a = op::plain_conv(2, Dtype::f32);
        a.pad_low = a.pad_high = {1, 1};
        return Values{op::relu(op::matmul(in[0], w)), op::relu(op::conv(in[1], k, a))};
      },
      100, options);
}

/// Few outputs between strides: the library's kernels would read scratch that they have not filled.
TEST(CpuCorners, Bfloat16WeightGradientsOfFewStridedOutputs) {
  const auto grad = [](const std::vector<int64_t>& in, int64_t kernel, int64_t stride, int64_t pad,
                       int64_t channels) {
    op::ConvAttrs a = op::plain_conv(static_cast<int>(in.size()), Dtype::bf16);
    ir::Dims x{2}, y{2};
    for (size_t i = 0; i < in.size(); ++i) {
      a.stride[i] = stride;
      a.pad_low[i] = a.pad_high[i] = pad;
      a.spatial.push_back(kernel);
      x.emplace_back(in[i]);
      y.emplace_back((in[i] + 2 * pad - kernel) / stride + 1);
    }
    x.emplace_back(channels);
    y.emplace_back(channels);
    check(
        {{Dtype::bf16, x}, {Dtype::bf16, y}},
        [&](const Values& v) { return Values{op::conv_weight_grad(v[0], v[1], a)}; }, 50);
  };
  for (const int64_t channels : {1, 16}) {
    grad({1}, 1, 2, 0, channels);
    grad({2, 2}, 2, 3, 0, channels);
    grad({2, 2, 2}, 2, 2, 1, channels);
    grad({3, 3, 3}, 3, 2, 1, channels);
  }
}

/// A processor's own conversion takes what is below the smallest normal number for 0 (docs/limits.md); all else is rounded.
TEST(CpuCorners, Bfloat16AroundTheSmallestNormalNumber) {
  for (const int64_t size : {64, 65, 7}) {
    Array x(Dtype::f32, {size});
    for (int64_t i = 0; i < size; ++i)
      x.set(i, (i % 2 ? -1 : 1) * std::ldexp(0.1 + 0.05 * static_cast<double>(i), -126));
    ir::Graph g{
        .name = "tiny", .inputs = {ir::new_input("x", x.type())}, .outputs = {}, .state = {}, .info = {}};
    g.outputs.push_back({"y", op::cast(g.inputs[0], Dtype::bf16)});
    const std::vector<Array> in{x};
    const Array want = target::reference::evaluate(g, in)[0], got = test::run_on_cpu(g, in)[0];
    for (int64_t i = 0; i < size; ++i) {
      const bool may_vanish = std::fabs(x.at(i)) < 0x1p-126;
      EXPECT_TRUE(got.at(i) == want.at(i) || (may_vanish && got.at(i) == 0))
          << x.at(i) << " gives " << got.at(i);
      EXPECT_EQ(std::signbit(got.at(i)), std::signbit(want.at(i)));
    }
  }
}

}  // namespace
}  // namespace espalier
