// Which ops the CPU target leaves to the reference interpreter: none but those in the list below, each with its reason.
#include <gtest/gtest.h>

#include <map>

#include "run/program.h"
#include "support/op_samples.h"
#include "target/cpu/cpu_target.h"

namespace espalier {
namespace {

struct Fallback {
  std::string_view op, reason;
};
constexpr Fallback allowed[] = {
    {"conv", "oneDNN has no f64 and no integers in 32 bits"},
    {"conv_data_grad", "oneDNN has no f64 and no integers in 32 bits"},
    {"conv_weight_grad", "oneDNN has no f64 and no integers in 32 bits"},
};

bool is_allowed(std::string_view op, ir::Dtype dtype, std::string_view why) {
  if (why.find("an empty operand or result") != std::string_view::npos)
    return true;  // there is nothing to compute
  if (ir::is_float(dtype) && dtype != ir::Dtype::f64) return false;
  for (const Fallback& f : allowed)
    if (f.op == op) return true;
  return false;
}

/// The steps of `program` that the interpreter runs, and why.
void collect(const run::Program& program, std::map<std::string, std::string>& found) {
  for (const run::Step& s : program.steps()) {
    for (const auto& body : s.bodies) collect(*body, found);
    if (s.kernel->name() != "reference") continue;
    std::string reasons;
    for (const kernel::Refusal& r : s.refusals) reasons += " " + r.by + ": " + r.reason + ";";
    found.emplace(s.op, s.detail + reasons);
  }
}

class CpuFallback : public testing::TestWithParam<const ir::OpDef*> {};

TEST_P(CpuFallback, IsInTheList) {
  const ir::OpDef& op = *GetParam();
  ir::SampleRng rng = test::rng_of(op, 23);
  run::CompileOptions options;
  options.target = &target::cpu::cpu_target();
  for (const ir::Dtype dtype : test::dtypes_of(op.dtypes))
    for (int i = 0; i < 4; ++i) {
      const ir::Sample s = op.sample(rng, dtype);
      std::map<std::string, std::string> found;
      collect(*run::Program::compile(test::graph_of(op, s), options), found);
      for (const auto& [name, why] : found)
        EXPECT_TRUE(is_allowed(name, dtype, why)) << op.name << " in " << ir::dtype_name(dtype) << " runs "
                                                  << name << " in the interpreter: " << why;
    }
}

INSTANTIATE_TEST_SUITE_P(Table, CpuFallback, testing::ValuesIn(test::sampled_ops()), test::OpName());

}  // namespace
}  // namespace espalier
