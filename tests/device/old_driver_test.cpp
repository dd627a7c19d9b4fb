// The oldest driver that is used, and drivers that lack a function: a program and a training step run with the same bits where it is not
// needed, and an error names it, and the driver's version, where it is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "op/activation.h"
#include "op/elementwise.h"
#include "run/open_device.h"
#include "support/device_run.h"
#include "support/environment.h"
#include "support/errors.h"
#include "support/training_steps.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/driver/open_device.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier::target::cuda::sim {
namespace {

using testing::AllOf;
using testing::HasSubstr;

struct EntryName {
  std::string name;
  bool optional;
};
std::vector<EntryName> entries() {
  std::vector<EntryName> out;
  const auto add = [&](const auto& e) { out.push_back({e.name, e.need == driver::Need::optional}); };
  std::apply([&](const auto&... e) { (add(e), ...); }, driver::cu_entries);
  return out;
}

SimOptions without(const std::string& name) {
  SimOptions options;
  options.driver_version = 12000;
  if (!name.empty()) options.lacks = {name};
  return options;
}

bool is_of_graphs(const std::string& name) {
  return name.starts_with("cuGraph") || name.ends_with("Capture");
}

struct Results {
  test::Trained trained;
  std::vector<float> softmax;
  std::string why_no_graphs;
  int64_t replays = 0;
};

/// Three steps of an MLP's training, and a small program three times, on such a driver.
Results results_on(const SimOptions& options, const test::Training& training) {
  const std::shared_ptr<Device> device = make_sim_device(options);
  Results out;
  run::DeviceExecutor step(
      std::make_shared<run::DeviceProgram>(test::compiled_step(training, *cuda_target(device)), device));
  out.trained = test::train_on_device(training, step, 3);
  out.why_no_graphs = step.why_no_graphs();
  out.replays = step.replays();

  const ir::Value x = ir::new_input("x", {ir::Dtype::f32, {4, 33}});
  const ir::Graph g{.name = "g", .inputs = {x}, .outputs = {{"y", op::softmax(x, 1)}}};
  run::DeviceExecutor small(std::make_shared<run::DeviceProgram>(
      run::Program::compile(g, {.target = cuda_target(device).get()}), device));
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 4 * 33; ++i) static_cast<float*>(small.input(0))[i] = static_cast<float>(i % 7 + r);
    const auto* const y = static_cast<const float*>(small.output(small.run(), 0));
    out.softmax.insert(out.softmax.end(), y, y + 4 * 33);
  }
  return out;
}

TEST(OldDriver, WithoutWhatIsOptionalTheBitsAreTheSame) {
  const test::Training training = test::mlp_training();
  const Results want = results_on(without(""), training);
  EXPECT_EQ(want.why_no_graphs, "");
  EXPECT_EQ(want.replays, 2);
  int seen = 0;
  for (const auto& [name, optional] : entries()) {
    if (!optional) continue;
    ++seen;
    SCOPED_TRACE("without " + name);
    const Results got = results_on(without(name), training);
    EXPECT_EQ(got.trained.losses, want.trained.losses);
    EXPECT_TRUE(got.trained.states == want.trained.states);
    EXPECT_EQ(got.softmax, want.softmax);
    if (is_of_graphs(name)) {
      EXPECT_EQ(got.why_no_graphs, "the driver for CUDA 12.0 lacks " + name);
      EXPECT_EQ(got.replays, 0);
    } else {
      EXPECT_EQ(got.why_no_graphs, "");
      EXPECT_EQ(got.replays, 2);
    }
  }
  EXPECT_EQ(seen, 12);
}

TEST(OldDriver, WhatIsNeededIsNamed) {
  int seen = 0;
  for (const auto& [name, optional] : entries()) {
    if (optional) continue;
    ++seen;
    EXPECT_THAT(test::error_of([&] { make_sim_device(without(name)); }),
                AllOf(HasSubstr("device cuda:0: there is no driver"), HasSubstr("driver for CUDA 12.0"),
                      HasSubstr("it lacks " + name)));
  }
  EXPECT_GT(seen, 25);
}

TEST(OldDriver, WhatIsAskedForAndLackingIsNamed) {
  const auto lacks = [](const std::string& name) {
    return AllOf(HasSubstr("device cuda:0 (simulated sm_90 number 0), " + name),
                 HasSubstr("the driver lacks this function"), HasSubstr("CUDA 12.0"));
  };
  {
    const auto device = make_sim_device(without("cuStreamGetCtx"));
    int anything = 0;
    EXPECT_THAT(test::error_of([&] { device->adopt_stream(&anything); }), lacks("cuStreamGetCtx"));
  }
  {
    const auto device = make_sim_device(without("cuEventQuery"));
    test::DeviceThings things(*device);
    EXPECT_THAT(test::error_of([&] { device->finished(things.event()); }), lacks("cuEventQuery"));
  }
  const auto device = make_sim_device(without("cuEventElapsedTime"));
  test::DeviceThings things(*device);
  const Event from = things.event(true), to = things.event(true);
  EXPECT_THAT(test::error_of([&] { device->elapsed_ms(from, to); }), lacks("cuEventElapsedTime"));
}

TEST(OldDriver, OneThatIsTooOldIsRefusedWithBothVersions) {
  const auto both = AllOf(HasSubstr("device cuda:0: there is no driver"),
                          HasSubstr("driver too old, found 11.8, needs 12.0"));
  SimOptions old;
  old.driver_version = 11080;
  EXPECT_THAT(test::error_of([&] { make_sim_device(old); }), both);
  const test::Variable fake("ESPALIER_FAKE_GPU", "driver=11080");
  driver::Libraries libraries({.driver = {std::filesystem::path(ESPALIER_FAKES) / "driver"}, .toolkits = {}});
  EXPECT_THAT(test::error_of([&] { driver::open_device(libraries, 0, {}); }), both);
}

}  // namespace
}  // namespace espalier::target::cuda::sim
