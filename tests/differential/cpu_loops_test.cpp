// Lowering to loops and the CPU's code against the reference: every op's samples, chosen bodies, random bodies.
#include <gtest/gtest.h>

#include "op/activation.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/loss.h"
#include "op/norm.h"
#include "op/random.h"
#include "op/sampling.h"
#include "op/window.h"
#include "support/loop_bodies.h"
#include "support/loops.h"
#include "support/op_samples.h"
#include "support/random_body.h"

namespace espalier::test {
namespace {

using namespace op;  // NOLINT: a test of ops
using Ints = std::vector<int64_t>;

/// Ops whose samples must all have a loop form.
bool must_lower(const ir::OpDef& op) {
  if (op.kind == ir::Kind::elementwise || op.kind == ir::Kind::reduction) return true;
  for (const ir::OpDef* o :
       {&reshape_op,       &transpose_op,      &broadcast_to_op,  &slice_op,       &concat_op,
        &reverse_op,       &gather_op,         &gather_along_op,  &one_hot_op,     &iota_op,
        &dot_op,           &random_uniform_op, &random_normal_op, &max_pool_op,    &avg_pool_op,
        &max_pool_grad_op, &avg_pool_grad_op,  &resize_op,        &resize_grad_op, &softmax_op,
        &log_softmax_op,   &gelu_op,           &silu_op,          &layer_norm_op})
    if (o == &op) return true;
  return false;
}

class OpLoops : public testing::TestWithParam<const ir::OpDef*> {};

TEST_P(OpLoops, samples_agree_with_the_reference) {
  const ir::OpDef& op = *GetParam();
  auto rng = rng_of(op, 11);
  for (const Dtype dtype : dtypes_of(op.dtypes))
    for (int k = 0; k < 6; ++k) {
      const ir::Sample sample = op.sample(rng, dtype);
      const ir::Graph body = graph_of(op, sample);
      const auto lowered = kernel::lower(body);
      if (std::holds_alternative<kernel::Refusal>(lowered) && !must_lower(op)) continue;
      const bool transcendental = &op == &pow_op || &op == &tan_op || &op == &rem_op || &op == &atan2_op;
      ASSERT_EQ(check_loops(body, sample.inputs, transcendental ? 4 : 2), "");
    }
}

INSTANTIATE_TEST_SUITE_P(Ops, OpLoops, testing::ValuesIn(sampled_ops()), OpName());

class Loops : public testing::TestWithParam<LoopBodies> {};

TEST_P(Loops, agree_with_the_reference) {
  GetParam().make([](const ir::Graph& body, const std::vector<Array>& data, double scale) {
    EXPECT_EQ(check_loops(body, data, scale), "");
  });
}

INSTANTIATE_TEST_SUITE_P(Bodies, Loops, testing::ValuesIn(loop_bodies), LoopBodies::Name());

TEST(LoopRefusals, say_why) {
  const ir::Type type{Dtype::f32, {64, 64}};
  const Value x = ir::new_input("x", type), y = ir::new_input("y", type);
  const auto lowered = kernel::lower(body_of({x, y}, {matmul(x, y)}));
  ASSERT_TRUE(std::holds_alternative<kernel::Refusal>(lowered));
  EXPECT_NE(std::get<kernel::Refusal>(lowered).reason.find("262144 products"), std::string::npos);
}

TEST(LoopBodiesAtRandom, agree_with_the_reference) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const RandomBody made(seed);
    ASSERT_EQ(check_loops(made.body(), made.inputs(), RandomBody::scale), "") << "seed " << seed;
  }
}

}  // namespace
}  // namespace espalier::test
