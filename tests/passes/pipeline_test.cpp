// Every pass keeps the meaning of random graphs and has nothing left to do when run again; the whole pipeline on the CPU target
// gives what the reference gives.
#include <gtest/gtest.h>

#include "op/table.h"
#include "pass/pass.h"
#include "rewrite/pattern.h"
#include "run/executor.h"
#include "run/program.h"
#include "run/targets.h"
#include "support/arrays.h"
#include "support/random_graph.h"
#include "target/reference/interpreter.h"

namespace espalier::test {
namespace {

pass::PassContext context() {
  return {.spec = run::find_target("cpu").spec(),
          .evaluate = target::reference::evaluate_node,
          .precision = pass::Precision::f32,
          .exact = false,
          .loss_scale = 1};
}

class EachPass : public testing::TestWithParam<std::string> {};

TEST_P(EachPass, KeepsTheMeaningAndIsIdempotent) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    ir::SampleRng rng(seed);
    RandomGraphOptions options;
    options.nodes = 8;
    const RandomGraph random = random_graph(rng, options);
    // bring the graph to where the pass stands
    ir::Graph graph = random.graph;
    for (const pass::Pass& p : pass::pipeline()) {
      const ir::Graph next = p.run(graph, context());
      if (p.name == GetParam()) {
        ir::verify(next);
        expect_close(target::reference::evaluate(next, random.inputs), random.want, 4,
                     GetParam() + " seed " + std::to_string(seed));
        EXPECT_TRUE(rewrite::same_outputs(next, p.run(next, context())))
            << p.name << " seed " << seed << "\n"
            << ir::print(next) << ir::print(p.run(next, context()));
        break;
      }
      graph = next;
    }
  }
}

std::vector<std::string> pass_names() {
  std::vector<std::string> names;
  for (const pass::Pass& p : pass::pipeline()) names.emplace_back(p.name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Pipeline, EachPass, testing::ValuesIn(pass_names()),
                         [](const auto& i) { return i.param; });

std::vector<ir::Array> run_on_cpu(const ir::Graph& graph, const std::vector<ir::Array>& inputs,
                                  run::CompileOptions options = {}) {
  options.target = &run::find_target("cpu");
  const auto program = run::Program::compile(graph, options);
  run::Executor executor(program);
  for (size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].bytes() > 0)
      std::memcpy(executor.input(i), inputs[i].data(), static_cast<size_t>(inputs[i].bytes()));
  executor.poison();
  executor.run();
  std::vector<ir::Array> out;
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    const ir::Type t = graph.outputs[i].value.type();
    ir::Array a(t.dtype, ir::static_dims(t.dims));
    if (a.bytes() > 0) std::memcpy(a.write(), executor.output(i), static_cast<size_t>(a.bytes()));
    out.push_back(std::move(a));
  }
  return out;
}

class CpuProgram : public testing::TestWithParam<int> {};

TEST_P(CpuProgram, GivesWhatTheReferenceGives) {
  const auto dtypes = {ir::Dtype::f32, ir::Dtype::f64, ir::Dtype::i32, ir::Dtype::bf16};
  for (const ir::Dtype dtype : dtypes)
    for (uint64_t seed = 0; seed < 6; ++seed) {
      ir::SampleRng rng(static_cast<uint64_t>(GetParam()) * 1000 + seed);
      RandomGraphOptions options;
      options.nodes = 12;
      options.dtypes = ir::dtype_set(dtype);
      const RandomGraph random = random_graph(rng, options);
      SCOPED_TRACE(std::string(ir::dtype_name(dtype)) + " seed " +
                   std::to_string(GetParam() * 1000 + static_cast<int>(seed)));
      expect_close(run_on_cpu(random.graph, random.inputs), random.want, 8);
    }
}
INSTANTIATE_TEST_SUITE_P(Random, CpuProgram, testing::Range(0, 8));

}  // namespace
}  // namespace espalier::test
