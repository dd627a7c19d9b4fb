// gpu_check over simulated GPUs: every part runs, says what it saw, and notices what goes wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/sim_plugin.h"
#include "support/tool.h"

namespace espalier::test {
namespace {

using testing::HasSubstr;
using testing::Not;

/// A run of it with results in `folder`; `before` is text of a shell.
Outcome gpu_check(const std::string& arguments, const std::filesystem::path& folder,
                  const std::string& before) {
  const std::filesystem::path program = std::filesystem::path(ESPALIER_TOOL).parent_path() / "gpu_check";
  return run_command(before + " exec '" + program.string() + "' " + arguments + " --small --out '" +
                     folder.string() + "'");
}

TEST(GpuCheck, WithoutAGpuItIsSkippedAndSaysWhyHeavy) {
  const TemporaryFolder folder;
  const Outcome o = gpu_check("--part 1", folder.path(), on_sim_gpu("gpus=0"));
  EXPECT_EQ(o.code, 77) << o.output;
  EXPECT_THAT(o.output, HasSubstr("[SKIP] part 1"));
  EXPECT_THAT(o.output, Not(HasSubstr("[PASS]")));
  EXPECT_EQ(gpu_check("--part 4", folder.path(), "").code, 2);
}

TEST(GpuCheck, FactsCeilingsAndOpsAreCheckedHeavy) {
  const TemporaryFolder folder;
  for (const std::string only : {"facts", "copies", "products", "op softmax", "error of exp"}) {
    const Outcome o = gpu_check("--part 1 --only '" + only + "'", folder.path(), on_sim_gpu());
    EXPECT_EQ(o.code, 0) << o.output;
    EXPECT_THAT(o.output, HasSubstr("[PASS]"));
    EXPECT_THAT(read_file(folder / "part1.txt"), HasSubstr(only));
  }
  EXPECT_EQ(nlohmann::json::parse(read_file(folder / "facts.json"))["gpus"].size(), 1u);
  EXPECT_THAT(read_file(folder / "products.txt"), HasSubstr("-> workspace"));
}

TEST(GpuCheck, NetworksAreHeldAgainstTheCpuAndTimedHeavy) {
  const TemporaryFolder folder;
  const Outcome models = gpu_check("--part 2 --only mlp", folder.path(), on_sim_gpu());
  EXPECT_EQ(models.code, 0) << models.output;
  EXPECT_THAT(models.output, HasSubstr("mlp: graphs change no bit: 5 of 6 runs were replays"));
  const Outcome speed = gpu_check("--part 3", folder.path(), on_sim_gpu());
  EXPECT_EQ(speed.code, 0) << speed.output;
  EXPECT_EQ(nlohmann::json::parse(read_file(folder / "speed.json"))["steps"].size(), 2u);
}

TEST(GpuCheck, AFailureIsALineAndTheRestGoesOnHeavy) {
  const TemporaryFolder folder;
  const std::string calls = (folder / "calls").string();
  ASSERT_EQ(
      gpu_check("--part 1 --only 'no check at all'", folder.path(), on_sim_gpu("calls_to=" + calls)).code, 0);
  const std::string next = std::to_string(std::stoi(read_file(calls)) + 3);
  const Outcome o = gpu_check("--part 1 --only copies", folder.path(), on_sim_gpu("fail=" + next + ":2"));
  EXPECT_EQ(o.code, 1) << o.output;
  EXPECT_THAT(o.output, HasSubstr("[FAIL]"));
  EXPECT_THAT(o.output, HasSubstr("1 passed, 1 failed"));
}

TEST(GpuCheck, NothingBeginsAfterTheBudgetHeavy) {
  const TemporaryFolder folder;
  const Outcome o = gpu_check("--part 1 --budget 1e-9", folder.path(), on_sim_gpu());
  EXPECT_THAT(o.output, HasSubstr("the budget of 0 s is used up"));
  EXPECT_THAT(o.output, HasSubstr("0 passed, 0 failed"));
}

}  // namespace
}  // namespace espalier::test
