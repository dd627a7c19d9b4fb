// Whole gradients through relu and max_pool, with ties, negatives and NaN: the pass changes no bit of them.
#include <gtest/gtest.h>

#include <limits>

#include "grad/grad.h"
#include "op/elementwise.h"
#include "op/reduction.h"
#include "op/window.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"
#include "run/targets.h"
#include "support/arrays.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

ir::Graph sunk(const ir::Graph& g) {
  return pass::sink_relu(g, {.spec = run::find_target("reference").spec(),
                             .evaluate = target::reference::evaluate_node,
                             .precision = pass::Precision::f32,
                             .exact = false,
                             .loss_scale = 1});
}

struct Pooled {
  ir::Graph graph;
  ir::Value y;  ///< relu(x)
};

/// The sum of weight * max_pool(relu(x)) and its gradient with respect to x.
Pooled pooled(const op::PoolAttrs& attrs, ir::Dtype dtype) {
  const ir::Value x = ir::new_input("x", {dtype, {2, 5, 6, 3}});
  const ir::Value y = op::relu(x), p = op::max_pool(y, attrs)[0];
  const ir::Value weight = ir::new_input("weight", p.type());
  const ir::Value loss = op::reduce_sum(op::mul(p, weight), {0, 1, 2, 3});
  ir::Graph g{.name = "pooled",
              .inputs = {x, weight},
              .outputs = {{"p", p}, {"loss", loss}},
              .state = {},
              .info = {}};
  g.outputs.push_back({"dx", autodiff::gradient(loss, std::vector{x})[0]});
  return {g, y};
}

/// Small whole numbers (many ties, many not positive), a few of them NaN.
ir::Array whole_numbers(const ir::Type& type, std::mt19937_64& rng, bool nan) {
  ir::Array a(type.dtype, ir::static_dims(type.dims));
  for (int64_t i = 0; i < a.size(); ++i) a.set(i, static_cast<double>(rng() % 7) - 4);
  if (nan)
    for (int i = 0; i < 5; ++i)
      a.set(static_cast<int64_t>(rng() % static_cast<uint64_t>(a.size())),
            std::numeric_limits<double>::quiet_NaN());
  return a;
}

TEST(SinkRelu, ChangesNoBitOfAGradient) {
  std::mt19937_64 rng(7);
  const op::PoolAttrs windows[] = {
      {.window = {2, 2}, .stride = {2, 2}, .pad_low = {0, 0}, .pad_high = {0, 0}},
      {.window = {3, 3}, .stride = {2, 2}, .pad_low = {1, 1}, .pad_high = {1, 1}},
      {.window = {3, 2}, .stride = {1, 1}, .pad_low = {0, 0}, .pad_high = {0, 1}}};
  for (const op::PoolAttrs& attrs : windows)
    for (const ir::Dtype dtype : {ir::Dtype::f32, ir::Dtype::f64, ir::Dtype::bf16})
      for (int round = 0; round < 10; ++round) {
        const ir::Graph before = pooled(attrs, dtype).graph, after = sunk(before);
        ASSERT_FALSE(rewrite::same_outputs(before, after));
        std::vector<ir::Array> inputs;
        for (const ir::Value& v : before.inputs)
          inputs.push_back(whole_numbers(v.type(), rng, inputs.empty()));
        const auto want = target::reference::evaluate(before, inputs),
                   got = target::reference::evaluate(after, inputs);
        for (size_t i = 0; i < want.size(); ++i) test::expect_close(got[i], want[i], {0, 0, 0});
      }
}

TEST(SinkRelu, LeavesAReluWithOtherReaders) {
  const op::PoolAttrs attrs{.window = {2, 2}, .stride = {2, 2}, .pad_low = {0, 0}, .pad_high = {0, 0}};
  Pooled p = pooled(attrs, ir::Dtype::f32);
  p.graph.outputs.push_back({"skip", op::exp(p.y)});
  EXPECT_TRUE(rewrite::same_outputs(p.graph, sunk(p.graph)));
  Pooled whole = pooled(attrs, ir::Dtype::f32);
  whole.graph.outputs.push_back({"y", whole.y});
  EXPECT_TRUE(rewrite::same_outputs(whole.graph, sunk(whole.graph)));
}

}  // namespace
}  // namespace espalier
