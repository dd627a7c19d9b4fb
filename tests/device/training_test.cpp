// Three steps of training of whole networks, planned for a GPU and run by the simulator's kernels, beside the CPU: the same losses and
// the same parameters, but for the order of sums.
#include <gtest/gtest.h>

#include "run/device_executor.h"
#include "support/training_steps.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier {
namespace {

using target::cuda::sim::SimOptions;
using test::Training;

/// The step with nothing that rounds otherwise than the graph says (CompileOptions::exact), and as it is compiled where nothing is asked for.
enum class Kernels : uint8_t { exact, any };

/// Losses within 1e-5, parameters within 1e-4 of the CPU's, whose kernels are exact; every step but the first launched as one.
void expect_equal_training(const Training& t, const SimOptions& options = {},
                           Kernels kernels = Kernels::exact) {
  const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device(options);
  const auto planner = target::cuda::cuda_target(device);
  const auto program = std::make_shared<run::DeviceProgram>(
      kernels == Kernels::exact ? test::compiled_step(t, *planner) : test::default_step(t, *planner), device);
  if (!options.lt_missing.empty())
    for (const target::CallRecord& call : program->calls())
      EXPECT_TRUE(!std::holds_alternative<target::GemmCall>(call.work) &&
                  !std::holds_alternative<target::ConvCall>(call.work))
          << target::text(call);
  run::DeviceExecutor e(program);
  const test::Trained want = test::train_on_cpu(t, 3), got = test::train_on_device(t, e, 3);
  EXPECT_EQ(e.why_no_graphs() + e.failed_capture(), "");
  EXPECT_EQ(e.replays(), 2);
  EXPECT_EQ(got.states.size(), want.states.size());
  EXPECT_EQ(test::difference(t, got, want, 1e-5, 1e-4), "");
}

TEST(DeviceTraining, AnMlpsThreeStepsAreTheCpus) { expect_equal_training(test::mlp_training()); }
TEST(DeviceTraining, AResNetsThreeStepsAreTheCpusHeavy) { expect_equal_training(test::resnet_training()); }
TEST(DeviceTraining, AUNetsThreeStepsAreTheCpusHeavy) { expect_equal_training(test::unet_training()); }

TEST(DeviceTraining, ByAnyKernelsAnMlpsThreeStepsAreTheCpus) {
  expect_equal_training(test::mlp_training(), {}, Kernels::any);
}
TEST(DeviceTraining, ByAnyKernelsAResNetsThreeStepsAreTheCpusHeavy) {
  expect_equal_training(test::resnet_training(), {}, Kernels::any);
}
TEST(DeviceTraining, ByAnyKernelsAUNetsThreeStepsAreTheCpusHeavy) {
  expect_equal_training(test::unet_training(), {}, Kernels::any);
}

/// Which sums in f64: a narrower bound than the CPU's, whose own roundings are the larger part of what it differs by.
TEST(DeviceTraining, TwoStepsAreTheReferencesHeavy) {
  for (const Training& t : {test::resnet_training(), test::unet_training()}) {
    const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device();
    run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(
        test::default_step(t, *target::cuda::cuda_target(device)), device));
    EXPECT_EQ(test::difference(t, test::train_on_device(t, e, 2), test::train_by_reference(t, 2), 1e-6, 2e-5),
              "");
  }
}

/// By kernels of our own alone.
SimOptions without_libraries() {
  SimOptions options;
  options.lt_missing = options.dnn_missing = "it is not installed";
  return options;
}

TEST(DeviceTraining, WithoutLibrariesAnMlpsThreeStepsAreTheCpus) {
  expect_equal_training(test::mlp_training(), without_libraries());
}
TEST(DeviceTraining, WithoutLibrariesAResNetsThreeStepsAreTheCpusHeavy) {
  expect_equal_training(test::resnet_training(), without_libraries());
}
TEST(DeviceTraining, WithoutLibrariesAUNetsThreeStepsAreTheCpusHeavy) {
  expect_equal_training(test::unet_training(), without_libraries());
}

}  // namespace
}  // namespace espalier
