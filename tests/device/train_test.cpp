// Training on a GPU through the Trainer and through the tool, over the simulated driver, beside the same on the host; and what goes wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/numpy.h"
#include "run/program.h"
#include "support/arrays.h"
#include "support/environment.h"
#include "support/sim_plugin.h"
#include "support/small_training.h"
#include "support/tool.h"

namespace espalier::train {
namespace {

using test::call_tool;
using test::on_sim_gpu;
using test::SmallTraining;
using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;

class TrainOnGpu : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(test::use_sim_gpu()); }
  const TemporaryFolder folder_;
};

/// Losses within 1e-5, parameters within 1e-4, relatively.
TEST_F(TrainOnGpu, TheTrainerTrainsAsOnTheHost) {
  struct Losses : Callback {
    void on_step(const Progress& p) override { all.push_back(p.values[0]); }
    std::vector<double> all;
  };
  SmallTraining gpu({.device = Device::cuda()}), host;
  const auto on_gpu = std::make_shared<Losses>(), on_host = std::make_shared<Losses>();
  gpu.trainer().add(on_gpu);
  host.trainer().add(on_host);
  EXPECT_EQ(gpu.fit(), Ending::finished);
  host.fit();
  ASSERT_EQ(on_gpu->all.size(), on_host->all.size());
  for (size_t i = 0; i < on_host->all.size(); ++i)
    EXPECT_NEAR(on_gpu->all[i], on_host->all[i], 1e-5 * on_host->all[i]) << "step " << i + 1;
  for (size_t i = 0; i < host.cells().size(); ++i) {
    const std::string& name = host.cells()[i].name();
    // A bias before a norm has no gradient but rounding, which Adam makes as large as any; the running mean goes along.
    if (name == "first.bias" || name == "norm.running_mean") continue;
    test::expect_close(gpu.cells()[i].storage(), host.cells()[i].storage(),
                       {.relative = 1e-4, .absolute = 1e-5}, name);
  }
  EXPECT_THAT(gpu.trainer().step().program().machine(), HasSubstr("cuda"));
}

/// A checkpoint made on either goes on there to the same bits, and on the other.
TEST_F(TrainOnGpu, ItGoesOnFromCheckpoints) {
  SmallTraining whole({.device = Device::cuda()});
  whole.fit();
  SmallTraining cut({.steps = 7, .device = Device::cuda(), .checkpoint = folder_ / "c"});
  cut.fit();
  std::filesystem::copy_file(folder_ / "c", folder_ / "copy");
  SmallTraining rest({.device = Device::cuda(), .checkpoint = folder_ / "c"});
  rest.fit();
  EXPECT_TRUE(rest.bits() == whole.bits());
  SmallTraining elsewhere({.checkpoint = folder_ / "copy"});
  EXPECT_EQ(elsewhere.fit(), Ending::finished);
}

TEST_F(TrainOnGpu, LossScalesOfF16FindTheirSize) {
  SmallTraining run({.precision = "f16", .device = Device::cuda()});
  EXPECT_EQ(run.fit(), Ending::finished);
}

class ToolOnGpu : public TrainOnGpu {
 protected:
  std::string file(const std::string& name) const { return (folder_ / name).string(); }
  std::string train(const std::string& more) const {
    return "train --net mlp --data fake --fake-size 48 --batch 16 --seed 3 " + more;
  }
  /// Each line's last number.
  static std::vector<double> losses(const std::filesystem::path& log) {
    std::vector<double> all;
    std::istringstream lines(read_file(log));
    for (std::string line; std::getline(lines, line);)
      if (line[0] >= '0' && line[0] <= '9') all.push_back(std::stod(line.substr(line.rfind(',') + 1)));
    return all;
  }
};

TEST_F(ToolOnGpu, TrainsAndRunsAsOnTheHost) {
  for (const std::string device : {"cpu", "cuda"}) {
    const test::ToolCall c = call_tool(train("--epochs 2 --device " + device + " --log " +
                                             file(device + ".csv") + " -o " + file(device + ".onnx")),
                                       on_sim_gpu());
    ASSERT_EQ(c.code, 0) << c.err;
  }
  const std::vector<double> host = losses(folder_ / "cpu.csv"), gpu = losses(folder_ / "cuda.csv");
  ASSERT_EQ(host.size(), 6u);
  ASSERT_EQ(gpu.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(gpu[i], host[i], 1e-5 * host[i]) << "step " << i + 1;

  format::save_npy(folder_ / "x.npy", Tensor::randn({3, 784}, 4).array());
  for (const std::string device : {"cpu", "cuda:0"}) {
    const test::ToolCall c = call_tool("run " + file("cuda.onnx") + " --input x=" + file("x.npy") +
                                           " --output " + file(device) + " --device " + device,
                                       on_sim_gpu());
    ASSERT_EQ(c.code, 0) << c.err;
  }
  test::expect_close(format::load_npy(folder_ / "cuda:0/y.npy"), format::load_npy(folder_ / "cpu/y.npy"),
                     {.relative = 1e-4, .absolute = 1e-5});
}

TEST_F(ToolOnGpu, MeasuresAndPlans) {
  const test::ToolCall bench =
      call_tool("bench --net linear --device cuda --seconds 0.01 --json", on_sim_gpu());
  EXPECT_EQ(bench.code, 0) << bench.err;
  const test::ToolCall profile =
      call_tool("profile --net linear --train --device cuda --runs 1", on_sim_gpu());
  EXPECT_EQ(profile.code, 0) << profile.err;
  EXPECT_THAT(profile.out, HasSubstr("simulated sm_90")) << profile.out;
  ASSERT_EQ(call_tool(train("-o " + file("m.onnx"))).code, 0);
  EXPECT_THAT(call_tool("inspect " + file("m.onnx") + " --plan --device cuda", on_sim_gpu()).out,
              HasSubstr("[cublaslt]"));
}

/// What the tool says of a GPU that it cannot have: never does it take the processor instead.
TEST_F(ToolOnGpu, NoGpu) {
  const auto fails = [&](const std::string& before, const std::string& device, const auto& matcher) {
    const test::ToolCall c = call_tool(train("--device " + device), before);
    EXPECT_NE(c.code, 0) << before;
    EXPECT_EQ(c.out, "") << before;
    EXPECT_THAT(c.err, matcher) << before;
  };
  const std::string fakes = ESPALIER_FAKES;
  fails(on_sim_gpu("gpus=2"), "cuda:2",
        AllOf(HasSubstr("device cuda:2: there is no GPU of this number"), HasSubstr("cuda:0, cuda:1, cpu")));
  fails(on_sim_gpu(), "gpu", HasSubstr("cuda, cuda:N"));
  fails("export ESPALIER_CUDA_PATH=/no/such/folder;", "cuda",
        AllOf(HasSubstr("there is no GPU: no driver: libcuda.so.1 is not there"), HasSubstr("(the plugin)"),
              HasSubstr("/no/such/folder/libcuda.so.1 (not there)"), HasSubstr("cpu by its name")));
  fails("export ESPALIER_CUDA_PATH='" + fakes + "/driver' ESPALIER_FAKE_GPU='driver=11080';", "cuda",
        AllOf(HasSubstr("11.8"), HasSubstr("12.0")));
  fails("export ESPALIER_CUDA_PATH='" + fakes + "/driver' ESPALIER_FAKE_GPU='gpus=0';", "cuda",
        HasSubstr("the driver shows no GPU"));
  fails(on_sim_gpu("capability=75"), "cuda", AllOf(HasSubstr("sm_75"), HasSubstr("sm_80 or newer")));
  fails(on_sim_gpu("held=1"), "cuda",
        AllOf(HasSubstr("CUDA_ERROR_DEVICE_UNAVAILABLE"), HasSubstr("exclusive process")));
}

TEST_F(ToolOnGpu, APluginOfAnotherVersion) {
  std::filesystem::copy_file(ESPALIER_TOOL, folder_ / "espalier");  // by itself, without the plugin beside it
  const test::Outcome c =
      test::run_command("ESPALIER_PLUGIN_PATH='" ESPALIER_FAKES "/plugin_of_another_version' '" +
                        file("espalier") + "' " + train("--device cuda"));
  EXPECT_EQ(c.code, call_tool(train("--device cuda:7"), on_sim_gpu()).code);
  EXPECT_THAT(c.output, AllOf(HasSubstr("a plugin of another version: found 0.0.9, needs"),
                              HasSubstr("plugin_of_another_version/libespalier_cuda.so (")));
}

TEST_F(ToolOnGpu, TooLittleMemoryIsRefusedBeforeTheRun) {
  const test::ToolCall c = call_tool(train("--device cuda"), on_sim_gpu("memory=50000000;taken=40000000"));
  EXPECT_NE(c.code, 0);
  EXPECT_THAT(c.err, AllOf(HasSubstr("needs more memory than is free"), HasSubstr("arena"),
                           HasSubstr("parameters 7"), HasSubstr("at most 9.5 MiB, which are free now")));
}

/// What the cache on disk holds is wrong in every way: the same results, and whole entries afterwards.
TEST_F(ToolOnGpu, ADamagedCacheIsMadeAnew) {
  const std::string before = "export ESPALIER_CACHE_DIR='" + file("cache") + "';" + on_sim_gpu("plans=1"),
                    bench = "bench --net lenet --batch 4 --device cuda --seconds 0.01";
  ASSERT_EQ(call_tool(bench, before).code, 0);
  std::vector<std::filesystem::path> entries;
  for (const auto& e : std::filesystem::directory_iterator(folder_ / "cache"))
    if (read_file(e.path()).find("of cudnn") != std::string::npos) entries.push_back(e.path());
  ASSERT_GE(entries.size(), 2u);
  std::vector<size_t> sizes;
  for (size_t i = 0; i < entries.size(); ++i) {
    std::string text = read_file(entries[i]);
    sizes.push_back(text.size());
    if (i % 3 == 0) text.clear();
    else if (i % 3 == 1) text.resize(text.size() / 2);
    else text[text.size() - 10] ^= 1;
    write_file(entries[i], text);
  }
  const test::ToolCall c = call_tool(bench, before);
  EXPECT_EQ(c.code, 0) << c.err;
  for (size_t i = 0; i < entries.size(); ++i) EXPECT_EQ(read_file(entries[i]).size(), sizes[i]) << entries[i];
}

/// An error that lasts, at calls all over a training (the last tenth and more give back what there was): it ends with the driver's words, and the last checkpoint stays.
TEST_F(ToolOnGpu, ADeviceThatIsLost) {
  const std::string arguments = train("--epochs 3 --device cuda --checkpoint " + file("c"));
  ASSERT_EQ(call_tool(arguments, on_sim_gpu("calls_to=" + file("calls"))).code, 0);
  const int64_t calls = std::stoll(read_file(file("calls")));
  for (const int64_t part : {1, 3, 5, 7, 8}) {
    std::filesystem::remove(folder_ / "c");
    const test::ToolCall c =
        call_tool(arguments, on_sim_gpu("fail=" + std::to_string(calls * part / 10) + ":719"));
    EXPECT_GT(c.code, 0) << part;
    EXPECT_LT(c.code, 128) << part;
    EXPECT_THAT(c.err, HasSubstr("(719)")) << part;  // of the driver, or of a library
    if (std::filesystem::exists(folder_ / "c")) EXPECT_EQ(call_tool(arguments, on_sim_gpu()).code, 0) << part;
  }
}

}  // namespace
}  // namespace espalier::train
