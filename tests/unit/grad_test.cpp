// Reverse mode on graphs worked out by hand: sharing, second order, integers, bodies, symbols, errors, markers.
#include "grad/grad.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>

#include "op/activation.h"
#include "op/contraction.h"
#include "op/control.h"
#include "op/elementwise.h"
#include "op/loss.h"
#include "op/marker.h"
#include "op/norm.h"
#include "op/sampling.h"
#include "support/arrays.h"
#include "support/errors.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using autodiff::gradient;
using ir::Array;
using ir::Dim;
using ir::Dtype;
using ir::Graph;
using ir::GraphRef;
using ir::Type;
using ir::Value;

Type f64(ir::Dims dims) { return {Dtype::f64, std::move(dims)}; }

Value sum(const Value& x) { return op::reduce_sum(x, op::all_axes(x)); }

Graph graph(std::vector<Value> inputs, const std::vector<Value>& outputs) {
  Graph g;
  g.inputs = std::move(inputs);
  for (const Value& v : outputs) g.outputs.push_back({"y" + std::to_string(g.outputs.size()), v});
  verify(g);
  return g;
}

std::vector<Array> eval(std::vector<Value> inputs, const std::vector<Value>& outputs,
                        const std::vector<Array>& arrays) {
  return target::reference::evaluate(graph(std::move(inputs), outputs), arrays);
}

std::map<std::string_view, int> count_ops(const Graph& g) {
  std::map<std::string_view, int> n;
  for (const ir::Node* node : g.nodes()) ++n[node->op().name];
  return n;
}

Array row(std::initializer_list<double> values) {
  return Array::of<double>({static_cast<int64_t>(values.size())}, values);
}

TEST(Grad, OfASquareAndOfItsGradient) {
  const Value x = ir::new_input("x", f64({3}));
  const std::vector<Value> first = gradient(sum(op::square(x)), {&x, 1});
  const std::vector<Value> second = gradient(sum(op::mul(first[0], first[0])), {&x, 1});  // sum (2x)^2 -> 8x
  const std::vector<Array> got = eval({x}, {first[0], second[0]}, {row({1, -2, 0.5})});
  test::expect_close(got[0], row({2, -4, 1}));
  test::expect_close(got[1], row({8, -16, 4}));
}

TEST(Grad, SharedSubexpressionsStayOne) {
  const Value x = ir::new_input("x", f64({2}));
  const Value e = op::exp(x);
  const std::vector<Value> g = gradient(sum(op::add(op::mul(e, e), e)), {&x, 1});
  EXPECT_EQ(count_ops(graph({x}, g))["exp"], 1);
  const Array got = eval({x}, g, {row({0, 1})})[0];
  EXPECT_NEAR(got.at(0), 3, 1e-12);
  EXPECT_NEAR(got.at(1), 2 * std::exp(2.0) + std::exp(1.0), 1e-12);
}

TEST(Grad, AnOperandThatStandsTwiceGetsTheSumOnce) {
  const Value x = ir::new_input("x", f64({2}));
  const Value by_rule = gradient(sum(op::mul(x, x)), {&x, 1})[0];
  const Value by_expansion = gradient(op::mse(x, op::mul(x, 2.0)), {&x, 1})[0];  // mean x^2
  const Value cancels = gradient(op::mse(x, x), {&x, 1})[0];
  const std::vector<Array> got = eval({x}, {by_rule, by_expansion, cancels}, {row({3, -1})});
  test::expect_close(got[0], row({6, -2}));
  test::expect_close(got[1], row({3, -1}));
  test::expect_close(got[2], row({0, 0}));
}

TEST(Grad, ExpansionsTreatTheirOperandsAsIndependent) {
  // The second operand is itself a function of the first: both ways add up once.
  const Value x = ir::new_input("x", f64({1}));
  const Value y = op::exp(x);
  const std::vector<Value> g = gradient(op::mse(x, y), {&x, 1});  // (x - e^x)^2
  const double v = 0.3, want = 2 * (v - std::exp(v)) * (1 - std::exp(v));
  EXPECT_NEAR(eval({x}, g, {row({v})})[0].at(0), want, 1e-12);
}

TEST(Grad, UnusedInputsAndValuesInsideTheGraph) {
  const Value x = ir::new_input("x", f64({2})), unused = ir::new_input("unused", {Dtype::f32, {3}});
  const Value y = op::square(x), loss = sum(op::mul(y, op::exp(op::zeros_like(y))));
  const std::vector<Value> g = gradient(loss, std::vector{x, y, unused, x});
  EXPECT_EQ(g[2].type(), unused.type());
  EXPECT_EQ(g[0], g[3]);
  const std::vector<Array> got = eval({x}, g, {row({3, -1})});
  test::expect_close(got[0], row({6, -2}));
  test::expect_close(got[1], row({1, 1}));
  test::expect_close(got[2], Array(Dtype::f32, {3}));
}

TEST(Grad, IntegersCarryNone) {
  const Value x = ir::new_input("x", f64({3}));
  const Value whole = op::cast(op::cast(x, Dtype::i64), Dtype::f64);  // gradient stops
  const Value best = op::gather(x, op::argmax(x, 0), 0);  // flows through the value, not the index
  const std::vector<Value> g = gradient(op::add(sum(op::mul(whole, x)), best), {&x, 1});
  test::expect_close(eval({x}, g, {row({1.5, 4.25, -2})})[0], row({1, 5, -2}));
}

TEST(Grad, OfMatrixProductsNeedsNoTranspose) {
  const Value x = ir::new_input("x", f64({5, 2, 3})), w = ir::new_input("w", f64({3, 4})),
              v = ir::new_input("v", f64({6, 4}));
  const op::DotAttrs by_rows{
      .batch_a = {}, .batch_b = {}, .contract_a = {2}, .contract_b = {1}, .out = Dtype::f64};
  const std::vector<Value> g = gradient(sum(op::dot(op::matmul(x, w), v, by_rows)), std::vector{x, w, v});
  EXPECT_EQ(count_ops(graph({x, w, v}, g)).count("transpose"), 0u);
}

TEST(Grad, MarksTheSeedAndEveryGradient) {
  const Value x = ir::new_input("x", f64({2})), w = ir::new_input("w", f64({2})),
              unused = ir::new_input("u", f64({1}));
  const std::vector<Value> g = gradient(sum(op::mul(x, op::exp(w))), std::vector{x, w, unused});
  const auto n = count_ops(graph({x, w}, g));
  EXPECT_EQ(n.at("loss_seed"), 1);
  EXPECT_EQ(n.at("param_grad"), 3);
  for (const Value& v : g) EXPECT_TRUE(op::is_marker(v.node()));
}

TEST(Grad, SeveralResultsOfOneNode) {
  // var and mean feed the loss beside y: their gradients join at the node.
  const Value x = ir::new_input("x", f64({4, 1})), scale = ir::new_input("scale", f64({1})),
              bias = ir::new_input("bias", f64({1}));
  const std::vector<Value> bn = op::batch_norm_train(x, scale, bias, 1e-5);
  const Value g = gradient(op::add(sum(bn[1]), sum(bn[2])), {&x, 1})[0];
  // d mean = 1/4; d var = 2 (x - mean) / 4.
  const Array got = eval({x, scale, bias}, {g}, {row({1, 2, 3, 6}).reshaped({4, 1}), row({2}), row({0})})[0];
  test::expect_close(got, row({0.25 - 1, 0.25 - 0.5, 0.25, 0.25 + 1.5}).reshaped({4, 1}));
}

TEST(Grad, VjpTakesSeveralOutputsSomeOfThemEmpty) {
  const Value x = ir::new_input("x", f64({2})), d = ir::new_input("d", f64({2}));
  const std::vector<Value> outputs{op::square(x), op::exp(x), x};
  const std::vector<Value> g = autodiff::vjp(outputs, std::vector{d, Value(), d}, {&x, 1});
  test::expect_close(eval({x, d}, g, {row({1, 2}), row({10, 100})})[0], row({30, 500}));
}

TEST(Grad, DeepChainsNeedNoStack) {
  const Value x = ir::new_input("x", f64({}));
  Value y = x;
  for (int i = 0; i < 50000; ++i) y = op::sin(y);
  const std::vector<Value> g = gradient(y, {&x, 1});
  EXPECT_EQ(count_ops(graph({x}, g))["cos"], 50000);
}

TEST(Grad, ErrorsNameWhatCame) {
  const Value x = ir::new_input("x", f64({2})), i = ir::new_input("i", {Dtype::i32, {}});
  EXPECT_THAT(test::error_of([&] { gradient(x, {&x, 1}); }), testing::HasSubstr("f64[2]"));
  EXPECT_THAT(test::error_of([&] { gradient(i, {&x, 1}); }), testing::HasSubstr("i32[]"));
  EXPECT_THAT(test::error_of([&] { gradient(sum(x), {&i, 1}); }), testing::HasSubstr("i32[]"));
  const std::vector<Value> none(1);
  EXPECT_THAT(test::error_of([&] { gradient(sum(x), none); }), testing::HasSubstr("empty"));
  EXPECT_THAT(test::error_of([&] {
                autodiff::vjp({&x, 1}, std::vector{sum(x)}, {&x, 1});
              }),
              testing::HasSubstr("f64[2]"));
}

TEST(Grad, AWhileLoopOnTheWayIsAnErrorAndBesideItIsNot) {
  const std::vector<Type> types{f64({}), f64({})};
  const GraphRef again =
      op::body_graph("again", types, [](const auto& in) { return std::vector{op::lt(in[0], in[1])}; });
  const GraphRef twice =
      op::body_graph("twice", types, [](const auto& in) { return std::vector{op::add(in[0], in[0])}; });
  const Value x = ir::new_input("x", f64({})), y = ir::new_input("y", f64({}));
  const Value end = op::while_loop({again, twice, 1}, {y, ir::constant(Dtype::f64, 10)})[0];
  EXPECT_NEAR(eval({x, y}, gradient(op::mul(x, end), {&x, 1}),
                   {Array::scalar(Dtype::f64, 1), Array::scalar(Dtype::f64, 3)})[0]
                  .at(0),
              12, 0);
  try {
    gradient(op::mul(x, end), {&y, 1});
    FAIL() << "no error";
  } catch (const UserError& e) {
    EXPECT_EQ(e.fields().where, "op while_loop");
  }
}

TEST(Grad, OfCondIsACondOfGradients) {
  const Value c = ir::new_input("c", {Dtype::boolean, {}}), x = ir::new_input("x", f64({2}));
  const std::vector<Type> types{x.type()};
  const GraphRef a =
      op::body_graph("a", types, [](const auto& in) { return std::vector{op::square(in[0])}; });
  const GraphRef b = op::body_graph("b", types, [](const auto&) {
    return std::vector{ir::constant(row({1, 1}))};
  });
  const Value g = gradient(sum(op::cond(c, a, b, {x})[0]), {&x, 1})[0];
  test::expect_close(eval({c, x}, {g}, {Array::scalar(Dtype::boolean, 1), row({3, 4})})[0], row({6, 8}));
  test::expect_close(eval({c, x}, {g}, {Array::scalar(Dtype::boolean, 0), row({3, 4})})[0], row({0, 0}));
}

/// h = tanh(h * w + x_t) with a counter carried along; the loss sees the last h and every step's h * counter.
std::vector<Value> recurrent_step(const Value& h, const Value& n, const Value& x, const Value& w) {
  const Value next = op::tanh(op::add(op::mul(h, w), x));
  return {next, op::add(n, 1.0), op::mul(next, op::cast(op::broadcast_in(n, next.dims(), {}), Dtype::f64))};
}

class ScanGrad : public testing::TestWithParam<bool> {};

TEST_P(ScanGrad, EqualsTheUnrolledLoop) {
  const bool reverse = GetParam();
  constexpr int64_t length = 4, width = 3;
  const Value h = ir::new_input("h", f64({width})), xs = ir::new_input("xs", f64({length, width})),
              w = ir::new_input("w", f64({width}));
  const Value zero = ir::constant(Dtype::i64, 0);
  const std::vector<Type> types{h.type(), zero.type(), f64({width}), w.type()};
  const GraphRef body = op::body_graph(
      "step", types, [](const auto& in) { return recurrent_step(in[0], in[1], in[2], in[3]); });
  const std::vector<Value> looped = op::scan(
      {.body = body, .carries = 2, .slices = 1, .length = length, .reverse = reverse}, {h, zero, xs, w});
  const Value loop_loss = op::add(sum(looped[0]), sum(op::square(looped[2])));

  Value state = h, n = zero, loss;
  for (int64_t t = 0; t < length; ++t) {
    const int64_t at = reverse ? length - 1 - t : t;
    const auto out = recurrent_step(state, n, op::reshape(op::slice_axis(xs, 0, at, 1), {width}), w);
    state = out[0], n = out[1];
    loss = loss ? op::add(loss, sum(op::square(out[2]))) : sum(op::square(out[2]));
  }
  loss = op::add(loss, sum(state));

  const std::vector<Value> wrt{h, xs, w};
  const std::vector<Value> got = gradient(loop_loss, wrt), want = gradient(loss, wrt);
  const auto curvature = [&](const std::vector<Value>& g) {
    return gradient(op::add(sum(op::square(g[0])), op::add(sum(op::sin(g[1])), sum(op::square(g[2])))), wrt);
  };
  ir::SampleRng rng(5);
  const std::vector<Array> in{op::draw_array(rng, Dtype::f64, {width}),
                              op::draw_array(rng, Dtype::f64, {length, width}),
                              op::draw_array(rng, Dtype::f64, {width})};
  test::expect_close(eval(wrt, got, in), eval(wrt, want, in), 10);
  test::expect_close(eval(wrt, curvature(got), in), eval(wrt, curvature(want), in), 100);
}

INSTANTIATE_TEST_SUITE_P(Direction, ScanGrad, testing::Bool());

TEST(Grad, AScanWhoseBodyIsLinearKeepsNoCarries) {
  const Value h = ir::new_input("h", f64({2})), xs = ir::new_input("xs", f64({5, 2}));
  const std::vector<Type> types{h.type(), h.type()};
  const GraphRef body =
      op::body_graph("sum", types, [](const auto& in) { return std::vector{op::add(in[0], in[1])}; });
  const std::vector<Value> out =
      op::scan({.body = body, .carries = 1, .slices = 1, .length = 5, .reverse = false}, {h, xs});
  const std::vector<Value> g = gradient(sum(op::mul(out[0], 3.0)), std::vector{h, xs});
  EXPECT_EQ(count_ops(graph({h, xs}, g))["scan"], 1) << "only the backward loop";
  test::expect_close(eval({h, xs}, g, {row({0, 0}), Array(Dtype::f64, {5, 2})})[1],
                     Array::full(Dtype::f64, {5, 2}, 3));
}

/// Gradients of a small convolutional network's loss.
std::vector<Value> network_gradients(const Value& x, const Value& labels, const Value& w, const Value& scale,
                                     const Value& bias, const Value& head) {
  op::ConvAttrs at = op::plain_conv(2, Dtype::f32);
  at.pad_low = {1, 1}, at.pad_high = {1, 1};
  const Value h = op::relu(op::batch_norm_train(op::conv(x, w, at), scale, bias, 1e-5)[0]);
  const Value logits = op::matmul(op::reduce_mean(h, {1, 2}), head);
  return gradient(op::cross_entropy(logits, labels), std::vector{w, scale, bias, head});
}

TEST(Grad, ASymbolicBatchGivesTheSameAsItsNumber) {
  const Value w = ir::new_input("w", {Dtype::f32, {3, 3, 3, 2}}),
              head = ir::new_input("head", {Dtype::f32, {3, 4}});
  const Value scale = ir::new_input("scale", {Dtype::f32, {3}}),
              bias = ir::new_input("bias", {Dtype::f32, {3}});
  const auto build = [&](Dim batch) {
    const Value x = ir::new_input("x", {Dtype::f32, {batch, 5, 4, 2}}),
                labels = ir::new_input("labels", {Dtype::i32, {batch}});
    return graph({x, labels, w, scale, bias, head}, network_gradients(x, labels, w, scale, bias, head));
  };
  const Graph bound = specialise(build(Dim::symbol("batch")), {{"batch", 3}}), fixed = build(3);
  ir::SampleRng rng(9);
  const std::vector<Array> in{
      op::draw_array(rng, Dtype::f32, {3, 5, 4, 2}), op::draw_array(rng, Dtype::i32, {3}, 0, 3),
      op::draw_array(rng, Dtype::f32, {3, 3, 3, 2}), op::draw_array(rng, Dtype::f32, {3}),
      op::draw_array(rng, Dtype::f32, {3}),          op::draw_array(rng, Dtype::f32, {3, 4})};
  test::expect_close(target::reference::evaluate(bound, in), target::reference::evaluate(fixed, in));
}

}  // namespace
}  // namespace espalier
