// espalier tune and what takes its choices, over simulated GPUs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "format/numpy.h"
#include "support/sim_plugin.h"
#include "support/tool.h"

namespace espalier::test {
namespace {

using testing::HasSubstr;

constexpr char network[] = " --net mlp-fraud --batch 4 --device cuda";

TEST(TuneCommand, ChoicesAreWrittenAndTaken) {
  const TemporaryFolder folder;
  const std::string file = (folder / "choices.txt").string();
  const ToolCall tuned = call_tool("tune --json --runs 2 -o '" + file + "'" + network, on_sim_gpu());
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  const nlohmann::json j = tuned.json();
  ASSERT_EQ(j["records"].size(), 3u) << tuned.out;
  for (const nlohmann::json& r : j["records"]) {
    EXPECT_GT(r["ways"].size(), 1u) << tuned.out;
    EXPECT_GE(r["chosen"].get<int>(), 0) << tuned.out;
  }
  EXPECT_THAT(read_file(file), HasSubstr("espalier choices 1"));
  for (const std::string command : {"bench --seconds 0.01", "profile --runs 1"}) {
    const ToolCall used = call_tool(command + network + " --choices '" + file + "'", on_sim_gpu());
    EXPECT_EQ(used.code, 0) << used.err;
    EXPECT_EQ(used.err, "");
  }
}

/// The libraries' first ways are wrong when it is tuned, so that none is chosen: where choices are taken, no record goes the first way.
TEST(TuneCommand, TrainAndRunTakeChoices) {
  const TemporaryFolder folder;
  const auto file = [&](const std::string& name) { return "'" + (folder / name).string() + "'"; };
  const auto ways_of = [&](const std::string& arguments, const std::string& settings = "") {
    std::filesystem::remove(folder / "ways");
    const ToolCall c =
        call_tool(arguments, on_sim_gpu("ways_to=" + (folder / "ways").string() + ";" + settings));
    EXPECT_EQ(c.code, 0) << c.err;
    return read_file(folder / "ways") + c.err;
  };
  const std::string train =
      "train --net mlp --data fake --fake-size 32 --batch 16 -o " + file("m.onnx") + " --device ";
  const std::string run =
      "run " + file("m.onnx") + " --input x=" + file("x.npy") + " --output " + file("out") + " --device ";
  format::save_npy(folder / "x.npy", ir::Array(ir::Dtype::f32, {3, 784}));
  EXPECT_THAT(ways_of(train + "cuda"),
              testing::AllOf(HasSubstr("cublaslt 0: "), testing::Not(HasSubstr("cublaslt 1: "))));
  const std::vector<std::tuple<std::string, std::string, std::string>> both{
      {"--net mlp --train --batch 16", train, "train"}, {file("m.onnx") + " --batch 3", run, "run"}};
  for (const auto& [tuned, used, choices] : both) {
    const std::string tune = "tune --device cuda --runs 1 " + tuned + " -o " + file(choices);
    ASSERT_EQ(call_tool(tune, on_sim_gpu("wrong=0")).code, 0);
    const std::string ways = ways_of(used + "cuda --choices " + file(choices));
    EXPECT_THAT(
        ways, testing::AllOf(testing::ContainsRegex("cublaslt [12]: "),
                             testing::Not(HasSubstr("cublaslt 0: ")), testing::Not(HasSubstr("is not used"))))
        << used;
    EXPECT_THAT(ways_of(used + "cuda --choices " + file(choices), "capability=80"),
                testing::AllOf(HasSubstr("is not used: "), HasSubstr("cublaslt 0: ")));
    const ToolCall host = call_tool(used + "cpu --choices " + file(choices));
    EXPECT_NE(host.code, 0);
    EXPECT_THAT(host.err, HasSubstr("are a GPU's"));
  }
}

TEST(TuneCommand, ChoicesOfAnotherDeviceAreNotUsedAndBadOnesAreErrors) {
  const TemporaryFolder folder;
  const std::string file = (folder / "choices.txt").string();
  ASSERT_EQ(call_tool("tune --runs 1 -o '" + file + "'" + network, on_sim_gpu()).code, 0);
  const std::string profile = std::string("profile --runs 1") + network + " --choices '" + file + "'";
  const ToolCall other = call_tool(profile, on_sim_gpu("capability=80"));
  EXPECT_EQ(other.code, 0) << other.err;
  EXPECT_THAT(other.err, HasSubstr("is not used: "));
  std::ofstream(file, std::ios::app) << "choice of nothing\n";
  const ToolCall bad = call_tool(profile, on_sim_gpu());
  EXPECT_EQ(bad.code, 3) << bad.err;
  EXPECT_THAT(bad.err, HasSubstr("line "));
  const ToolCall host = call_tool("tune --net mlp-fraud --device cpu", on_sim_gpu());
  EXPECT_EQ(host.code, 2) << host.err;
  EXPECT_THAT(host.err, HasSubstr("a GPU: cuda, cuda:1"));
}

}  // namespace
}  // namespace espalier::test
