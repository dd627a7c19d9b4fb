// Ranges for a tool that attaches through NVTX: tests/device/fakes/nvtx_tool.cpp is one.
#include "target/cuda/driver/nvtx.h"

#include <gmock/gmock.h>

#include "op/elementwise.h"
#include "op/reduction.h"
#include "run/device_executor.h"
#include "support/environment.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier {
namespace {

using ir::Dtype;
using ir::Value;
using target::cuda::driver::Nvtx;
using target::cuda::sim::make_sim_device;
using testing::HasSubstr;

const std::filesystem::path tool = std::filesystem::path(ESPALIER_FAKES) / "nvtx/libfake_tool.so";

/// What the tool has noted so far.
std::string noted() {
  const FoundLibrary found = find_library({.names = {tool.filename()}, .folders = {tool.parent_path()}});
  const char* (*get)() = nullptr;
  return found.library && found.library->find("fake_nvtx_noted", get) ? get() : "";
}

std::shared_ptr<const run::DeviceProgram> two_steps(std::shared_ptr<target::Device> device) {
  const Value x = ir::new_input("x", {Dtype::f32, {8, 16}});
  const Value half = op::reduce_sum(op::mul(x, 0.5), {1});
  const ir::Graph g{.name = "watched",
                    .level = ir::Level::tensor,
                    .inputs = {x},
                    .outputs = {{"y", op::exp(half)}, {"z", op::reduce_max(half, {0})}},
                    .state = {},
                    .info = {}};
  run::CompileOptions options;
  options.target = &target::cuda::cuda_target(90);
  return std::make_shared<run::DeviceProgram>(run::Program::compile_fused(g, options), std::move(device));
}

TEST(Nvtx, ToolHearsOfEveryRunAndStep) {
  const Nvtx nvtx(tool);
  ASSERT_TRUE(nvtx.attached()) << nvtx.problem();
  const auto program = two_steps(make_sim_device({.nvtx = &nvtx}));
  const std::string before = noted();
  run::DeviceExecutor e(program, {.slots = 1});
  std::string steps;
  for (size_t s = 0; s < program->program().steps().size(); ++s)
    steps += "(step " + std::to_string(s) + " " + name_of(program->program().steps()[s]) + ")";
  ASSERT_GE(program->program().steps().size(), 2u);
  auto heard = [&, at = before.size()]() mutable {
    const std::string all = noted();
    return all.substr(std::exchange(at, all.size()));
  };
  e.run();
  EXPECT_EQ(heard(), "(watched run 0" + steps + ")");
  e.run();
  EXPECT_EQ(heard(), "(watched run 1" + steps + ")") << "captured";
  e.run();
  EXPECT_EQ(heard(), "(watched run 2)") << "a graph is one launch";
}

TEST(Nvtx, ARangeEndsWhereARunFails) {
  const Nvtx nvtx(tool);
  const auto driver =
      std::make_shared<target::cuda::sim::SimDriver>(target::cuda::sim::SimOptions{.nvtx = &nvtx});
  run::DeviceExecutor e(two_steps(make_sim_device(driver)));
  const size_t before = noted().size();
  driver->fail({.call = 1, .error = target::cuda::driver::cu_error_out_of_memory});
  EXPECT_THROW(e.run(), target::DeviceError);
  const std::string heard = noted().substr(before);
  EXPECT_EQ(std::count(heard.begin(), heard.end(), '('), std::count(heard.begin(), heard.end(), ')'))
      << heard;
  EXPECT_THAT(heard, HasSubstr("watched run 0"));
}

TEST(Nvtx, NothingIsSaidWhereNoToolIs) {
  const size_t before = noted().size();
  const Nvtx none("");
  EXPECT_FALSE(none.attached());
  EXPECT_EQ(none.problem(), "");
  run::DeviceExecutor e(two_steps(make_sim_device({.nvtx = &none})));
  e.run();
  EXPECT_EQ(noted().size(), before);
}

TEST(Nvtx, AToolThatDoesNotAttachSaysWhy) {
  EXPECT_THAT(Nvtx("/nowhere/libtool.so").problem(), HasSubstr("libtool.so"));
  const Nvtx no_tool(std::filesystem::path(ESPALIER_FAKES) / "no_plugin/libespalier_cuda.so");
  EXPECT_FALSE(no_tool.attached());
  EXPECT_THAT(no_tool.problem(), HasSubstr("InitializeInjectionNvtx2"));
  const test::Variable refuses("FAKE_NVTX_REFUSES", "1");
  const Nvtx refused(tool);
  EXPECT_FALSE(refused.attached());
  EXPECT_EQ(refused.problem(), "it does not attach");
}

}  // namespace
}  // namespace espalier
