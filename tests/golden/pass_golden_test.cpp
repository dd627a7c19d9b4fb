// What each pass is for and what it leaves alone, as text: tests/golden/passes/*.txt (see tests/golden/README.md).
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "kernel/contraction_body.h"
#include "kernel/lower.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "pass/passes.h"
#include "pass/schedule.h"
#include "rewrite/pattern.h"
#include "run/program.h"
#include "support/arrays.h"
#include "support/golden.h"
#include "target/null/null_target.h"
#include "target/reference/interpreter.h"

namespace espalier::test {
namespace {

namespace fs = std::filesystem;

/// A target of the same choices on every machine: it claims layer_norm, its matrix kernels take biases, residuals, relu and
/// casts, it has no f16 arithmetic, its convolutions like blocks of four channels, and planes where there are three. Steps cost what
/// they cost on a GPU where a case says "batching"; where it says "wide" a relu must give its mask in bits, which its gradient takes.
class GoldenSpec final : public kernel::TargetSpec {
 public:
  explicit GoldenSpec(bool batching, bool wide = false) : batching_(batching), wide_(wide) {}
  bool wide_epilogues() const override { return wide_; }
  const kernel::BatchLimits* batching() const override {
    static constexpr kernel::BatchLimits limits{.member_bytes = 1024, .buffers = 12};
    return batching_ ? &limits : nullptr;
  }
  std::string_view name() const override { return "golden"; }
  bool claims(const ir::Node& node) const override { return node.op().name == "layer_norm"; }
  kernel::Verdict accepts(kernel::FusionKind kind, const ir::Graph& body, std::span<const char>,
                          bool) const override {
    if (kind == kernel::FusionKind::loops) {
      const auto lowered = kernel::lower(body);
      const auto* refusal = std::get_if<kernel::Refusal>(&lowered);
      return refusal ? kernel::Verdict(*refusal) : std::nullopt;
    }
    if (kind == kernel::FusionKind::batch) return {};
    static const std::set<const ir::OpDef*> taken{&op::add_op,          &op::relu_op,    &op::cast_op,
                                                  &op::broadcast_to_op, &op::reshape_op, &op::transpose_op};
    if (wide_) {
      const auto read = kernel::read_contraction(body, true);
      if (const auto* reason = std::get_if<std::string>(&read)) return kernel::Refusal{"golden", *reason};
      const auto& body_read = std::get<kernel::ContractionBody>(read);
      const bool ends_in_relu = !body_read.steps.empty() && body_read.steps.back().op == &op::relu_op;
      if (ends_in_relu == body_read.extras.empty()) return kernel::Refusal{"golden", "relu without its mask"};
      return {};
    }
    for (const ir::Node* n : body.nodes())
      if (n->op().kind != ir::Kind::leaf && n->op().kind != ir::Kind::contraction &&
          !taken.contains(&n->op()))
        return kernel::Refusal{"golden", std::string(n->op().name)};
    return {};
  }
  kernel::ConvChoice conv_choice(const ir::Node& node) const override {
    using enum kernel::ActLayout;
    if (node.input(0).dims().back() == 1 && node.input(0).dims()[0].value() % 4 == 0)
      return {batch_blocked, batch_blocked, 4};
    const auto layout = [](const ir::Value& v) {
      const int64_t channels = v.dims().back().value();
      return channels == 3 ? planar : channels % 4 == 0 ? blocked : channels_last;
    };
    return {layout(node.input(0)), layout(node.value()), 4};
  }
  ir::Dtype contraction_dtype(ir::Dtype operands) const override {
    return operands == ir::Dtype::f16 ? ir::Dtype::f32 : operands;
  }
  ir::Dtype fast_dtype() const override { return ir::Dtype::bf16; }
  int64_t cache_bytes() const override { return 1 << 20; }

 private:
  bool batching_, wide_;
};

/// A file: comments, settings, and a graph before and after a pass.
struct Case {
  fs::path file;
  std::string head, pass, before, after;
  pass::Precision precision = pass::Precision::f32;
  bool exact = false, batching = false, wide = false;
  double loss_scale = 1;
};

fs::path folder() { return fs::path(ESPALIER_SOURCE_DIR) / "tests/golden/passes"; }

Case read_case(const fs::path& file) {
  Case c{.file = file};
  std::string* section = &c.head;
  for (const std::string& line : lines_of(read_file(file))) {
    if (line == "==== before") section = &c.before;
    else if (line == "==== after") section = &c.after;
    else (*section += line) += "\n";
  }
  for (const std::string& line : lines_of(c.head)) {
    const auto value = [&](std::string_view key) {
      return line.starts_with(key) ? line.substr(key.size()) : std::string();
    };
    if (const std::string v = value("pass: "); !v.empty()) c.pass = v;
    else if (const std::string p = value("precision: "); !p.empty()) c.precision = pass::precision_of_name(p);
    else if (const std::string s = value("loss scale: "); !s.empty()) c.loss_scale = std::stod(s);
    else if (line == "exact") c.exact = true;
    else if (line == "batching") c.batching = true;
    else if (line == "wide") c.wide = true;
    else EXPECT_TRUE(line.starts_with("#")) << file << ": " << line;
  }
  return c;
}

std::vector<fs::path> case_files() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder())) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

pass::PassContext context(const Case& c) {
  static const GoldenSpec plain(false), batching(true), wide(false, true);
  return {.spec = c.wide       ? wide
                  : c.batching ? batching
                               : plain,
          .evaluate = target::reference::evaluate_node,
          .precision = c.precision,
          .exact = c.exact,
          .loss_scale = c.loss_scale};
}

ir::Graph run_pass(const ir::Graph& graph, const Case& c) {
  return pass::run_passes(graph, std::vector{pass::find_pass(c.pass)}, context(c)).graph;
}

/// The steps in order, and which state pairs share a buffer.
std::string schedule_text(const ir::Graph& graph) {
  const pass::Schedule s = pass::schedule(graph);
  std::string text;
  for (const ir::Node* n : s.order) (text += text.empty() ? "order:" : "") += " " + std::string(n->op().name);
  text += "\n";
  for (size_t i = 0; i < graph.state.size(); ++i)
    text += graph.state[i].input + (s.shared[i] ? ": in place\n" : ": copied at the end\n");
  return text + "live: " + std::to_string(s.live_bytes) + " bytes\n";
}

std::string plan_text(const ir::Graph& graph) {
  run::CompileOptions options;
  options.target = &target::null::null_target();
  return run::Program::compile_fused(graph, options)->text();
}

std::string after_text(const ir::Graph& before, const Case& c) {
  if (c.pass == "schedule") return schedule_text(before);
  if (c.pass == "memory_plan") return plan_text(before);
  const ir::Graph after = run_pass(before, c);
  const bool same = rewrite::same_outputs(before, after);
  EXPECT_EQ(same, ir::print(after) == ir::print(before)) << "the same graph comes back when nothing matched";
  return same ? "the same\n" : ir::print(after);
}

/// The graph computes what it did, at random inputs, for a batch of 3.
void expect_same_values(const ir::Graph& before, const ir::Graph& after, double tolerance) {
  std::mt19937_64 rng(1);
  std::uniform_real_distribution<double> uniform(0.5, 2);
  std::vector<ir::Array> inputs;
  for (const ir::Value& v : ir::specialise(before, {{"batch", 3}}).inputs) {
    ir::Array a(v.dtype(), ir::static_dims(v.dims()));
    for (int64_t i = 0; i < a.size(); ++i) a.set(i, uniform(rng));
    inputs.push_back(a);
  }
  const auto want = target::reference::evaluate(before, inputs),
             got = target::reference::evaluate(after, inputs);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) expect_close(got[i], want[i], {tolerance, tolerance, 0});
}

class PassText : public testing::TestWithParam<fs::path> {};

TEST_P(PassText, BeforeAndAfter) {
  const Case c = read_case(GetParam());
  const ir::Graph before = ir::parse(c.before);
  ir::verify(before);
  const std::string after = after_text(before, c);
  if (updates_golden()) {
    write_file(c.file, c.head + "==== before\n" + ir::print(before) + "==== after\n" + after);
    return;
  }
  EXPECT_TRUE(golden(c.before, ir::print(before), c.file));
  EXPECT_TRUE(golden(c.after, after, c.file));
}

TEST_P(PassText, IsIdempotentAndKeepsTheMeaning) {
  const Case c = read_case(GetParam());
  if (c.pass == "schedule" || c.pass == "memory_plan") return;  // no graph comes out
  const ir::Graph before = ir::parse(c.before), after = run_pass(before, c), again = run_pass(after, c);
  EXPECT_TRUE(rewrite::same_outputs(after, again)) << diff_lines(ir::print(after), ir::print(again));
  EXPECT_TRUE(ir::same_structure(ir::parse(ir::print(after)), after)) << "the text does not parse back";
  expect_same_values(before, after, c.precision == pass::Precision::f32 ? 1e-5 : 3e-2);
}

INSTANTIATE_TEST_SUITE_P(Golden, PassText, testing::ValuesIn(case_files()),
                         [](const auto& i) { return i.param.stem().string(); });

TEST(PassTexts, EveryPassShowsWhatItDoesAndWhatItLeavesAlone) {
  using Run = ir::Graph (*)(const ir::Graph&, const pass::PassContext&);
  std::map<Run, std::set<bool>> seen;  // did it change the graph?
  for (const fs::path& file : case_files()) {
    const Case c = read_case(file);
    if (c.pass != "schedule" && c.pass != "memory_plan")
      seen[pass::find_pass(c.pass).run].insert(c.after != "the same\n");
  }
  for (const pass::Pass& p : pass::pipeline()) {
    EXPECT_TRUE(seen[p.run].contains(true)) << p.name << " has no golden text of a change";
    EXPECT_TRUE(seen[p.run].contains(false) || p.name == "fuse_loops")
        << p.name << " has no golden text of a graph that it leaves alone";
  }
}

TEST(PassTexts, ADifferenceShowsItsLines) {
  EXPECT_EQ(diff_lines("a\nb\nc\n", "a\nx\nc\nd\n"), "  a\n- b\n+ x\n  c\n+ d\n");
  EXPECT_EQ(diff_lines("", "a\n"), "+ a\n");
  EXPECT_EQ(diff_lines("a\n", ""), "- a\n");
}

}  // namespace
}  // namespace espalier::test
