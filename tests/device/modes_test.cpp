// Whole networks trained on a simulated GPU in every mode that finds faults: threads in three orders, other streams late and early, red
// zones, every buffer an allocation, buffers at odd places. Results and scratch are poisoned; the bits are those of the plain run.
#include <gtest/gtest.h>

#include "run/device_executor.h"
#include "support/training_steps.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier {
namespace {

using target::cuda::sim::Order;
using target::cuda::sim::Others;
using target::cuda::sim::SimOptions;
using test::Training;

struct Mode {
  const char* name;
  SimOptions device{};
  run::CompileOptions options{};
};

std::vector<Mode> modes() {
  std::vector<Mode> all{{.name = "plain"},
                        {.name = "threads from the last on", .device = {.order = Order::reverse}},
                        {.name = "threads in any order", .device = {.order = Order::shuffled, .seed = 5}},
                        {.name = "others first", .device = {.others = Others::first}},
                        {.name = "red zones"},
                        {.name = "apart"},
                        {.name = "at odd places"}};
  all[4].options.red_zone = 64;
  all[5].options.apart = all[6].options.apart = true;
  all[6].options.offsets = 11;
  return all;
}

void expect_equal_bits(const Training& t, int steps) {
  test::Trained first;
  for (const Mode& mode : modes()) {
    SCOPED_TRACE(mode.name);
    const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device(mode.device);
    const auto target = target::cuda::cuda_target(device);  // the workspaces that its libraries take, no more
    const auto program = test::compiled_step(t, *target, pass::Precision::f32, mode.options);
    run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(program, device));
    const test::Trained got = test::train_on_device(t, e, steps);
    e.check_red_zones();
    if (first.losses.empty()) first = got;
    EXPECT_EQ(got.losses, first.losses);
    for (const auto& [name, state] : first.states) EXPECT_EQ(got.states.at(name), state) << name;
    if (testing::Test::HasFailure()) return;
  }
}

TEST(DeviceModes, AnMlpsStepsAreTheSameBits) { expect_equal_bits(test::mlp_training(), 2); }
TEST(DeviceModes, AResNetsStepIsTheSameBitsHeavy) { expect_equal_bits(test::resnet_training(), 1); }
TEST(DeviceModes, AUNetsStepIsTheSameBitsHeavy) { expect_equal_bits(test::unet_training(), 1); }

}  // namespace
}  // namespace espalier
