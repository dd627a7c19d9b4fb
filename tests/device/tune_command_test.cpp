// espalier tune and what takes its choices, over simulated GPUs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

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
