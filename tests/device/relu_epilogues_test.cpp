// relu in training along with a product on a GPU, its mask in bits, and its gradient along with another: bodies alone, and whole programs as the
// passes fuse them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "grad/grad.h"
#include "kernel/bit_mask.h"
#include "op/elementwise.h"
#include "op/reduction.h"
#include "support/products.h"

namespace espalier::test {
namespace {

using target::GemmCall;
using target::GemmEpilogue;
using target::cuda::sim::SimOptions;
using testing::ElementsAre;

Value input(const char* name, const ir::Dims& dims, Dtype dtype = Dtype::f32) {
  return ir::new_input(name, {dtype, dims});
}

Value mask_of(const Value& y) { return op::gt(y, op::zeros_like(y)); }

/// relu of x [6, 5] times w [5, out] (plus b), and its mask.
ir::Graph forward(Dtype dtype, int64_t out, bool bias) {
  std::vector<Value> inputs{input("x", {6, 5}, dtype), input("w", {5, out}, dtype)};
  Value y = product(inputs[0], inputs[1], dtype);
  if (bias) {
    inputs.push_back(input("b", {out}, dtype));
    y = op::add(y, along_rows(inputs.back(), y));
  }
  y = op::relu(y);
  return graph_of(inputs, {y, kernel::pack_bits(mask_of(y))});
}

/// dy [6, 5] times w [out, 5] turned, where a mask has bits.
ir::Graph backward(Dtype dtype, int64_t out) {
  const Value dy = input("dy", {6, 5}, dtype), w = input("w", {out, 5}, dtype),
              mask = input("mask", {6, kernel::row_bits(out) / 8}, Dtype::u8);
  const Value dx = op::dot(dy, w, {.contract_a = {1}, .contract_b = {1}, .out = dtype});
  return graph_of({dy, w, mask}, {op::select(kernel::unpack_bits(mask, out), dx, op::zeros_like(dx))});
}

std::string refusal(const ir::Graph& g, bool exact = false) {
  const auto made = target::cuda::gemm_calls(g, {.exact = exact});
  const auto* refused = std::get_if<kernel::Refusal>(&made);
  return refused ? refused->reason : "";
}

GemmEpilogue epilogue(const target::cuda::CallList& list) {
  return std::get<GemmCall>(list.calls.back().work).epilogue;
}

// ---- bodies --------------------------------------------------------------------------------------------------------

TEST(BitMask, RowsArePackedAndReadAgain) {
  for (const int64_t n : {1, 8, 100, 128, 130}) {
    const Value x = input("x", {2, 3, n}, Dtype::boolean), packed = kernel::pack_bits(x),
                back = kernel::unpack_bits(packed, n);
    EXPECT_EQ(packed.type(), (ir::Type{Dtype::u8, {2, 3, kernel::row_bits(n) / 8}}));
    EXPECT_EQ(kernel::match_packed(packed), x);
    EXPECT_EQ(kernel::match_unpacked(back), packed);
    const ir::Graph g = graph_of({x}, {packed, back});
    const std::vector<Array> inputs = drawn(g, static_cast<uint64_t>(n)),
                             got = target::reference::evaluate(g, inputs);
    EXPECT_EQ(got[1], inputs[0]);
    for (int64_t i = 0; i < n; ++i)
      EXPECT_EQ(static_cast<int>(got[0].at(i / 8)) >> (i % 8) & 1, static_cast<int>(inputs[0].at(i))) << i;
  }
  const Value x = input("x", {4}, Dtype::boolean);
  EXPECT_FALSE(kernel::match_packed(x));
  EXPECT_FALSE(kernel::match_unpacked(x));
  EXPECT_FALSE(kernel::match_packed(op::cast(x, Dtype::u8)));
}

/// NaN goes in with the first row, and zeros with the second: there relu has no gradient.
TEST(ReluEpilogues, ReluAndItsMask) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CallCases cases;
  std::vector<std::vector<Array>> inputs;
  std::vector<ir::Graph> graphs;
  std::multiset<GemmEpilogue> seen;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
    for (const bool bias : {false, true})
      for (const int64_t out : {10, 128, 131}) {
        graphs.push_back(forward(dtype, out, bias));
        inputs.push_back(drawn(graphs.back(), graphs.size()));
        for (int64_t i = 0; i < 5; ++i) {
          inputs.back()[0].set(i, nan);
          inputs.back()[0].set(5 + i, 0);
        }
        target::cuda::CallList list = calls(graphs.back());
        seen.insert(epilogue(list));
        cases.add(graphs.back(), inputs.back(), std::move(list), {});
      }
  EXPECT_EQ(seen.count(GemmEpilogue::relu_aux), 6u);
  EXPECT_EQ(seen.count(GemmEpilogue::relu_aux_bias), 6u);
  const std::vector<std::vector<Array>> got = cases.results();
  for (size_t c = 0; c < got.size(); ++c) {
    const Array &y = got[c][0], &mask = got[c][1],
                want = target::reference::evaluate(graphs[c], inputs[c])[0];
    const int64_t out = y.dims()[1], bits = kernel::row_bits(out);
    for (int64_t j = 0; j < 6; ++j)
      for (int64_t i = 0; i < bits; ++i) {
        const bool bit = (static_cast<int>(mask.at((j * bits + i) / 8)) >> (i % 8) & 1) != 0;
        if (i >= out) {  // nobody may read those: they are not what the reference has there
          ASSERT_TRUE(bit);
          continue;
        }
        const double value = y.at(j * out + i);
        ASSERT_EQ(bit, value > 0) << j << " " << i;
        const double wanted = j == 0 ? 0 : want.at(j * out + i);  // NaN is lost
        ASSERT_NEAR(value, wanted, y.dtype() == Dtype::f32 ? 1e-5 : 0.05);
      }
  }
}

TEST(ReluEpilogues, TheGradient) {
  CallCases cases;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16})
    for (const int64_t out : {10, 128, 131}) {
      const ir::Graph g = backward(dtype, out);
      std::vector<Array> inputs = drawn(g, static_cast<uint64_t>(out));
      for (int64_t i = 0; i < inputs[2].size(); ++i) inputs[2].set(i, static_cast<double>(i * 37 % 256));
      target::cuda::CallList list = calls(g);
      EXPECT_EQ(epilogue(list), GemmEpilogue::drelu);
      cases.add(g, std::move(inputs), std::move(list), {.scale = 4});
    }
  EXPECT_EQ(cases.run(), "");
}

TEST(ReluEpilogues, Refusals) {
  EXPECT_EQ(refusal(forward(Dtype::f32, 16, true)), "");
  EXPECT_EQ(refusal(forward(Dtype::f32, 16, true), true), "relu loses NaN, and exact kernels are asked for");
  EXPECT_EQ(refusal(forward(Dtype::f16, 16, true)),
            "relu loses NaN, by which training in f16 sees an overflow");
  EXPECT_EQ(refusal(forward(Dtype::f64, 16, false)), "an activation of f64");
  const ir::Graph g = forward(Dtype::f32, 16, false);
  const Value y = g.outputs[0].value, before = y->input(0);
  EXPECT_EQ(refusal(graph_of(g.inputs, {before, kernel::pack_bits(mask_of(before))})),
            "the mask of a result that is no relu");
  EXPECT_EQ(refusal(graph_of(g.inputs, {y, kernel::pack_bits(op::lt(y, op::zeros_like(y)))})),
            "bits of something else than where the result is above 0");
  EXPECT_EQ(refusal(graph_of(g.inputs, {y})), "relu loses NaN, and the weights are being trained");
  // Rows of the mask are the last axis, rows of the product two.
  const Value x = input("x", {6, 5}), w = input("w", {5, 4, 8}), z = op::relu(product(x, w, Dtype::f32));
  EXPECT_EQ(refusal(graph_of({x, w}, {z, kernel::pack_bits(mask_of(z))})),
            "a mask of other rows than the product's");
}

TEST(ReluEpilogues, InTf32ByPermission) {
  for (const ir::Graph& g : {forward(Dtype::f32, 16, true), backward(Dtype::f32, 16)}) {
    const auto made = target::cuda::gemm_calls(g, {.tf32 = true});
    const auto& call = std::get<GemmCall>(std::get<target::cuda::CallList>(made).calls.back().work);
    EXPECT_TRUE(call.tf32);
    EXPECT_EQ(call.mask_ld, 128);
  }
}

TEST(ReluEpilogues, TheLibraryRefusesMasksOfOtherColumns) {
  GemmCall call{.m = 130,
                .n = 4,
                .k = 4,
                .a = {.dtype = Dtype::f32, .ld = 130},
                .b = {.dtype = Dtype::f32, .ld = 4},
                .d = {.dtype = Dtype::f32, .ld = 130},
                .epilogue = GemmEpilogue::relu_aux,
                .mask_ld = 256};
  const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device();
  for (const GemmEpilogue e : {GemmEpilogue::relu_aux, GemmEpilogue::relu_aux_bias, GemmEpilogue::drelu}) {
    call.epilogue = e;
    for (const int64_t ld : {0, 128, 192, 256}) {
      call.mask_ld = ld;
      const std::string refusal = device->ask(call).refusal;
      EXPECT_EQ(refusal.empty(), ld == 256) << ld << ": " << refusal;
    }
  }
}

// ---- as the passes fuse them ---------------------------------------------------------------------------------------

/// Two layers with relu between them, and the gradients of all weights, and of x, for a given gradient of the result.
ir::Graph network(const ir::Dims& batch, int64_t hidden, bool shows_mask = false) {
  ir::Dims dims_x = batch, dims_y = batch;
  dims_x.emplace_back(24);
  dims_y.emplace_back(8);
  const Value x = input("x", dims_x), w1 = input("w1", {24, hidden}), b1 = input("b1", {hidden}),
              w2 = input("w2", {hidden, 8}), b2 = input("b2", {8}), dy = input("dy", dims_y);
  const Value first = product(x, w1, Dtype::f32), h = op::relu(op::add(first, along_rows(b1, first)));
  const Value second = product(h, w2, Dtype::f32), y = op::add(second, along_rows(b2, second));
  std::vector<Value> outputs{y};
  for (const Value& v : autodiff::vjp(std::vector{y}, std::vector{dy}, std::vector{x, w1, b1, w2, b2}))
    outputs.push_back(v);
  if (shows_mask) outputs.push_back(mask_of(h));
  return graph_of({x, w1, b1, w2, b2, dy}, outputs);
}

std::vector<std::string> without_masks() { return {"bias", "bias", "none", "none", "sum_a", "sum_a"}; }

TEST(ReluEpilogues, OfWholePrograms) {
  const target::Target& gpu = target::cuda::cuda_target(90);
  const auto of = [&](const ir::Graph& g, pass::Precision precision = pass::Precision::f32,
                      bool exact = false) { return epilogues(*compiled(g, gpu, precision, exact)); };
  EXPECT_THAT(of(network({16}, 32)), ElementsAre("bias", "drelu", "none", "relu_aux_bias", "sum_a", "sum_a"));
  EXPECT_THAT(of(network({2, 8}, 33)),
              ElementsAre("bias", "drelu", "none", "relu_aux_bias", "sum_a", "sum_a"));
  EXPECT_EQ(of(network({16}, 32), pass::Precision::f32, true), without_masks());
  EXPECT_EQ(of(network({16}, 32, true)), without_masks());
  EXPECT_THAT(of(network({16}, 32), pass::Precision::f16), testing::Not(testing::Contains("relu_aux_bias")));
  const auto loses_nan = [&](bool exact) {
    const auto program = compiled(network({16}, 32), gpu, pass::Precision::f32, exact);
    return std::ranges::any_of(program->notes(), [](const run::Note& n) {
      return n.text.find("makes 0 of NaN") != std::string::npos && n.steps == 1;
    });
  };
  EXPECT_TRUE(loses_nan(false));
  EXPECT_FALSE(loses_nan(true));
}

/// Why a relu is a launch of its own, in the words of what refused it.
TEST(ReluEpilogues, ARefusedPairIsNoted) {
  const auto why = [](const ir::Graph& g, const target::Target& gpu,
                      pass::Precision precision = pass::Precision::f32, bool exact = false) {
    std::vector<std::string> out;
    const auto program = compiled(g, gpu, precision, exact);
    for (const run::Note& n : program->notes())
      if (n.text.starts_with("relu behind a product")) out.push_back(n.text);
    return out;
  };
  const target::Target& gpu = target::cuda::cuda_target(90);
  const std::string words = "relu behind a product and its gradient are launches of their own (cublaslt: ";
  EXPECT_THAT(why(network({16}, 32), gpu), testing::IsEmpty());
  EXPECT_THAT(why(network({16}, 32), gpu, pass::Precision::f32, true), testing::IsEmpty())
      << "it was asked for";
  EXPECT_THAT(why(network({16}, 32), gpu, pass::Precision::f16),
              ElementsAre(words + "relu loses NaN, by which training in f16 sees an overflow)"));
  for (const GemmEpilogue lacking : {GemmEpilogue::relu_aux_bias, GemmEpilogue::drelu}) {
    SimOptions options;
    options.lt_lacks = lacking;
    const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device(options);
    EXPECT_THAT(why(network({16}, 40), *target::cuda::cuda_target(device)),
                ElementsAre(testing::StartsWith(words)));
  }
}

TEST(ReluEpilogues, ValuesOfWholePrograms) {
  for (const int64_t hidden : {32, 33, 128}) {
    SCOPED_TRACE(hidden);
    expect_values(network({16}, hidden), pass::Precision::f32, 1e-5);
    expect_values(network({2, 8}, hidden), pass::Precision::f32, 1e-5);
  }
}

/// Where the library lacks one of the two, neither is asked of it; without it, kernels of our own do all. All give the same.
TEST(ReluEpilogues, WhatTheLibraryLacksIsALoop) {
  const ir::Graph g = network({16}, 40);
  const std::vector<Array> inputs = drawn(g, 3), want = target::reference::evaluate(g, inputs);
  const auto check = [&](const SimOptions& options, bool products) {
    const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device(options);
    const auto program = compiled(g, *target::cuda::cuda_target(device));
    EXPECT_EQ(epilogues(*program), products ? without_masks() : std::vector<std::string>());
    expect_near(results_on(device, g, program, inputs), want, 1e-5, program->text());
  };
  SimOptions options;
  options.lt_lacks = GemmEpilogue::drelu;
  check(options, true);
  options.lt_lacks = GemmEpilogue::relu_aux_bias;
  check(options, true);
  options = {};
  options.lt_missing = "it is not installed";
  check(options, false);
}

/// In bf16 beside kernels of our own, which round at the same places.
TEST(ReluEpilogues, InBf16) {
  const ir::Graph g = network({16}, 40);
  const std::vector<Array> inputs = drawn(g, 3);
  std::vector<std::vector<Array>> got;
  for (const char* missing : {"", "it is not installed"}) {
    SimOptions options;
    options.lt_missing = missing;
    const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device(options);
    const auto program = compiled(g, *target::cuda::cuda_target(device), pass::Precision::bf16);
    if (options.lt_missing.empty())
      EXPECT_THAT(epilogues(*program), testing::IsSupersetOf({"relu_aux_bias", "drelu"})) << program->text();
    got.push_back(results_on(device, g, program, inputs));
  }
  expect_near(got[0], got[1], 1e-2, "");
}

/// What the documentation says of NaN: it goes on in exact programs alone.
TEST(ReluEpilogues, NaNIsLostUnlessExact) {
  const ir::Graph g = network({16}, 32);
  std::vector<Array> inputs = drawn(g, 3);
  inputs[0].set(0, std::numeric_limits<double>::quiet_NaN());
  for (const bool exact : {false, true}) {
    const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device();
    const auto program = compiled(g, *target::cuda::cuda_target(device), pass::Precision::f32, exact);
    const Array y = results_on(device, g, program, inputs)[0];
    for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(std::isnan(y.at(i)), exact);
    for (int64_t i = 8; i < y.size(); ++i) EXPECT_FALSE(std::isnan(y.at(i)));
  }
}

}  // namespace
}  // namespace espalier::test
