// gpu_check over simulated GPUs: every part runs, says what it saw, and notices what goes wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/sim_plugin.h"
#include "support/tool.h"
#include "target/cuda/match/product_table.h"

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
  const Outcome held = gpu_check("--part 1", folder.path(), on_sim_gpu("held=1"));
  EXPECT_EQ(held.code, 1) << held.output;
  EXPECT_THAT(held.output, HasSubstr("[FAIL] part 1"));
}

TEST(GpuCheck, FactsCeilingsAndOpsAreCheckedHeavy) {
  const TemporaryFolder folder;
  for (const std::string only : {"facts", "copies", "products of f32", "table of products", "values of every",
                                 "streams", "graphs", "memory", "error of exp"}) {
    const Outcome o = gpu_check("--part 1 --only '" + only + "'", folder.path(), on_sim_gpu());
    EXPECT_EQ(o.code, 0) << o.output;
    EXPECT_THAT(o.output, HasSubstr("[PASS]"));
    EXPECT_THAT(read_file(folder / "part1.txt"), HasSubstr(only));
  }
  const nlohmann::json facts = nlohmann::json::parse(read_file(folder / "facts.json"));
  EXPECT_EQ(facts["gpus"].size(), 1u);
  EXPECT_EQ(facts["cudnn_device"]["deviceVer"], 900);
  const auto table = target::cuda::parse_product_table(read_file(folder / "products.txt"), "products.txt");
  EXPECT_EQ(table.capability, 90);
  EXPECT_GT(table.rows.at("bf16 bf16 f32 bias")[0].algorithms, 0);
}

/// Bits of kernels are those of docs/gpu/kernel_bits.txt, which `--record` writes.
TEST(GpuCheck, BitsOfOpsAreThoseOfTheLogHeavy) {
  const TemporaryFolder folder;
  for (const std::string only : {"op softmax", "op exp"}) {
    const Outcome o = gpu_check("--part 1 --only '" + only + "'", folder.path(), on_sim_gpu());
    EXPECT_EQ(o.code, 0) << o.output;
    EXPECT_THAT(o.output, HasSubstr("the simulator's bits"));
  }
  const Outcome o = gpu_check("--part 1 --only 'op dot' --record '" + folder.path().string() + "'",
                              folder.path(), on_sim_gpu());
  EXPECT_EQ(o.code, 0) << o.output;
  EXPECT_THAT(o.output, HasSubstr("bits may differ: a library multiplies"));
  EXPECT_THAT(read_file(folder / "kernel_bits.txt"), HasSubstr("\ndot - a library"));
  EXPECT_FALSE(std::filesystem::exists(folder / "cpu_losses.txt"));
}

TEST(GpuCheck, NetworksAreHeldAgainstTheCpuAndTimedHeavy) {
  const TemporaryFolder folder;
  const Outcome models = gpu_check("--part 2 --only mlp", folder.path(), on_sim_gpu());
  EXPECT_EQ(models.code, 0) << models.output;
  EXPECT_THAT(models.output, HasSubstr("mlp: graphs change no bit: 5 of 6 runs were replays"));
  EXPECT_THAT(models.output, HasSubstr("mlp: f16's loss scale is found: "));
  EXPECT_THAT(models.output, HasSubstr("mlp: tuned: "));
  const Outcome speed = gpu_check("--part 3", folder.path(), on_sim_gpu());
  EXPECT_EQ(speed.code, 0) << speed.output;
  EXPECT_EQ(nlohmann::json::parse(read_file(folder / "speed.json"))["steps"].size(), 2u);
}

TEST(GpuCheck, AFailureIsALineAndTheRestGoesOnHeavy) {
  const TemporaryFolder folder;
  const std::string calls = (folder / "calls").string();
  const Outcome none =
      gpu_check("--part 1 --only 'no check at all'", folder.path(), on_sim_gpu("calls_to=" + calls));
  ASSERT_EQ(none.code, 0) << none.output;
  EXPECT_THAT(none.output, HasSubstr("[SKIP] no check's name contains \"no check at all\""));
  int failed = 0;  // calls that give something back fail unseen
  for (const int more : {4, 5, 7, 8, 10, 11}) {
    const std::string next = std::to_string(std::stoi(read_file(calls)) + more);
    const Outcome o = gpu_check("--part 1 --only copies", folder.path(), on_sim_gpu("fail=" + next + ":2"));
    if (o.code == 0) continue;
    ++failed;
    EXPECT_EQ(o.code, 1) << o.output;
    EXPECT_THAT(o.output, HasSubstr("[FAIL]"));
    EXPECT_THAT(o.output, HasSubstr("1 passed, 1 failed"));
  }
  EXPECT_GE(failed, 2);
}

int lines_with(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

/// The second kernel of every process fails, and each of these three checks has one.
TEST(GpuCheck, AfterAnErrorThatLastsTheRestIsMadeByANewProcessHeavy) {
  const TemporaryFolder folder;
  const std::string checks = "--part 1 --only 'error of s'";
  const Outcome o = gpu_check(checks, folder.path(), on_sim_gpu("kernel=2:719"));
  EXPECT_EQ(o.code, 1) << o.output;
  EXPECT_THAT(o.output, HasSubstr("2 passed, 1 failed, 0 skipped"));
  const std::string log = read_file(folder / "part1.txt");
  EXPECT_EQ(lines_with(log, "[PASS]"), 2) << log;
  EXPECT_EQ(lines_with(log, "[FAIL]"), 1) << log;
  EXPECT_LT(log.find("[FAIL]"), log.rfind("[PASS]")) << log;
  const Outcome last = gpu_check(checks + " --from 3", folder.path(), on_sim_gpu());
  EXPECT_EQ(last.code, 0) << last.output;
  EXPECT_THAT(last.output, HasSubstr("1 passed, 0 failed, 0 skipped"));
  EXPECT_EQ(lines_with(read_file(folder / "part1.txt"), "[PASS]"), 3);
}

TEST(GpuCheck, NothingBeginsAfterTheBudgetHeavy) {
  const TemporaryFolder folder;
  const Outcome o = gpu_check("--part 1 --budget 1e-9", folder.path(), on_sim_gpu());
  EXPECT_THAT(o.output, HasSubstr("the budget of 0 s is used up"));
  EXPECT_THAT(o.output, HasSubstr("0 passed, 0 failed"));
}

/// A check that does not end cannot keep the machine.
TEST(GpuCheck, WhatRunsBeyondTheBudgetIsCutOffHeavy) {
  const TemporaryFolder folder;
  const Outcome o = gpu_check("--part 2 --budget 0.1 --only 'resnet-18 trains'", folder.path(), on_sim_gpu());
  EXPECT_EQ(o.code, 0) << o.output;
  EXPECT_THAT(o.output, HasSubstr("[SKIP]"));
  EXPECT_THAT(o.output,
              HasSubstr("resnet-18 trains as on the CPU: it was cut off: the budget of 0 s is used up"));
  EXPECT_THAT(o.output, HasSubstr("0 passed, 0 failed, 1 skipped"));
  EXPECT_THAT(read_file(folder / "part2.txt"), HasSubstr("it was cut off"));
}

/// Kernels that were compiled beforehand serve the checks where nothing can be compiled.
TEST(GpuCheck, RunsFromImagesWithADriverAloneHeavy) {
  const TemporaryFolder folder;
  const std::string images = (folder / "images").string(), only = " --part 1 --only 'op dot'";
  const Outcome made = gpu_check(only + " --images '" + images + "'", folder.path(), on_sim_gpu());
  ASSERT_EQ(made.code, 0) << made.output;
  EXPECT_THAT(made.output, HasSubstr("images made by simulator"));
  const std::string use = " export ESPALIER_KERNEL_IMAGES='" + images + "';";
  for (const std::string libraries : {"", ";without=cublaslt,cudnn"}) {
    const Outcome served = gpu_check(only, folder.path(), on_sim_gpu("compiler=none" + libraries) + use);
    EXPECT_EQ(served.code, 0) << served.output;
    EXPECT_THAT(served.output, HasSubstr("1 passed, 0 failed"));
    const Outcome products =
        gpu_check("--part 1 --only products", folder.path(), on_sim_gpu("compiler=none" + libraries));
    EXPECT_EQ(products.code, 0) << products.output;
    EXPECT_THAT(products.output, HasSubstr(libraries.empty() ? "5 passed" : "1 passed, 0 failed, 4 skipped"));
  }
  const Outcome without =
      gpu_check("--part 1 --only 'op exp'", folder.path(), on_sim_gpu("compiler=none") + use);
  EXPECT_EQ(without.code, 1) << without.output;
  EXPECT_THAT(without.output, HasSubstr("espalier compile"));
}

}  // namespace
}  // namespace espalier::test
