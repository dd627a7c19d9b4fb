// Products of matrices as records of the CUDA target, run from the record alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "op/activation.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/sampling.h"
#include "support/cuda_calls.h"
#include "support/op_samples.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/match/gemm.h"

namespace espalier::test {
namespace {

using target::CallRecord;
using target::GemmCall;
using target::GemmEpilogue;
using target::cuda::CallList;
using target::cuda::GemmOptions;

using Ints = std::vector<int64_t>;

/// With little workspace, which nothing here needs, so that buffers are quickly made.
std::variant<CallList, kernel::Refusal> small_calls(const ir::Graph& body, const GemmOptions& options) {
  auto made = target::cuda::gemm_calls(body, options);
  if (auto* list = std::get_if<CallList>(&made))
    for (CallRecord& call : list->calls)
      if (auto* gemm = std::get_if<GemmCall>(&call.work)) {
        list->scratch_bytes -= gemm->workspace - 256;
        gemm->workspace = 256;
      }
  return made;
}

std::string refusal(const ir::Graph& body, const GemmOptions& options = {}) {
  const auto made = small_calls(body, options);
  const auto* refused = std::get_if<kernel::Refusal>(&made);
  return refused ? refused->reason : "";
}

/// A body over drawn inputs.
struct Body {
  explicit Body(uint64_t seed = 1) : rng(seed) {}
  ir::SampleRng rng;
  std::vector<Value> inputs;
  std::vector<Array> data;
  std::vector<char> constant;

  Value in(const Ints& dims, Dtype dtype = Dtype::f32, bool frozen = false) {
    data.push_back(op::draw_array(rng, dtype, dims, -2, 2));
    inputs.push_back(ir::new_input("x" + std::to_string(inputs.size()), data.back().type()));
    constant.push_back(frozen);
    return inputs.back();
  }
  ir::Graph of(const Value& y) const { return body_of(inputs, {y}); }
  GemmOptions options() const {
    return {.exact = false, .tf32 = false, .constant = constant, .alignment = {}};
  }
};

Value along_channels(const Value& vector, const Value& like) { return op::broadcast_to(vector, like.dims()); }

TEST(DeviceGemm, EveryLayoutOfEveryContraction) {
  CallCases steps;
  int dots = 0, transposed = 0;
  for (const Dtype dtype : {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16}) {
    auto rng = rng_of(op::dot_op, static_cast<uint64_t>(dtype));
    for (int i = 0; i < 60; ++i) {
      const ir::Sample sample = op::dot_op.sample(rng, dtype);
      const ir::Graph body = graph_of(op::dot_op, sample);
      auto made = small_calls(body, {});
      if (const auto* refused = std::get_if<kernel::Refusal>(&made)) {
        EXPECT_EQ(refused->reason, "nothing to do") << ir::print(body);
        continue;
      }
      auto& list = std::get<CallList>(made);
      ++dots;
      transposed += list.calls.size() > 1;
      steps.add(body, sample.inputs, std::move(list), {.scale = 2, .all_orders = false});
    }
  }
  EXPECT_GE(dots, 150);
  EXPECT_GE(transposed, 20);
  EXPECT_EQ(steps.run(), "");
}

TEST(DeviceGemm, IntegersGoAlongContiguousRowsInFours) {
  CallCases steps;
  const auto add = [&](const Ints& a, const Ints& b, op::DotAttrs at, size_t calls) {
    Body body;
    at.out = Dtype::i32;
    const Value x = body.in(a, Dtype::i8), y = body.in(b, Dtype::i8);
    const ir::Graph g = body.of(op::dot(x, y, at));
    auto made = small_calls(g, {});
    ASSERT_TRUE(std::holds_alternative<CallList>(made)) << refusal(g);
    EXPECT_EQ(std::get<CallList>(made).calls.size(), calls) << ir::print(g);
    steps.add(g, body.data, std::get<CallList>(std::move(made)), {});
  };
  add({7, 16}, {12, 16}, {.contract_a = {1}, .contract_b = {1}}, 1);
  add({7, 16}, {16, 12}, {.contract_a = {1}, .contract_b = {0}}, 2);
  add({16, 8}, {16, 12}, {.contract_a = {0}, .contract_b = {0}}, 3);
  add({3, 8, 16}, {3, 16, 12}, {.batch_a = {0}, .batch_b = {0}, .contract_a = {2}, .contract_b = {1}}, 2);
  EXPECT_EQ(steps.run(), "");
  Body odd;
  const Value x = odd.in({8, 15}, Dtype::i8), y = odd.in({12, 15}, Dtype::i8);
  EXPECT_EQ(refusal(odd.of(op::dot(x, y, {.contract_a = {1}, .contract_b = {1}, .out = Dtype::i32}))),
            "i8 in sizes that are no multiples of 4");
  EXPECT_EQ(refusal(odd.of(op::dot(x, y, {.contract_a = {1}, .contract_b = {1}, .out = Dtype::i8}))),
            "result dtype i8");
}

/// dot, a number, bias and residual in either order, an activation, casts: each there or not.
ir::Graph random_epilogue(Body& body, Dtype dtype) {
  const auto coin = [&] { return op::draw_chance(body.rng, 0.5); };
  const bool batch = coin(), narrow = dtype == Dtype::bf16 || dtype == Dtype::f16;
  const int64_t m = op::draw(body.rng, 1, 9), n = op::draw(body.rng, 1, 9), k = op::draw(body.rng, 1, 9);
  const Value a = body.in(batch ? Ints{3, m, k} : Ints{m, k}, dtype);
  const Value b = body.in(batch ? Ints{3, k, n} : Ints{k, n}, dtype, true);
  op::DotAttrs at{.batch_a = {},
                  .batch_b = {},
                  .contract_a = {a.rank() - 1},
                  .contract_b = {b.rank() - 2},
                  .out = narrow && coin() ? dtype : Dtype::f32};
  if (batch) at.batch_a = at.batch_b = {0};
  Value y = op::dot(a, b, at);
  if (coin()) y = op::mul(y, 0.75);
  const bool casts = y.dtype() != dtype && coin();
  const bool residual = coin(), residual_first = coin();
  const auto add_residual = [&] {
    if (casts && y.dtype() != dtype) y = op::cast(y, dtype);
    y = op::add(y, body.in(ir::static_dims(y.dims()), y.dtype()));
  };
  if (residual && residual_first) add_residual();
  if (coin()) y = op::add(y, along_channels(body.in({n}, y.dtype()), y));
  if (residual && !residual_first) add_residual();
  const int64_t activation = op::draw(body.rng, 0, 2);
  if (activation == 1) y = op::relu(y);
  if (activation == 2) {
    const Value gelu = op::gelu(y, true);
    y = gelu->op().expand(gelu.node())[0];
  }
  if (casts && y.dtype() != dtype) y = op::cast(y, dtype);
  return body.of(y);
}

TEST(DeviceGemm, EveryEpilogue) {
  CallCases steps;
  std::set<GemmEpilogue> seen;
  int residuals = 0;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16})
    for (uint64_t seed = 0; seed < 80; ++seed) {
      Body body(seed);
      const ir::Graph g = random_epilogue(body, dtype);
      auto made = small_calls(g, body.options());
      ASSERT_TRUE(std::holds_alternative<CallList>(made)) << refusal(g, body.options()) << ir::print(g);
      auto& list = std::get<CallList>(made);
      const auto& call = std::get<GemmCall>(list.calls.back().work);
      seen.insert(call.epilogue);
      residuals += call.beta == 1;
      const double scale =
          dtype == Dtype::f32 ? 4 : 8;  // the body rounds to 16 bits after each op, the call once
      for (const bool in_place : {false, true})
        steps.add(g, body.data, list, {.scale = scale, .in_place = in_place, .all_orders = false});
    }
  EXPECT_EQ(seen.size(), 6u);
  EXPECT_GE(residuals, 60);
  EXPECT_EQ(steps.run(), "");
}

TEST(DeviceGemm, WhatIsRefused) {
  Body body;
  const Value a = body.in({4, 8}), b = body.in({8, 6}), bias = body.in({6}), rows = body.in({4});
  const Value y = op::matmul(a, b);
  EXPECT_EQ(refusal(body.of(op::relu(y))), "relu loses NaN, and the weights are being trained");
  const std::vector<char> frozen{0, 1, 0, 0};
  EXPECT_EQ(
      refusal(body.of(op::relu(y)), {.exact = true, .tf32 = false, .constant = frozen, .alignment = {}}),
      "relu loses NaN, and exact kernels are asked for");
  EXPECT_EQ(
      refusal(body.of(op::relu(y)), {.exact = false, .tf32 = false, .constant = frozen, .alignment = {}}),
      "");
  EXPECT_NE(refusal(body.of(op::add(y, op::broadcast_in(rows, y.dims(), {0})))), "");
  EXPECT_NE(refusal(body.of(op::add(op::add(y, along_channels(bias, y)), along_channels(bias, y)))), "");
  EXPECT_NE(refusal(body.of(op::mul(y, along_channels(bias, y)))), "");
  EXPECT_NE(refusal(body.of(op::mul(op::add(y, along_channels(bias, y)), 2.0))), "");
  EXPECT_NE(refusal(body.of(op::tanh(y))), "");
  EXPECT_NE(refusal(body.of(op::cast(y, Dtype::bf16))), "");
  const Value exact_gelu = op::gelu(y);
  EXPECT_EQ(refusal(body.of(exact_gelu->op().expand(exact_gelu.node())[0])), "gelu by erf");
}

/// The buffers of a test lie at multiples of 16; what says otherwise is copied all the same.
TEST(DeviceGemm, WhatIsNotAlignedIsCopied) {
  Body body;
  const Value a = body.in({5, 9}), b = body.in({9, 7}), bias = body.in({7}), residual = body.in({5, 7});
  const Value y = op::matmul(a, b);
  const ir::Graph g = body.of(op::add(op::add(y, along_channels(bias, y)), residual));
  const auto calls = [&](const std::vector<int64_t>& alignment) {
    auto made = small_calls(g, {.exact = false, .tf32 = false, .constant = {}, .alignment = alignment});
    CallList list = std::get<CallList>(std::move(made));
    CallCases cases;
    cases.add(g, body.data, list, {.scale = 2, .in_place = true, .all_orders = false});
    EXPECT_EQ(cases.run(), "");
    return std::pair(list.calls.size(), list.in_place.size());
  };
  EXPECT_EQ(calls({}), std::pair(size_t{1}, size_t{1}));
  EXPECT_EQ(calls({64, 64, 64, 64, 64}), std::pair(size_t{1}, size_t{1}));
  EXPECT_EQ(calls({4, 64, 64, 64, 64}), std::pair(size_t{2}, size_t{1}));
  EXPECT_EQ(calls({4, 4, 4, 4, 4}), std::pair(size_t{6}, size_t{0}));
}

TEST(DeviceGemm, Tf32OnlyByPermission) {
  Body body;
  const Value a = body.in({4, 64}), b = body.in({64, 6});
  const ir::Graph g = body.of(op::matmul(a, b));
  const auto tf32 = [&](const GemmOptions& options) {
    const auto made = small_calls(g, options);
    return std::get<GemmCall>(std::get<CallList>(made).calls[0].work).tf32;
  };
  EXPECT_FALSE(tf32({}));
  EXPECT_TRUE(tf32({.exact = false, .tf32 = true, .constant = {}, .alignment = {}}));
  EXPECT_FALSE(tf32({.exact = true, .tf32 = true, .constant = {}, .alignment = {}}));
  CallCases close_to, equal_to;
  auto made = small_calls(g, {.exact = false, .tf32 = true, .constant = {}, .alignment = {}});
  close_to.add(g, body.data, std::get<CallList>(made), {.scale = 1000});
  equal_to.add(g, body.data, std::get<CallList>(made), {});
  EXPECT_EQ(close_to.run(), "");
  EXPECT_NE(equal_to.run(), "");
}

/// A frozen square layer in f32: errors in its record stay inside its memory.
struct SquareLayer {
  static constexpr int64_t size = 8;
  Body body;
  ir::Graph graph;
  CallList list;
  SquareLayer() {
    const Value a = body.in({size, size}), b = body.in({size, size}, Dtype::f32, true),
                bias = body.in({size});
    const Value y = op::matmul(a, b);
    graph = body.of(op::relu(op::add(y, along_channels(bias, y))));
    list = std::get<CallList>(small_calls(graph, body.options()));
  }
  CallRecord& record() { return list.calls[0]; }
  GemmCall& call() { return std::get<GemmCall>(record().work); }
  std::string run() const {
    CallCases steps;
    steps.add(graph, body.data, list, {});
    return steps.run();
  }
};

TEST(DeviceGemm, ErrorsInARecordShow) {
  EXPECT_EQ(SquareLayer().run(), "");
  const auto broken = [](const std::function<void(SquareLayer&)>& change) {
    SquareLayer layer;
    change(layer);
    return layer.run();
  };
  const auto has = [](const char* text) { return testing::HasSubstr(text); };
  EXPECT_THAT(broken([](SquareLayer& l) { std::swap(l.record().operands[0], l.record().operands[1]); }),
              has("differ"));
  EXPECT_THAT(broken([](SquareLayer& l) { l.call().a.transposed = true; }), has("differ"));
  EXPECT_THAT(broken([](SquareLayer& l) { l.call().epilogue = GemmEpilogue::gelu_bias; }), has("differ"));
  EXPECT_THAT(broken([](SquareLayer& l) { l.call().alpha = 2; }), has("differ"));
  EXPECT_THAT(broken([](SquareLayer& l) { l.call().k = 7; }), has("differ"));
  EXPECT_THAT(broken([](SquareLayer& l) { l.call().n = 7; }), has("differ"));
  EXPECT_THAT(broken([](SquareLayer& l) { l.call().b.ld = 9; }), has("B reaches out of its memory"));
  EXPECT_THAT(broken([](SquareLayer& l) { l.call().a.ld = 7; }),
              has("leading dimension 7 of A, which has 8 rows"));
  EXPECT_THAT(broken([](SquareLayer& l) { l.record().operands[2].offset = 4; }),
              has("the bias is not aligned"));
  EXPECT_THAT(broken([](SquareLayer& l) { l.record().operands.pop_back(); }), has("4 operands, not 5"));
  EXPECT_THAT(broken([](SquareLayer& l) { l.call().d.dtype = Dtype::bf16; }), has("f32 times f32 to bf16"));
}

/// The row-major product taken for a column-major one, with both transposes: the bias then lies along the wrong side.
TEST(DeviceGemm, ABiasAlongTheWrongSideShows) {
  SquareLayer layer;
  std::swap(layer.record().operands[0], layer.record().operands[1]);
  layer.call().a.transposed = layer.call().b.transposed = true;
  layer.call().epilogue = GemmEpilogue::relu;
  layer.record().operands.erase(layer.record().operands.begin() + 2);
  EXPECT_THAT(layer.run(), testing::HasSubstr("differ"));
}

TEST(DeviceGemm, SizesThatAreSwappedShow) {
  Body body;
  const Value a = body.in({12, 20}), b = body.in({20, 8});
  const ir::Graph g = body.of(op::matmul(a, b));
  CallList list = std::get<CallList>(small_calls(g, {}));
  auto& call = std::get<GemmCall>(list.calls[0].work);
  std::swap(call.m, call.n);
  CallCases steps;
  steps.add(g, body.data, list, {});
  EXPECT_THAT(steps.run(), testing::HasSubstr("leading dimension 8 of A, which has 12 rows"));
  call.a.ld = call.d.ld = 12;
  CallCases again;
  again.add(g, body.data, list, {});
  EXPECT_THAT(again.run(), testing::HasSubstr("A reaches out of its memory"));
}

/// The target's list: the library where it can, else loops.
TEST(DeviceGemm, TheTargetTakesTheLibraryFirst) {
  const target::Target& cuda = target::cuda::cuda_target(90);
  const auto prepared = [&](const Value& y) { return cuda.prepare(y.node(), {}, {}); };
  const auto in = [](const Ints& dims, Dtype dtype) {
    return ir::new_input("x", {dtype, ir::Dims(dims.begin(), dims.end())});
  };
  const auto product = [&](Dtype dtype, int64_t n) {
    return prepared(
        op::dot(in({n, n}, dtype), in({n, n}, dtype), {.contract_a = {1}, .contract_b = {0}, .out = dtype}));
  };
  const target::Prepared lib = product(Dtype::f32, 64);
  EXPECT_EQ(lib.kernel->name(), "cublaslt");
  EXPECT_EQ(lib.kernel->scratch_bytes(), target::cuda::gemm_workspace);
  EXPECT_TRUE(lib.refusals.empty());
  const target::Prepared small = product(Dtype::i64, 8);
  EXPECT_EQ(small.kernel->name(), "loops");
  ASSERT_EQ(small.refusals.size(), 1u);
  EXPECT_EQ(small.refusals[0].reason, "dtype i64");
  EXPECT_EQ(product(Dtype::f32, 0).kernel->name(), "loops");
}

}  // namespace
}  // namespace espalier::test
