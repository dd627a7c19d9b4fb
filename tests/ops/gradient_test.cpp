// Gradients of every differentiable op against central differences in f64, first and second order.
#include <cmath>

#include "grad/grad.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "support/arrays.h"
#include "support/op_samples.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dim;
using ir::Dtype;
using ir::Graph;
using ir::OpDef;
using ir::Sample;
using ir::Value;

/// The sum of all elements of <weight, output> over the f64 outputs, with random constant weights: a scalar to differentiate.
struct Weighted {
  std::vector<Value> outputs, weights;
  Weighted(const std::vector<Value>& all, ir::SampleRng& rng) {
    for (const Value& v : all) {
      if (v.dtype() != Dtype::f64) continue;
      Array w(Dtype::f64, ir::static_dims(v.dims()));
      for (int64_t i = 0; i < w.size(); ++i) w.set(i, static_cast<double>(rng() >> 11) * 0x1p-52 - 1);
      outputs.push_back(v);
      weights.push_back(ir::constant(w));
    }
  }
  Value sum() const {
    Value total = ir::constant(Dtype::f64, 0);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Value product = op::mul(outputs[i], weights[i]);
      total = op::add(total, op::reduce_sum(product, op::all_axes(product)));
    }
    return total;
  }
};

Graph with_outputs(const Graph& g, const std::vector<Value>& values) {
  Graph out = g;
  out.outputs.clear();
  for (const Value& v : values) out.outputs.push_back({"y" + std::to_string(out.outputs.size()), v});
  return out;
}

/// Compares `gradients` (of the scalar `loss`, for the inputs at `wrt`) with differences along at most 24 elements of each.
void check_differences(const Graph& g, const Value& loss, const std::vector<size_t>& wrt,
                       const std::vector<Value>& gradients, std::vector<Array> inputs, ir::SampleRng& rng,
                       double tolerance) {
  const std::vector<Array> got = target::reference::evaluate(with_outputs(g, gradients), inputs);
  const Graph scalar = with_outputs(g, {loss});
  for (size_t k = 0; k < wrt.size(); ++k) {
    Array& x = inputs[wrt[k]];
    const Array saved = x;
    for (int64_t n = std::min<int64_t>(24, x.size()), i = 0; i < n; ++i) {
      const int64_t at = n == x.size() ? i : static_cast<int64_t>(rng() % static_cast<uint64_t>(x.size()));
      const auto loss_at = [&](double shift) {
        x = Array::of<double>(saved.dims(),
                              std::span(saved.data<double>(), static_cast<size_t>(saved.size())));
        x.set(at, saved.at(at) + shift);
        return target::reference::evaluate(scalar, inputs)[0].at(0);
      };
      const double h = 1e-5,
                   want = (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
      EXPECT_NEAR(got[k].at(at), want, tolerance * (1 + std::fabs(want)))
          << "input " << wrt[k] << ", element " << at;
    }
    x = saved;
  }
}

std::vector<size_t> differentiable_inputs(const Sample& s) {
  std::vector<size_t> wrt;
  for (size_t i = 0; i < s.inputs.size(); ++i)
    if (s.inputs[i].dtype() == Dtype::f64 && (s.differentiable.empty() || s.differentiable[i]))
      wrt.push_back(i);
  return wrt;
}

std::vector<Value> inputs_at(const Graph& g, const std::vector<size_t>& which) {
  std::vector<Value> out;
  for (const size_t i : which) out.push_back(g.inputs[i]);
  return out;
}

std::vector<const OpDef*> differentiable_ops() {
  std::vector<const OpDef*> ops = test::sampled_ops();
  std::erase_if(ops, [](const OpDef* op) { return op->grad.kind == ir::GradKind::none; });
  return ops;
}

class Gradient : public testing::TestWithParam<const OpDef*> {
 protected:
  /// Call f(graph, sample, differentiable inputs, rng) for `n` samples that have any.
  template <class F>
  void each_sample(int n, uint64_t salt, F&& f) {
    const OpDef& op = *GetParam();
    ir::SampleRng rng = test::rng_of(op, salt);
    int useful = 0;
    for (int i = 0; i < 20 * n && useful < n && !HasFailure(); ++i) {
      const Sample s = op.sample(rng, Dtype::f64);
      const std::vector<size_t> wrt = differentiable_inputs(s);
      if (wrt.empty()) continue;
      const Graph g = test::graph_of(op, s);
      SCOPED_TRACE("sample " + std::to_string(i) + "\n" + ir::print(g));
      f(g, s, wrt, rng);
      ++useful;
    }
    EXPECT_GT(useful, 0) << "no sample of f64 has a differentiable input";
  }
};

TEST_P(Gradient, AgreesWithDifferences) {
  each_sample(
      20, 11, [](const Graph& g, const Sample& s, const std::vector<size_t>& wrt, ir::SampleRng& rng) {
        const Weighted loss(g.output_values(), rng);
        const std::vector<Value> gradients = autodiff::vjp(loss.outputs, loss.weights, inputs_at(g, wrt));
        ASSERT_EQ(gradients.size(), wrt.size());
        for (size_t k = 0; k < wrt.size(); ++k) EXPECT_EQ(gradients[k].type(), g.inputs[wrt[k]].type());
        check_differences(g, loss.sum(), wrt, gradients, s.inputs, rng, 1e-6);
      });
}

TEST_P(Gradient, OfOneInputIsTheSameAlone) {
  each_sample(5, 12, [](const Graph& g, const Sample& s, const std::vector<size_t>& wrt, ir::SampleRng& rng) {
    const Weighted loss(g.output_values(), rng);
    const std::vector<Value> all = autodiff::vjp(loss.outputs, loss.weights, inputs_at(g, wrt));
    for (size_t k = 0; k < wrt.size(); ++k) {
      const std::vector<Value> one = autodiff::vjp(loss.outputs, loss.weights, inputs_at(g, {wrt[k]}));
      const auto value = [&](const Value& v) {
        return target::reference::evaluate(with_outputs(g, {v}), s.inputs)[0];
      };
      test::expect_close(value(one[0]), value(all[k]));
    }
  });
}

TEST_P(Gradient, OfTheGradientAgreesWithDifferences) {
  each_sample(6, 13, [](const Graph& g, const Sample& s, const std::vector<size_t>& wrt, ir::SampleRng& rng) {
    const Weighted loss(g.output_values(), rng);
    const Weighted second(autodiff::vjp(loss.outputs, loss.weights, inputs_at(g, wrt)), rng);
    const std::vector<Value> gradients = autodiff::vjp(second.outputs, second.weights, inputs_at(g, wrt));
    check_differences(g, second.sum(), wrt, gradients, s.inputs, rng, 1e-5);
  });
}

INSTANTIATE_TEST_SUITE_P(Table, Gradient, testing::ValuesIn(differentiable_ops()), test::OpName());

/// The gradient built with unbound symbols, then bound, against the one built on numbers.
TEST(SymbolicGradient, AgreesWithTheStaticOne) {
  const Dim n = Dim::symbol("batch");
  ir::SampleRng rng(5);
  const auto loss_of = [](const Value& x, const Value& z) {
    const Value joined = op::concat({x, z, x}, 0);
    const Value head = op::slice(joined, {1, 1}, {3, 2}, {1, 2});
    const Value spread = op::pad(joined, ir::constant(Dtype::f64, 0), {0, 1}, {0, 1}, {0, 2});
    const auto total = [](const Value& v) { return op::reduce_sum(v, op::all_axes(v)); };
    return op::add(op::add(total(op::exp(head)), total(op::square(spread))),
                   total(op::reduce_mean(op::sin(joined), {0})));
  };
  const auto gradient_graph = [&](Dim batch) {
    Graph g;
    g.inputs = {ir::new_input("x", {Dtype::f64, {batch, 4}}), ir::new_input("z", {Dtype::f64, {batch, 4}})};
    const std::vector<Value> d = autodiff::gradient(loss_of(g.inputs[0], g.inputs[1]), g.inputs);
    return with_outputs(g, d);
  };
  std::vector<Array> inputs;
  for (int k = 0; k < 2; ++k) {
    inputs.emplace_back(Dtype::f64, std::vector<int64_t>{3, 4});
    for (int64_t i = 0; i < 12; ++i) inputs.back().set(i, static_cast<double>(rng() % 1000) / 500 - 1);
  }
  const std::vector<Array> got = target::reference::evaluate(gradient_graph(n), inputs);
  const std::vector<Array> want = target::reference::evaluate(gradient_graph(3), inputs);
  test::expect_close(got, want);
}

TEST(GradientOfTies, GoesWhereTheRecordsSay) {
  const auto vjp_of = [](const Value& y, const Value& x) {
    Graph g;
    g.inputs = {x};
    return with_outputs(g, autodiff::vjp(std::vector{y}, std::vector{op::ones_like(y)}, std::vector{x}));
  };
  const Value x = ir::new_input("x", {Dtype::f64, {4}});
  const Array at = Array::of<double>({4}, {1., 3., 3., 0.});
  const auto expect = [&](const Value& y, std::initializer_list<double> want) {
    test::expect_close(target::reference::evaluate(vjp_of(y, x), std::vector{at})[0],
                       Array::of<double>({4}, want));
  };
  expect(op::reduce_max(x, {0}), {0, 0.5, 0.5, 0});
  expect(op::max(x, op::full_like(x, 3)), {0, 1, 1, 0});
  expect(op::max(op::full_like(x, 3), x), {0, 0, 0, 0});
  expect(op::relu(x), {1, 1, 1, 0});
  expect(op::abs(x), {1, 1, 1, 0});
  expect(op::clamp(x, op::full_like(x, 1), op::full_like(x, 3)), {1, 1, 1, 0});
  expect(op::reduce_prod(x, {0}), {0, 0, 0, 9});
}

}  // namespace
}  // namespace espalier
