// The tool's switches of a GPU, --sync and --no-graphs, and --device auto, over simulated GPUs; the choice by name in a program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/numpy.h"
#include "support/environment.h"
#include "support/errors.h"
#include "support/sim_plugin.h"
#include "support/tool.h"
#include "tensor/devices.h"
#include "tensor/tensor.h"

namespace espalier::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Switches : public testing::Test {
 protected:
  std::string file(const std::string& name) const { return (folder_ / name).string(); }
  static std::string train(const std::string& more) {
    return "train --net mlp --data fake --fake-size 48 --batch 16 --seed 3 " + more;
  }
  const TemporaryFolder folder_;
};

/// A kernel fails when the device comes to it: without --sync that is found when something waits, and nobody knows which it was.
TEST_F(Switches, SyncNamesTheRecordThatFailed) {
  const std::string fails = on_sim_gpu("kernel=9:719");
  const ToolCall late = call_tool(train("--device cuda"), fails),
                 now = call_tool(train("--device cuda --sync"), fails);
  for (const ToolCall* c : {&late, &now}) {
    EXPECT_EQ(c->code, 3) << c->err;
    EXPECT_THAT(c->err, HasSubstr("it was made to fail"));
  }
  EXPECT_THAT(now.err, testing::ContainsRegex("step [0-9]+, (fusion|dot|copy) .*cuStreamSynchronize"));
  EXPECT_THAT(late.err, Not(testing::ContainsRegex("step [0-9]+, (fusion|dot|copy) ")));

  const std::string net = " --net mlp --train --batch 4 --device cuda";
  for (const std::string command : {"bench --seconds 0.01 --sync", "profile --runs 1 --sync"})
    EXPECT_THAT(call_tool(command + net, on_sim_gpu("kernel=2:719")).err,
                testing::ContainsRegex("step [0-9]+, (fusion|dot|copy) "))
        << command;
}

/// The same numbers with every way of launching.
TEST_F(Switches, AllWaysGiveTheSame) {
  for (const std::string way : {"", "--sync", "--no-graphs"}) {
    const ToolCall c = call_tool(train("--device cuda -o " + file("m" + way + ".onnx") + " " + way),
                                 on_sim_gpu("calls_to=" + file("calls" + way)));
    ASSERT_EQ(c.code, 0) << c.err;
  }
  const std::string want = read_file(file("m.onnx"));
  EXPECT_TRUE(read_file(file("m--sync.onnx")) == want);
  EXPECT_TRUE(read_file(file("m--no-graphs.onnx")) == want);
  const auto calls = [&](const std::string& way) { return std::stoll(read_file(file("calls" + way))); };
  EXPECT_NE(calls("--no-graphs"), calls(""));
  EXPECT_GT(calls("--sync"), calls("--no-graphs"));

  format::save_npy(folder_ / "x.npy", Tensor::randn({3, 784}, 4).array());
  for (const std::string way : {"", "--sync", "--no-graphs"}) {
    const ToolCall c = call_tool("run " + file("m.onnx") + " --input x=" + file("x.npy") +
                                     " --device cuda --output " + file("out" + way) + " " + way,
                                 on_sim_gpu());
    ASSERT_EQ(c.code, 0) << c.err;
    EXPECT_TRUE(read_file(file("out" + way + "/y.npy")) == read_file(file("out/y.npy"))) << way;
  }
}

TEST_F(Switches, OfAGpuAlone) {
  for (const std::string way : {"--sync", "--no-graphs"})
    for (const std::string& command :
         {train(""), std::string("bench --net linear"), std::string("profile --net linear"),
          "run " + file("none.onnx") + " --output " + file("out")}) {
      const ToolCall c = call_tool(command + " " + way);
      EXPECT_EQ(c.code, 2) << command;
      EXPECT_THAT(c.err, AllOf(HasSubstr(way + ": is of a GPU alone"), HasSubstr("--device cpu"))) << command;
    }
}

TEST_F(Switches, AGraphThatCannotBeIsSaid) {
  const ToolCall c =
      call_tool("bench --net linear --device cuda --seconds 0.01", on_sim_gpu("lacks=cuGraphLaunch"));
  EXPECT_EQ(c.code, 0) << c.err;
  EXPECT_THAT(c.err, HasSubstr("launched record by record: the driver for CUDA 12.0 lacks cuGraphLaunch"));
  const ToolCall old = call_tool("bench --net linear --device cuda", on_sim_gpu("driver=11080"));
  EXPECT_EQ(old.code, 3);
  EXPECT_THAT(old.err, HasSubstr("driver too old, found 11.8, needs 12.0"));
}

TEST_F(Switches, AutoTakesTheFirstGpuThatCanBeHad) {
  const std::string bench = "bench --net linear --seconds 0.01 --json --device auto";
  const ToolCall gpu = call_tool(bench, on_sim_gpu("gpus=2"));
  EXPECT_EQ(gpu.code, 0) << gpu.err;
  EXPECT_THAT(gpu.err,
              HasSubstr("--device auto is cuda:0: the first GPU that can be had, simulated sm_90 number 0"));
  const struct {
    std::string settings, why;
  } none[] = {{on_sim_gpu("held=1"), "exclusive process"},
              {on_sim_gpu("capability=75"), "sm_80 or newer"},
              {on_sim_gpu("driver=11080"), "found 11.8, needs 12.0"},
              {"export ESPALIER_CUDA_PATH=/no/such/folder;", "libcuda.so.1 is not there"}};
  for (const auto& [settings, why] : none) {
    const ToolCall cpu = call_tool(bench, settings);
    EXPECT_EQ(cpu.code, 0) << cpu.err;
    EXPECT_THAT(cpu.err, AllOf(HasSubstr("--device auto is cpu: no GPU can be had: "), HasSubstr(why)));
  }
  EXPECT_EQ(call_tool(bench + " --sync", on_sim_gpu("held=1")).code, 2) << "the processor has no such switch";
}

TEST_F(Switches, AutoByNameInAProgram) {
  ASSERT_TRUE(use_sim_gpu());
  {
    const Variable one("ESPALIER_FAKE_GPU", "gpus=1;capability=86");
    const ChosenDevice chosen = choose_device("auto");
    EXPECT_EQ(chosen.device, Device::cuda(0));
    EXPECT_THAT(chosen.why, HasSubstr("simulated sm_86"));
    EXPECT_NE(chosen.open, nullptr);
  }
  const Variable held("ESPALIER_FAKE_GPU", "held=1;gpus=2");
  const ChosenDevice chosen = choose_device("auto");
  EXPECT_EQ(chosen.device, Device::cpu());
  EXPECT_THAT(chosen.why,
              AllOf(HasSubstr("device cuda:0"), HasSubstr("device cuda:1"), HasSubstr("exclusive process")));
  EXPECT_EQ(choose_device("cuda:1").device, Device::cuda(1)) << "a name that leaves no choice costs nothing";
  EXPECT_EQ(choose_device("cuda:1").why, "");
  EXPECT_THAT(error_of([] { choose_device("gpu"); }), HasSubstr("cuda, cuda:N"));
}

}  // namespace
}  // namespace espalier::test
