// The plugin over the simulated driver does what the product's does: the tool lists its GPUs, and a program in this process opens one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/environment.h"
#include "support/errors.h"
#include "support/sim_plugin.h"
#include "support/tool.h"

namespace espalier::target::cuda {
namespace {

using testing::HasSubstr;

TEST(SimPlugin, TheToolListsItsGpus) {
  const test::ToolCall c =
      test::call_tool("devices --json", test::on_sim_gpu("gpus=2;capability=80;memory=1048576"));
  const nlohmann::json j = c.json();
  EXPECT_EQ(j["cuda"]["plugin"]["path"], (test::sim_plugin() / plugin_file).string());
  ASSERT_EQ(j["gpus"].size(), 2u) << c.out;
  EXPECT_EQ(j["gpus"][1]["device"], "cuda:1");
  EXPECT_EQ(j["gpus"][1]["capability"], 80);
  EXPECT_EQ(j["gpus"][1]["memory_bytes"], 1 << 20);
  EXPECT_EQ(j["cuda"]["libraries"].size(), 4u) << c.out;
}

TEST(SimPlugin, CallsAreCountedAndFail) {
  const test::TemporaryFolder folder;
  const std::string calls = (folder / "calls").string();
  ASSERT_EQ(test::call_tool("devices", test::on_sim_gpu("calls_to=" + calls)).code, 0);
  EXPECT_GT(std::stoi(read_file(calls)), 10);
  const test::ToolCall failed = test::call_tool("devices", test::on_sim_gpu("fail=1:999"));
  EXPECT_THAT(failed.out, HasSubstr("CUDA_ERROR_UNKNOWN (999)")) << failed.err;
}

TEST(SimPlugin, GpusOpenInThisProcess) {
  ASSERT_TRUE(test::use_sim_gpu());
  {
    const test::Variable two("ESPALIER_FAKE_GPU", "gpus=2;memory=4096");
    const std::shared_ptr<Device> device = open_device(1);
    EXPECT_EQ(device->info().index, 1);
    EXPECT_EQ(device->free_bytes(), 4096);
    EXPECT_THAT(test::error_of([] { open_device(2); }), HasSubstr("device cuda:2"));
  }
  const test::Variable held("ESPALIER_FAKE_GPU", "held=1");
  EXPECT_THAT(test::error_of([] { open_device(0); }), HasSubstr("CUDA_ERROR_DEVICE_UNAVAILABLE"));
}

}  // namespace
}  // namespace espalier::target::cuda
