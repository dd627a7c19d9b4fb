// What 16-bit training must still get right: gradients of gradients under a loss scale, sums of parameter gradients, masks.
#include <gtest/gtest.h>

#include "grad/grad.h"
#include "op/activation.h"
#include "op/contraction.h"
#include "op/control.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "support/cpu_run.h"

namespace espalier::test {
namespace {

using ir::Array;
using ir::Dtype;
using ir::Value;
using pass::Precision;

/// Inputs of these arrays, and what `build` makes of them, run on the CPU.
template <class Build>
std::vector<Array> run_in(Precision precision, double loss_scale, const std::vector<Array>& inputs,
                          const Build& build) {
  ir::Graph g{.name = "g", .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  for (const Array& a : inputs)
    g.inputs.push_back(ir::new_input("x" + std::to_string(g.inputs.size()), a.type()));
  for (const Value& v : build(g.inputs)) g.outputs.push_back({"y" + std::to_string(g.outputs.size()), v});
  run::CompileOptions o;
  o.precision = precision;
  o.loss_scale = loss_scale;
  return run_on_cpu(g, inputs, o);
}

template <class Build>
void expect_as_in_f32(const std::vector<Array>& inputs, const Build& build) {
  const std::vector<Array> want = run_in(Precision::f32, 1, inputs, build),
                           got = run_in(Precision::f16, 1024, inputs, build);
  for (size_t i = 0; i < want.size(); ++i) {
    double largest = 0;
    for (int64_t k = 0; k < want[i].size(); ++k) largest = std::max(largest, std::fabs(want[i].at(k)));
    for (int64_t k = 0; k < want[i].size(); ++k)
      EXPECT_NEAR(got[i].at(k), want[i].at(k), 0.02 * largest) << "output " << i << " element " << k;
  }
}

Value total(const Value& v) { return op::reduce_sum(v, op::all_axes(v)); }
Value cube(const Value& v) { return op::mul(op::square(v), v); }
Value gradient(const Value& loss, const Value& w) { return autodiff::gradient(loss, std::vector{w})[0]; }

TEST(LossScale, GradientsOfGradients) {
  const std::vector<Array> w{Array::of<float>({4}, {1, 2, -1, 0.5f})};
  expect_as_in_f32(w, [](const std::vector<Value>& in) {
    const Value first = gradient(total(cube(in[0])), in[0]);
    const Value second = gradient(total(op::square(first)), in[0]);
    return std::vector{first, second, gradient(total(second), in[0])};
  });
}

TEST(LossScale, GradientsOfGradientsThroughProducts) {
  ir::SampleRng rng(3);
  const auto draw = [&](std::vector<int64_t> d) {
    return op::draw_array(rng, Dtype::f32, std::move(d), -1, 1);
  };
  expect_as_in_f32({draw({8, 6}), draw({6, 5}), draw({5, 3})}, [](const std::vector<Value>& in) {
    const Value y = op::matmul(op::tanh(op::matmul(in[0], in[1])), in[2]);
    const Value dx = gradient(total(op::square(y)), in[0]);
    std::vector<Value> out = autodiff::gradient(total(op::square(dx)), in);
    out.push_back(dx);
    return out;
  });
}

/// Paths with an inner gradient and paths beside it meet in one sum.
TEST(LossScale, GradientThroughAnUpdate) {
  const std::vector<Array> w{Array::of<float>({4}, {1, 2, -1, 0.5f})};
  expect_as_in_f32(w, [](const std::vector<Value>& in) {
    Value v = in[0];
    for (int step = 0; step < 2; ++step) v = op::sub(v, op::mul(gradient(total(cube(v)), v), 0.05));
    return std::vector{v, gradient(total(op::square(v)), in[0])};
  });
}

TEST(LossScale, GradientThroughUpdatesInALoop) {
  const std::vector<Array> w{Array::of<float>({4}, {1, 2, -1, 0.5f})};
  expect_as_in_f32(w, [](const std::vector<Value>& in) {
    const std::vector<ir::Type> types{in[0].type()};
    const ir::GraphRef body = op::body_graph("inner", types, [](const std::vector<Value>& v) {
      return std::vector{op::sub(v[0], op::mul(gradient(total(cube(v[0])), v[0]), 0.05))};
    });
    const Value end = op::scan({.body = body, .carries = 1, .slices = 0, .length = 3}, {in[0]})[0];
    return std::vector{end, gradient(total(op::square(end)), in[0])};
  });
}

/// How many elements of a are numbers of `low`.
int64_t rounded(const Array& a, Dtype low) {
  const Array back = a.cast(low).cast(a.dtype());
  int64_t n = 0;
  for (int64_t i = 0; i < a.size(); ++i) n += back.at(i) == a.at(i);
  return n;
}

TEST(ParameterGradients, StayF32WhereAWeightIsUsedTwice) {
  ir::SampleRng rng(5);
  const auto draw = [&](std::vector<int64_t> d) {
    return op::draw_array(rng, Dtype::f32, std::move(d), -1, 1);
  };
  const std::vector<Array> in{draw({32, 16}), draw({32, 16}), draw({16, 8}), draw({16, 16})};
  const auto losses = [](const std::vector<Value>& v) {
    const auto square = [](const Value& y) { return total(op::square(y)); };
    const Value &x1 = v[0], &x2 = v[1], &w = v[2], &u = v[3];
    const Value decay = op::mul(total(op::square(w)), 0.01);
    const Value tied = square(op::matmul(x1, op::sub(u, op::transpose(u, {1, 0}))));
    const Value cut = op::matmul(x1, op::slice_axis(w, 1, 0, 4));
    return std::vector{gradient(op::add(square(op::matmul(x1, w)), square(op::matmul(x2, w))), w),
                       gradient(op::add(square(op::matmul(x1, w)), decay), w), gradient(tied, u),
                       gradient(op::add(square(cut), square(op::matmul(x2, w))), w)};
  };
  for (const Precision p : {Precision::bf16, Precision::f16}) {
    const std::vector<Array> out = run_in(p, 1, in, losses);
    for (size_t i = 0; i < out.size(); ++i)
      EXPECT_LT(rounded(out[i], p == Precision::bf16 ? Dtype::bf16 : Dtype::f16), out[i].size() / 4)
          << pass::precision_name(p) << " gradient " << i;
  }
}

TEST(ParameterGradients, OfALoopsStepsAreAddedInF32) {
  ir::SampleRng rng(6);
  const auto draw = [&](std::vector<int64_t> d) {
    return op::draw_array(rng, Dtype::f32, std::move(d), -1, 1);
  };
  const std::vector<Array> in{draw({4, 8}), draw({5, 4, 8}), draw({8, 8}), draw({8, 8})};
  const std::vector<Array> out = run_in(Precision::bf16, 1, in, [](const std::vector<Value>& v) {
    const std::vector<ir::Type> types{v[0].type(), v[0].type(), v[2].type(), v[3].type()};
    const ir::GraphRef body = op::body_graph("cell", types, [](const std::vector<Value>& b) {
      return std::vector{op::tanh(op::add(op::matmul(b[0], b[2]), op::matmul(b[1], b[3])))};
    });
    const Value end =
        op::scan({.body = body, .carries = 1, .slices = 1, .length = 5}, {v[0], v[1], v[2], v[3]})[0];
    return autodiff::gradient(total(op::square(end)), std::vector{v[2], v[3]});
  });
  for (const Array& a : out) EXPECT_LT(rounded(a, Dtype::bf16), a.size() / 4);
}

/// A finite constant without room in the low dtype would make a row of -inf, and its softmax NaN.
TEST(Masks, AFullyMaskedRowIsUniform) {
  ir::SampleRng rng(7);
  const auto draw = [&](std::vector<int64_t> d) {
    return op::draw_array(rng, Dtype::f32, std::move(d), -1, 1);
  };
  Array mask(Dtype::boolean, {4, 8});
  for (int64_t i = 0; i < 32; ++i) mask.set(i, i >= 8 && i % 3 == 0);
  for (const double masked : {-1e9, -3.4028234663852886e38})
    for (const Precision p : {Precision::bf16, Precision::f16}) {
      const std::vector<Array> out =
          run_in(p, 1, {draw({4, 8}), draw({8, 8}), mask}, [&](const std::vector<Value>& v) {
            const Value scores = op::matmul(v[0], v[1]);
            const Value chosen = op::select(v[2], scores, op::full_like(scores, masked));
            const Value penalty =
                op::mul(op::select(v[2], op::zeros_like(scores), op::full_like(scores, 1)), masked);
            return std::vector{op::softmax(chosen, 1), op::softmax(op::add(scores, penalty), 1)};
          });
      for (const Array& a : out)
        for (int64_t i = 0; i < 8; ++i)
          EXPECT_NEAR(a.at(i), 0.125, masked < -1e30 ? 1e-6 : 1e-2)
              << pass::precision_name(p) << " " << masked;
    }
}

}  // namespace
}  // namespace espalier::test
