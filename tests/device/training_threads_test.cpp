// Small networks trained on a simulated GPU with two steps under way, beside the CPU: what the sanitizers see of whole models. To the thread
// sanitizer the streams of copies and of launches are each someone of their own; the simulated libraries' own books, which are the host's, it
// takes for races, so what it sees is by kernels of our own alone.
#include <gtest/gtest.h>

#include "run/device_executor.h"
#include "support/training_steps.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier {
namespace {

using target::cuda::sim::Others;
using target::cuda::sim::SimOptions;

enum class Kernels : uint8_t { libraries, own };

/// The first is launched one by one, the next, in the other slot, as one; by the libraries' kernels, which are quick, both slots' are.
void expect_equal_training(const test::Training& t, Kernels kernels) {
  const int steps = kernels == Kernels::own ? 2 : 5;
  const test::Trained want = test::train_on_cpu(t, steps);
  for (const Others others : {Others::late, Others::first}) {
    if (kernels == Kernels::own && others == Others::first)
      break;  // to the thread sanitizer all orders are one
    SCOPED_TRACE(others == Others::late ? "other streams late" : "other streams first");
    SimOptions gpu{.others = others};
    if (kernels == Kernels::own) gpu.lt_missing = gpu.dnn_missing = "it is not installed";
    const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device(gpu);
    run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(
        test::default_step(t, *target::cuda::cuda_target(device)), device));
    const test::Trained got = test::train_on_device(t, e, steps, 2);
    EXPECT_EQ(e.replays(), steps - 1) << e.failed_capture();
    EXPECT_EQ(test::difference(t, got, want, 1e-5, 1e-4), "");
  }
}

TEST(TrainingUnderWay, OfAnMlpIsTheCpus) { expect_equal_training(test::mlp_training(), Kernels::libraries); }
TEST(TrainingUnderWay, OfASmallResNetIsTheCpus) {
  expect_equal_training(test::small_resnet_training(), Kernels::libraries);
}
TEST(TrainingUnderWay, OfASmallUNetIsTheCpus) {
  expect_equal_training(test::small_unet_training(), Kernels::libraries);
}

TEST(TrainingUnderWay, WithoutLibrariesOfAnMlpIsTheCpusThreads) {
  expect_equal_training(test::mlp_training(), Kernels::own);
}
TEST(TrainingUnderWay, WithoutLibrariesOfASmallResNetIsTheCpusThreads) {
  expect_equal_training(test::small_resnet_training(), Kernels::own);
}
TEST(TrainingUnderWay, WithoutLibrariesOfASmallUNetIsTheCpusThreads) {
  expect_equal_training(test::small_unet_training(), Kernels::own);
}

TEST(TrainingUnderWay, AWrongElementOfALibrarysResultIsSeen) {
  const test::Training t = test::small_resnet_training();
  SimOptions gpu;
  gpu.ways.wrong = 0;
  const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device(gpu);
  run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(
      test::default_step(t, *target::cuda::cuda_target(device)), device));
  EXPECT_NE(test::difference(t, test::train_on_device(t, e, 2, 2), test::train_on_cpu(t, 2), 1e-5, 1e-4), "");
}

}  // namespace
}  // namespace espalier
