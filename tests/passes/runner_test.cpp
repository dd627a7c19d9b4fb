// The runner: what it does for every pass.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "op/elementwise.h"
#include "pass/pass.h"
#include "run/program.h"
#include "run/targets.h"
#include "support/errors.h"
#include "target/reference/interpreter.h"

namespace espalier::pass {
namespace {

using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

PassContext context() {
  return {.spec = run::find_target("reference").spec(), .evaluate = target::reference::evaluate_node};
}

ir::Graph negated(int times) {
  const ir::Value x = ir::new_input("x", {ir::Dtype::f32, {4}});
  ir::Value y = x;
  for (int i = 0; i < times; ++i) y = op::neg(y);
  return {.name = "g", .inputs = {x}, .outputs = {{"y", y}}, .state = {}, .info = {}};
}

/// y becomes -y.
ir::Graph negate(const ir::Graph& g, const PassContext&) {
  ir::Graph out = g;
  out.outputs[0].value = op::neg(g.outputs[0].value);
  return out;
}
ir::Graph nothing(const ir::Graph& g, const PassContext&) { return g; }
/// A state pair of an output that is not there.
ir::Graph broken(const ir::Graph& g, const PassContext&) {
  ir::Graph out = g;
  out.state = {{"x", "none"}};
  return out;
}

constexpr Pass negate_pass{"negate", "", negate, ir::Level::tensor},
    again_pass{"again", "", negate, ir::Level::tensor},
    nothing_pass{"nothing", "", nothing, ir::Level::tensor},
    broken_pass{"broken", "", broken, ir::Level::tensor};

TEST(PassRunner, ReportsWhatEachPassDid) {
  const auto r = run_passes(negated(0), std::vector{negate_pass, nothing_pass, again_pass}, context());
  ASSERT_EQ(r.reports.size(), 3u);
  EXPECT_TRUE(r.reports[0].changed);
  EXPECT_FALSE(r.reports[1].changed);
  EXPECT_TRUE(r.reports[2].changed);
  for (const PassReport& p : r.reports) EXPECT_GE(p.ns, 0);
  EXPECT_EQ(r.graph.nodes().size(), 3u);
}

TEST(PassRunner, SkipsWhatIsDisabledByName) {
  RunnerOptions o;
  o.disabled = {"again"};
  const auto r = run_passes(negated(0), std::vector{negate_pass, again_pass}, context(), o);
  ASSERT_EQ(r.reports.size(), 2u);
  EXPECT_FALSE(r.reports[0].skipped);
  EXPECT_TRUE(r.reports[1].skipped);
  EXPECT_EQ(r.graph.nodes().size(), 2u);
}

TEST(PassRunner, StopsAfterAPass) {
  RunnerOptions o;
  o.stop_after = "negate";
  const auto r = run_passes(negated(0), std::vector{negate_pass, again_pass}, context(), o);
  EXPECT_EQ(r.reports.size(), 1u);
  EXPECT_EQ(r.graph.nodes().size(), 2u);
  o.disabled = {"negate"};  // also where that one is skipped
  EXPECT_EQ(run_passes(negated(0), std::vector{negate_pass, again_pass}, context(), o).graph.nodes().size(),
            1u);
}

TEST(PassRunner, PrintsAfterPassesThatChanged) {
  std::vector<std::string> seen, texts;
  RunnerOptions o;
  o.print_changed = [&](std::string_view pass, const std::string& text) {
    seen.emplace_back(pass);
    texts.push_back(text);
  };
  (void)run_passes(negated(0), std::vector{negate_pass, nothing_pass, again_pass}, context(), o);
  EXPECT_THAT(seen, ElementsAre("negate", "again"));
  EXPECT_EQ(texts[0], ir::print(negated(1)));
}

TEST(PassRunner, VerifiesAfterEveryPass) {
  EXPECT_THROW(run_passes(negated(0), std::vector{broken_pass}, context()), std::exception);
  RunnerOptions o;
  o.verify = false;
  EXPECT_NO_THROW(run_passes(negated(0), std::vector{broken_pass}, context(), o));
}

TEST(PassRunner, AnUnknownNameIsAnErrorThatListsThePasses) {
  const std::vector passes{negate_pass, nothing_pass};
  RunnerOptions o;
  o.disabled = {"simplify"};  // a pass of the pipeline, but none of these
  EXPECT_THAT(error_of([&] { run_passes(negated(0), passes, context(), o); }),
              testing::AllOf(HasSubstr("simplify"), HasSubstr("negate nothing")));
  o.disabled = {};
  o.stop_after = "fuse_lops";
  EXPECT_THAT(error_of([&] { run_passes(negated(0), pipeline(), context(), o); }),
              testing::AllOf(HasSubstr("fuse_lops"), HasSubstr("fuse_contractions fuse_loops")));
  run::CompileOptions c;
  c.disabled = {"nope"};
  EXPECT_THAT(error_of([&] { (void)run::Program::compile(negated(1), c); }), HasSubstr("fold_batch_norm"));
}

TEST(PassRunner, EveryPassOfThePipelineCanBeDisabled) {
  for (const Pass& p : pipeline()) {
    run::CompileOptions c;
    c.disabled = {std::string(p.name)};
    const auto program = run::Program::compile(negated(2), c);
    for (const PassReport& r : program->passes()) EXPECT_EQ(r.skipped, r.name == p.name);
  }
}

}  // namespace
}  // namespace espalier::pass
