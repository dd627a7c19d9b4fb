#include "run/profiler.h"

#include <gtest/gtest.h>

#include "op/contraction.h"
#include "support/plain_target.h"
#include "target/null/null_target.h"

namespace espalier::run {
namespace {

/// Round numbers: 1 GFLOP/s in f32, 4 in bf16, 1 GB/s.
Ceilings round_ceilings() {
  return {.machine = "test \"cpu\"", .threads = 1, .f32_flops = 1e9, .bf16_flops = 4e9, .read_bytes = 1e9};
}

std::shared_ptr<const Program> matmul_program() {
  const ir::Value a = ir::new_input("a", {ir::Dtype::f32, {64, 32}}),
                  b = ir::new_input("b", {ir::Dtype::f32, {32, 16}});
  const ir::Graph g{.name = "g",
                    .level = ir::Level::tensor,
                    .inputs = {a, b},
                    .outputs = {{"y", op::relu(op::matmul(a, b))}},
                    .state = {},
                    .info = {}};
  CompileOptions options;
  options.target = &target::null::null_target();
  return Program::compile_fused(g, options);
}

TEST(Profiler, LimitsFollowFromWorkAndCeilings) {
  const auto program = matmul_program();
  ASSERT_EQ(program->steps().size(), 2u);
  EXPECT_EQ(program->flops(), 2 * 64 * 32 * 16 + 64 * 16);
  EXPECT_DOUBLE_EQ(limit_ns(program->steps()[0].cost, round_ceilings()), 2 * 64 * 32 * 16);
  EXPECT_DOUBLE_EQ(limit_ns(program->steps()[1].cost, round_ceilings()), 2 * 64 * 16 * 4);
  EXPECT_DOUBLE_EQ(matrix_limit_ns(*program, round_ceilings()), 2 * 64 * 32 * 16);
}

TEST(Profiler, EveryStepIsTimedAndReported) {
  const auto program = matmul_program();
  Executor e(program);
  const Profile p = profile(e, 5, round_ceilings());
  ASSERT_EQ(p.steps.size(), 2u);
  double shares = 0;
  for (const StepProfile& s : p.steps) shares += s.share;
  if (p.total_ns > 0) EXPECT_NEAR(shares, 1, 1e-9);
  const std::string table = table_text(p);
  EXPECT_NE(table.find("dot"), std::string::npos);
  EXPECT_NE(table.find("total"), std::string::npos);
  EXPECT_NE(table_text(p, 1).find("and 1 more steps"), std::string::npos);
  const std::string json = json_text(p);
  EXPECT_NE(json.find("\"cpu\": \"test \\\"cpu\\\"\""), std::string::npos);
  EXPECT_NE(json.find("\"fraction_of_ceiling\""), std::string::npos);
  const std::string trace = chrome_trace(p);
  EXPECT_NE(trace.find("\"traceEvents\""), std::string::npos);
  EXPECT_NE(trace.find("\"ph\": \"X\""), std::string::npos);
}

TEST(Ceilings, AreMeasuredOncePerProcess) {
  const Ceilings& c = ceilings();
  EXPECT_GT(c.f32_flops, 0);
  EXPECT_GE(c.bf16_flops, c.f32_flops);
  EXPECT_GT(c.read_bytes, 0);
  EXPECT_EQ(c.matrix_flops(ir::Dtype::f64), c.f32_flops / 2);
  EXPECT_EQ(&ceilings(), &c);
  EXPECT_NE(c.text().find("GFLOP/s"), std::string::npos);
}

}  // namespace
}  // namespace espalier::run
