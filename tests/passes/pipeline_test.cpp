// Every pass keeps the meaning of random graphs and has nothing left to do when run again; the whole pipeline on the CPU target
// gives what the reference gives.
#include <gtest/gtest.h>

#include <set>

#include "op/table.h"
#include "pass/pass.h"
#include "rewrite/pattern.h"
#include "run/executor.h"
#include "run/program.h"
#include "run/targets.h"
#include "support/arrays.h"
#include "support/golden.h"
#include "support/random_graph.h"
#include "support/random_network.h"
#include "target/cuda/cuda_target.h"
#include "target/reference/interpreter.h"

namespace espalier::test {
namespace {

/// On a GPU, whose passes need none, steps and bytes are what counts.
enum class Machine : uint8_t { cpu, gpu };

pass::PassContext context(pass::Precision precision = pass::Precision::f32, Machine machine = Machine::cpu) {
  return {
      .spec = machine == Machine::cpu ? run::find_target("cpu").spec() : target::cuda::cuda_target(90).spec(),
      .evaluate = target::reference::evaluate_node,
      .precision = precision,
      .exact = false,
      .loss_scale = 1};
}

/// The graph where `pass` finds it, and after it.
struct Applied {
  ir::Graph before, after;
  const pass::Pass* pass = nullptr;
  bool changed() const { return !rewrite::same_outputs(before, after); }
};
Applied apply(const std::string& name, ir::Graph graph, const pass::PassContext& context) {
  for (const pass::Pass& p : pass::pipeline()) {
    ir::Graph next = p.run(graph, context);
    if (p.name == name) return {std::move(graph), std::move(next), &p};
    graph = std::move(next);
  }
  throw std::logic_error(name);
}

void expect_nothing_left(const Applied& a, const pass::PassContext& context) {
  ir::verify(a.after);
  const ir::Graph again = a.pass->run(a.after, context);
  EXPECT_TRUE(rewrite::same_outputs(a.after, again)) << diff_lines(ir::print(a.after), ir::print(again));
}

/// "fuse_loops", or "fuse_loops_on_a_gpu".
class EachPass : public testing::TestWithParam<std::string> {
 protected:
  static constexpr std::string_view on_a_gpu = "_on_a_gpu";
  static Machine machine() { return GetParam().ends_with(on_a_gpu) ? Machine::gpu : Machine::cpu; }
  static std::string pass() {
    return machine() == Machine::cpu ? GetParam() : GetParam().substr(0, GetParam().size() - on_a_gpu.size());
  }
};

TEST_P(EachPass, KeepsTheMeaningOfRandomGraphs) {
  int changed = 0;
  for (uint64_t seed = 0; seed < 80; ++seed) {
    SCOPED_TRACE(GetParam() + " seed " + std::to_string(seed));
    ir::SampleRng rng(seed);
    RandomGraphOptions options;
    options.nodes = 8;
    RandomGraph random = random_graph(rng, options);
    if (seed % 2) random.graph = with_some_frozen(random.graph, random.inputs, rng);
    const pass::PassContext where = context(pass::Precision::f32, machine());
    const Applied a = apply(pass(), random.graph, where);
    changed += a.changed();
    expect_nothing_left(a, where);
    expect_close(target::reference::evaluate(a.after, random.inputs), random.want, 4);
  }
  const bool may_rest =
      std::set<std::string>{"fold_batch_norm", "mixed_precision", "sink_relu",   "widen_contractions",
                            "choose_layout",   "simplify_layout", "fold_layout", "fuse_contractions"}
          .contains(pass());
  EXPECT_TRUE(changed > 0 || may_rest) << "no random graph gave the pass work";
}

/// Over random networks with the parameters as constants or with gradients, in a precision: on how many of them the pass did
/// something.
int check_networks(const std::string& pass, pass::Precision precision, Machine machine, bool frozen,
                   double tolerance) {
  int changed = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(pass + " seed " + std::to_string(seed) + (frozen ? " frozen" : " with gradients"));
    ir::SampleRng rng(seed);
    RandomNetworkOptions options;
    options.frozen = frozen;
    const RandomNetwork n = random_network(rng, options);
    const pass::PassContext where = context(precision, machine);
    const Applied a = apply(pass, n.graph, where);
    changed += a.changed();
    expect_nothing_left(a, where);
    expect_near(target::reference::evaluate(a.after, n.inputs),
                target::reference::evaluate(n.graph, n.inputs), tolerance);
  }
  return changed;
}

TEST_P(EachPass, KeepsTheMeaningOfNetworks) {
  int changed = 0;
  for (const bool frozen : {true, false}) {
    changed += check_networks(pass(), pass::Precision::f32, machine(), frozen, 1e-3);
    changed += check_networks(pass(), pass::Precision::bf16, machine(), frozen, 0.25);
    changed += check_networks(pass(), pass::Precision::f16, machine(), frozen, 0.25);
  }
  const bool may_rest =
      GetParam() == "fold_constants" || GetParam() == "simplify_layout" || GetParam() == "sink_relu";
  EXPECT_TRUE(changed > 0 || may_rest) << "no network gave the pass work";
}

/// Gradients of parameters leave as f32 sums: none is a rounded value made wide again.
TEST(ParameterGradients, AreNotRoundedInNetworks) {
  for (const pass::Precision precision : {pass::Precision::bf16, pass::Precision::f16})
    for (uint64_t seed = 0; seed < 60; ++seed) {
      ir::SampleRng rng(seed);
      RandomNetworkOptions options;
      options.frozen = false;
      const Applied a = apply("mixed_precision", random_network(rng, options).graph, context(precision));
      for (const ir::Output& o : a.after.outputs) {
        const ir::Node& n = o.value.node();
        EXPECT_TRUE(n.op().name != "cast" || n.input(0).dtype() == ir::Dtype::f32)
            << "seed " << seed << " output " << o.name << "\n"
            << ir::print(a.after);
      }
    }
}

TEST(SinkRelu, KeepsGradientsOfNetworksThroughMaxPool) {
  int changed = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    ir::SampleRng rng(seed);
    RandomNetworkOptions options;
    options.frozen = false;
    options.max_pool_gradients = true;
    const RandomNetwork n = random_network(rng, options);
    const Applied a = apply("sink_relu", n.graph, context());
    changed += a.changed();
    expect_nothing_left(a, context());
    const auto got = target::reference::evaluate(a.after, n.inputs),
               want = target::reference::evaluate(a.before, n.inputs);
    for (size_t i = 0; i < want.size(); ++i) expect_close(got[i], want[i], {0, 0, 0});
  }
  EXPECT_GT(changed, 5);
}

/// All on a CPU but for those that have work on a GPU alone, and there those that see what a step costs.
std::vector<std::string> pass_names() {
  std::vector<std::string> names;
  for (const pass::Pass& p : pass::pipeline()) {
    const std::string name(p.name);
    const bool gpu_alone = name == "batch_nests";
    if (!gpu_alone) names.push_back(name);
    if (gpu_alone || name == "fuse_contractions" || name == "fuse_loops") names.push_back(name + "_on_a_gpu");
  }
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
  const auto dtypes = {ir::Dtype::f32, ir::Dtype::f64, ir::Dtype::i32, ir::Dtype::i64, ir::Dtype::bf16};
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
