// The listing of devices as programs see it, each in a process of its own: what is loaded once stays loaded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/environment.h"
#include "support/sim_plugin.h"
#include "tensor/compile.h"
#include "tensor/devices.h"

namespace espalier {
namespace {

using testing::HasSubstr;

/// Print every device, as a program that ends: run in a child of this process.
void list(const std::string& settings, const std::string& cuda_path) {
  ::setenv("ESPALIER_FAKE_GPU", settings.c_str(), 1);
  ::setenv("ESPALIER_CUDA_PATH", cuda_path.c_str(), 1);
  for (const DeviceDescription& d : devices())
    std::fprintf(stderr, "%s|%s|%d|%s\n", d.device.name().c_str(), d.what.c_str(), d.gpu.has_value(),
                 std::string(ir::dtype_name(d.fastest)).c_str());
  std::fprintf(stderr, "why: %s\n", why_no_gpu().c_str());
  std::_Exit(0);
}

const std::string fakes = ESPALIER_FAKES;

class DeviceListing : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(DeviceListing, TargetsComeFirst) {
  EXPECT_EXIT(list("gpus=0", fakes + "/driver:off"), testing::ExitedWithCode(0),
              "cpu.*\n.*reference.*\n.*null[^\n]*\nwhy: the driver shows no GPU");
}

TEST_F(DeviceListing, GpusFollow) {
  EXPECT_EXIT(list("gpus=2", fakes + "/driver:off"), testing::ExitedWithCode(0),
              "cuda:0.Fake H200 number 0, capability 9.0, 132 multiprocessors, 139.7 GiB .138.8 GiB "
              "free..1.bf16\ncuda:1.Fake H200 number 1, .*\nwhy: \n");
}

TEST_F(DeviceListing, NothingThere) {
  EXPECT_EXIT(list("", "off"), testing::ExitedWithCode(0),
              "null[^\n]*\nwhy: no driver: nothing is searched: ESPALIER_CUDA_PATH says off\n");
}

TEST(DeviceListingHere, EveryOneCompiles) {
  ASSERT_TRUE(test::use_sim_gpu());
  for (const DeviceDescription& d : devices()) {
    CompileOptions options;
    options.device = d.device;
    Compiled twice =
        compile([](const std::vector<Tensor>& in) { return std::vector{in[0] + in[0]}; }, options);
    const Array sum = twice({Tensor::ones({2})})[0].array();
    if (d.device.name() != "null") EXPECT_EQ(sum, Array::of<float>({2}, {2, 2})) << d.device.name();
  }
}

}  // namespace
}  // namespace espalier
