// Whole programs on the CPU target (passes, kernels, memory plan, executor) against the reference, with operands and
// results between guard pages: every op of the table in every dtype, their gradients, random graphs.
#include "grad/grad.h"
#include "op/elementwise.h"
#include "support/arrays.h"
#include "support/cpu_run.h"
#include "support/op_samples.h"
#include "support/random_graph.h"
#include "support/random_network.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
using ir::Graph;
using ir::OpDef;
using ir::Sample;
using ir::Value;

void expect_cpu_agrees(const Graph& g, std::span<const Array> inputs, double factor) {
  SCOPED_TRACE(ir::print(g));
  test::expect_close(test::run_on_cpu(g, inputs), target::reference::evaluate(g, inputs), factor);
}

class EveryOpOnCpu : public testing::TestWithParam<const OpDef*> {};

TEST_P(EveryOpOnCpu, AgreesWithTheReference) {
  const OpDef& op = *GetParam();
  ir::SampleRng rng = test::rng_of(op, 21);
  for (const Dtype dtype : test::dtypes_of(op.dtypes))
    for (int i = 0; i < 3 && !HasFailure(); ++i) {
      const Sample s = op.sample(rng, dtype);
      expect_cpu_agrees(test::graph_of(op, s), s.inputs, 8);
    }
}

class EveryGradientOnCpu : public EveryOpOnCpu {};

TEST_P(EveryGradientOnCpu, AgreesWithTheReference) {
  const OpDef& op = *GetParam();
  ir::SampleRng rng = test::rng_of(op, 22);
  for (int i = 0; i < 3 && !HasFailure(); ++i) {
    const Sample s = op.sample(rng, Dtype::f32);
    Graph g = test::graph_of(op, s);
    std::vector<Value> outputs, douts, wrt;
    for (const Value& v : g.output_values())
      if (is_float(v.dtype())) {
        outputs.push_back(v);
        g.inputs.push_back(ir::new_input("d" + std::to_string(douts.size()), v.type()));
        douts.push_back(g.inputs.back());
      }
    std::vector<Array> inputs = s.inputs;
    for (const Value& d : douts)
      inputs.push_back(op::draw_array(rng, d.dtype(), ir::static_dims(d.dims()), -1, 1));
    for (size_t k = 0; k < s.inputs.size(); ++k)
      if (is_float(s.inputs[k].dtype()) && (s.differentiable.empty() || s.differentiable[k]))
        wrt.push_back(g.inputs[k]);
    if (wrt.empty() || outputs.empty()) continue;
    for (const Value& v : autodiff::vjp(outputs, douts, wrt))
      g.outputs.push_back({"g" + std::to_string(g.outputs.size()), v});
    expect_cpu_agrees(g, inputs, 32);
  }
}

std::vector<const OpDef*> differentiable_ops() {
  std::vector<const OpDef*> ops = test::sampled_ops();
  std::erase_if(ops, [](const OpDef* op) { return op->grad.kind == ir::GradKind::none; });
  return ops;
}

INSTANTIATE_TEST_SUITE_P(Table, EveryOpOnCpu, testing::ValuesIn(test::sampled_ops()), test::OpName());
INSTANTIATE_TEST_SUITE_P(Table, EveryGradientOnCpu, testing::ValuesIn(differentiable_ops()), test::OpName());

TEST(RandomGraphsOnCpu, AgreeWithTheReference) {
  test::for_random_graphs(60, [](const test::RandomGraph& r) { expect_cpu_agrees(r.graph, r.inputs, 100); });
}

TEST(RandomNetworksOnCpu, AreNearTheReference) {
  using enum pass::Precision;
  for (uint64_t seed = 0; seed < 8 && !HasFailure(); ++seed)
    for (const bool frozen : {true, false})
      for (const pass::Precision precision : {f32, bf16, f16}) {
        ir::SampleRng rng(seed);
        test::RandomNetworkOptions options;
        options.layers = 3 + static_cast<int>(seed % 8);
        options.frozen = frozen;
        const test::RandomNetwork n = test::random_network(rng, options);
        run::CompileOptions compile;
        compile.precision = precision;
        compile.exact = seed % 2;
        compile.loss_scale = precision == f16 ? 64 : 1;
        SCOPED_TRACE("seed " + std::to_string(seed) + (frozen ? " frozen " : " with gradients ") +
                     std::string(pass::precision_name(precision)));
        test::expect_near(test::run_on_cpu(n.graph, n.inputs, compile),
                          target::reference::evaluate(n.graph, n.inputs), precision == f32 ? 2e-4 : 0.3);
      }
}

}  // namespace
}  // namespace espalier
