// What goes along with a matrix product on a GPU, forward and backward: gelu, its operand kept for the gradient, and the gradient of a
// bias beside that of its weights. Bodies alone, and whole programs as the passes fuse them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grad/grad.h"
#include "op/activation.h"
#include "op/elementwise.h"
#include "op/reduction.h"
#include "support/products.h"

namespace espalier::test {
namespace {

using target::GemmCall;
using target::GemmEpilogue;
using target::cuda::CallList;

/// x [rows, in] times w [in, out] plus b, and what goes into and comes out of gelu.
struct Layer {
  std::vector<Value> inputs;
  Value before, after;
};

Value expanded_gelu(const Value& x, bool tanh_form) {
  const Value y = op::gelu(x, tanh_form);
  return y->op().expand(y.node())[0];
}

Layer layer(Dtype dtype, int64_t out, bool bias, bool tanh_form = true) {
  const auto in = [](const char* name, ir::Dims dims, Dtype d) { return ir::new_input(name, {d, dims}); };
  Layer l;
  l.inputs = {in("x", {6, 5}, dtype), in("w", {5, out}, dtype)};
  l.before = product(l.inputs[0], l.inputs[1], dtype);
  if (bias) {
    l.inputs.push_back(in("b", {out}, dtype));
    l.before = op::add(l.before, along_rows(l.inputs.back(), l.before));
  }
  l.after = expanded_gelu(l.before, tanh_form);
  return l;
}

std::string refusal(const ir::Graph& g, bool exact = false) {
  const auto made = target::cuda::gemm_calls(g, {.exact = exact});
  const auto* refused = std::get_if<kernel::Refusal>(&made);
  return refused ? refused->reason : "";
}

TEST(Epilogues, GeluAndItsOperand) {
  CallCases cases;
  std::multiset<GemmEpilogue> seen;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16})
    for (const bool bias : {false, true})
      for (const bool kept : {false, true}) {
        const Layer l = layer(dtype, 16, bias);
        const ir::Graph g = graph_of(l.inputs, kept ? std::vector{l.after, l.before} : std::vector{l.after});
        CallList list = calls(g);
        seen.insert(std::get<GemmCall>(list.calls.back().work).epilogue);
        cases.add(g, drawn(g, seen.size()), std::move(list), {.scale = 8});
      }
  for (const GemmEpilogue e :
       {GemmEpilogue::gelu, GemmEpilogue::gelu_bias, GemmEpilogue::gelu_aux, GemmEpilogue::gelu_aux_bias})
    EXPECT_EQ(seen.count(e), 3u);
  EXPECT_EQ(cases.run(), "");
}

TEST(Epilogues, WhatLiesBadlyIsCopied) {
  const Layer l = layer(Dtype::f32, 16, true);
  const ir::Graph g = graph_of(l.inputs, {l.after, l.before});
  auto made = target::cuda::gemm_calls(g, {.alignment = std::vector<int64_t>{64, 64, 64, 4, 8}});
  auto& list = std::get<CallList>(made);
  ASSERT_EQ(list.calls.size(), 3u);
  CallCases cases;
  cases.add(g, drawn(g, 1), list, {.scale = 8});
  EXPECT_EQ(cases.run(), "");
}

TEST(Epilogues, SumsOfEitherOperand) {
  CallCases cases;
  std::set<GemmEpilogue> seen;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
    for (const int operand : {0, 1})
      for (const bool turned : {false, true}) {  // how the operands lie
        const int64_t at = turned ? 1 : 0;
        const auto in = [&](const char* name, int64_t n) {
          return ir::new_input(name, {dtype, turned ? ir::Dims{n, 12} : ir::Dims{12, n}});
        };
        const Value x = in("x", 7), dy = in("dy", 9);
        const Value dw = op::dot(x, dy, {.contract_a = {at}, .contract_b = {at}, .out = Dtype::f32});
        const Value sum = op::reduce_sum(op::cast(operand ? dy : x, Dtype::f32), {at});
        const ir::Graph g = graph_of({x, dy}, {dw, sum});
        CallList list = calls(g);
        seen.insert(std::get<GemmCall>(list.calls.back().work).epilogue);
        cases.add(g, drawn(g, 3), std::move(list), {.scale = 4});
      }
  EXPECT_THAT(seen, testing::ElementsAre(GemmEpilogue::sum_a, GemmEpilogue::sum_b));
  EXPECT_EQ(cases.run(), "");
}

TEST(Epilogues, Refusals) {
  const Layer narrow = layer(Dtype::f32, 12, true), l = layer(Dtype::f32, 16, true),
              erf = layer(Dtype::f32, 16, true, false);
  EXPECT_EQ(refusal(graph_of(narrow.inputs, {narrow.after, narrow.before})),
            "gelu's operand in rows that are no multiple of 8");
  EXPECT_EQ(refusal(graph_of(narrow.inputs, {narrow.after})), "");
  EXPECT_EQ(refusal(graph_of(erf.inputs, {erf.after})), "gelu by erf");
  EXPECT_EQ(refusal(graph_of(l.inputs, {l.after, l.before}), true), "the library's gelu is not exact");
  const Value dot = product(l.inputs[0], l.inputs[1], Dtype::f32);
  EXPECT_EQ(refusal(graph_of(l.inputs, {l.before, dot})), "a value inside is used twice");
  EXPECT_EQ(refusal(graph_of(l.inputs, {l.after, l.before, op::reduce_sum(l.inputs[0], {1})})),
            "more than two results");
  const Value wrong_axis = op::reduce_sum(l.inputs[0], {0});
  EXPECT_EQ(refusal(graph_of(l.inputs, {dot, wrong_axis})),
            "a sum that is none of an operand's over the contracted axes");
  EXPECT_EQ(refusal(graph_of(l.inputs, {l.before, op::reduce_sum(l.inputs[0], {1})})),
            "sums of an operand beside an epilogue");
}

// ---- as the passes fuse them ---------------------------------------------------------------------------------------

/// Two layers with gelu between them, and the gradients of all weights for a given gradient of the result.
ir::Graph network(bool training, bool tanh_form, const ir::Dims& batch = {16}) {
  const auto in = [](const char* name, const ir::Dims& dims) {
    return ir::new_input(name, {Dtype::f32, dims});
  };
  ir::Dims dims_x = batch, dims_y = batch;
  dims_x.push_back(24);
  dims_y.push_back(8);
  const Value x = in("x", dims_x), w1 = in("w1", {24, 32}), b1 = in("b1", {32}), w2 = in("w2", {32, 8}),
              b2 = in("b2", {8}), dy = in("dy", dims_y);
  const Value first = product(x, w1, Dtype::f32);
  const Value h = op::gelu(op::add(first, along_rows(b1, first)), tanh_form);
  const Value second = product(h, w2, Dtype::f32), y = op::add(second, along_rows(b2, second));
  if (!training) return graph_of({x, w1, b1, w2, b2}, {y});
  std::vector<Value> outputs{y};
  for (const Value& v : autodiff::vjp(std::vector{y}, std::vector{dy}, std::vector{w1, b1, w2, b2}))
    outputs.push_back(v);
  return graph_of({x, w1, b1, w2, b2, dy}, outputs);
}

using testing::ElementsAre;

TEST(Epilogues, OfWholePrograms) {
  const target::Target& gpu = target::cuda::cuda_target(90);
  EXPECT_THAT(epilogues(*compiled(network(false, true), gpu)), ElementsAre("bias", "gelu_bias"));
  EXPECT_THAT(epilogues(*compiled(network(false, false), gpu)), ElementsAre("bias", "bias"));
  EXPECT_THAT(epilogues(*compiled(network(true, true), gpu)),
              ElementsAre("bias", "gelu_aux_bias", "none", "sum_a", "sum_a"));
  EXPECT_THAT(epilogues(*compiled(network(true, false), gpu)),
              ElementsAre("bias", "bias", "none", "sum_a", "sum_a"));
  EXPECT_THAT(epilogues(*compiled(network(true, true, {2, 16}), gpu)),
              ElementsAre("bias", "gelu_aux_bias", "none", "sum_a", "sum_a"));
  EXPECT_THAT(epilogues(*compiled(network(true, true), gpu, pass::Precision::f32, true)),
              ElementsAre("bias", "bias", "none", "sum_a", "sum_a"));
  // There the gradient of a bias is summed before the product's operand is rounded.
  EXPECT_THAT(epilogues(*compiled(network(true, true), gpu, pass::Precision::bf16)),
              ElementsAre("bias", "gelu_aux_bias", "none", "none", "none"));
}

TEST(Epilogues, ValuesOfWholePrograms) {
  for (const bool training : {false, true})
    for (const bool tanh_form : {false, true}) {
      SCOPED_TRACE(testing::Message() << training << tanh_form);
      expect_values(network(training, tanh_form), pass::Precision::f32, 1e-5);
      expect_values(network(training, tanh_form, {2, 16}), pass::Precision::bf16, 3e-2);
    }
}

}  // namespace
}  // namespace espalier::test
