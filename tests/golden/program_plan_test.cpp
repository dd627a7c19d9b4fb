// The plan of a small training step, as text: order, places, in-place updates, exact memory.
#include <gtest/gtest.h>

#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/reduction.h"
#include "run/program.h"
#include "target/null/null_target.h"

namespace espalier::run {
namespace {

using ir::Value;

Value input(const std::string& name, ir::Dims dims) {
  return ir::new_input(name, {ir::Dtype::f32, std::move(dims)});
}

/// a^T b.
Value dot_first(const Value& a, const Value& b) {
  return op::dot(a, b,
                 {.batch_a = {}, .batch_b = {}, .contract_a = {0}, .contract_b = {0}, .out = ir::Dtype::f32});
}

/// One step of SGD on two layers with a squared loss, the gradient written by hand.
ir::Graph mlp_step() {
  const Value x = input("x", {32, 16}), t = input("t", {32, 8});
  const Value w1 = input("w1", {16, 64}), b1 = input("b1", {64}), w2 = input("w2", {64, 8});
  const Value hidden = op::relu(op::add(op::matmul(x, w1), op::broadcast_in(b1, {32, 64}, {1})));
  const Value error = op::sub(op::matmul(hidden, w2), t);
  const Value loss = op::mul(op::reduce_sum(op::square(error), {0, 1}), 1.0 / 256);
  const Value d_out = op::mul(error, 2.0 / 256);
  const Value d_hidden = op::dot(
      d_out, w2, {.batch_a = {}, .batch_b = {}, .contract_a = {1}, .contract_b = {1}, .out = ir::Dtype::f32});
  const Value d_sum = op::select(op::gt(hidden, op::zeros_like(hidden)), d_hidden, op::zeros_like(hidden));
  const auto update = [](const Value& w, const Value& g) { return op::sub(w, op::mul(g, 0.1)); };
  return {.name = "mlp step",
          .level = ir::Level::tensor,
          .inputs = {x, t, w1, b1, w2},
          .outputs = {{"loss", loss},
                      {"w1'", update(w1, dot_first(x, d_sum))},
                      {"b1'", update(b1, op::reduce_sum(d_sum, {0}))},
                      {"w2'", update(w2, dot_first(hidden, d_out))}},
          .state = {{"w1", "w1'"}, {"b1", "b1'"}, {"w2", "w2'"}},
          .info = {}};
}

constexpr const char* expected = R"(
program "mlp step" for null
input 0 "x" f32[32,16]
input 1 "t" f32[32,8]
input 2 state "w1" f32[16,64] in place
input 3 state "b1" f32[64] in place
input 4 state "w2" f32[64,8] in place
output 0 "loss" f32[]
output 1 "w1'" f32[16,64] in input 2
output 2 "b1'" f32[64] in input 3
output 3 "w2'" f32[64,8] in input 4
constant 0 f32[]
constant 1 f32[]
constant 2 f32[]
constant 3 f32[]
step 0: dot [null] -> f32[32,64] : input 0, input 2 -> arena+0
step 1: broadcast_to [null] -> f32[32,64] : input 3 -> arena+8192
step 2: add [null] -> f32[32,64] : arena+0, arena+8192 -> arena+0
step 3: relu [null] -> f32[32,64] : arena+0 -> arena+0
step 4: dot [null] -> f32[32,8] : arena+0, input 4 -> arena+20480
step 5: sub [null] -> f32[32,8] : arena+20480, input 1 -> arena+20480
step 6: square [null] -> f32[32,8] : arena+20480 -> arena+8192
step 7: reduce_sum [null] -> f32[] : arena+8192 -> arena+9216
step 8: mul [null] -> f32[] : arena+9216, constant 0 -> output 0
step 9: broadcast_to [null] -> f32[32,64] : constant 1 -> arena+8192
step 10: gt [null] -> bool[32,64] : arena+0, arena+8192 -> arena+18432
step 11: broadcast_to [null] -> f32[32,8] : constant 2 -> arena+16384
step 12: mul [null] -> f32[32,8] : arena+20480, arena+16384 -> arena+20480
step 13: dot [null] -> f32[64,8] : arena+0, arena+20480 -> arena+16384
step 14: dot [null] -> f32[32,64] : arena+20480, input 4 -> arena+0
step 15: select [null] -> f32[32,64] : arena+18432, arena+0, arena+8192 -> arena+0
step 16: dot [null] -> f32[16,64] : input 0, arena+0 -> arena+8192
step 17: reduce_sum [null] -> f32[64] : arena+0 -> arena+12288
step 18: broadcast_to [null] -> f32[16,64] : constant 3 -> arena+0
step 19: mul [null] -> f32[16,64] : arena+8192, arena+0 -> arena+8192
step 20: sub [null] -> f32[16,64] : input 2, arena+8192 -> input 2
step 21: broadcast_to [null] -> f32[64] : constant 3 -> arena+12544
step 22: mul [null] -> f32[64] : arena+12288, arena+12544 -> arena+12288
step 23: sub [null] -> f32[64] : input 3, arena+12288 -> input 3
step 24: broadcast_to [null] -> f32[64,8] : constant 3 -> arena+0
step 25: mul [null] -> f32[64,8] : arena+16384, arena+0 -> arena+16384
step 26: sub [null] -> f32[64,8] : input 4, arena+16384 -> input 4
memory: arena 21504 (largest live set 21504), inputs 3072, outputs 4, state 6400, constants 16, packed 0
)";

TEST(ProgramPlan, MlpStep) {
  CompileOptions options;
  options.target = &target::null::null_target();
  const auto program = Program::compile_fused(mlp_step(), options);
  EXPECT_EQ("\n" + program->text(), expected);
  const MemoryUse& m = program->memory();
  EXPECT_LE(static_cast<double>(m.arena), 1.05 * static_cast<double>(m.largest_live_set));
}

}  // namespace
}  // namespace espalier::run
