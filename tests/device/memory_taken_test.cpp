// Another process takes memory between the look at what is free and an allocation: an error with the plan's figures, nothing leaks, and the
// next attempt works when it has given it back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "op/elementwise.h"
#include "run/runner.h"
#include "support/errors.h"
#include "support/sim_plugin.h"
#include "support/tool.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"
#include "tensor/tensor.h"

namespace espalier {
namespace {

using target::OutOfMemory;
using target::cuda::sim::LiveCounts;
using target::cuda::sim::make_sim_device;
using target::cuda::sim::SimDriver;
using target::cuda::sim::SimOptions;
using target::cuda::sim::Taken;
using testing::AllOf;
using testing::HasSubstr;

constexpr int64_t mib = 1 << 20;
const Taken everything{.device = 64 * mib}, all_pinned{.pinned = int64_t{1} << 40};

/// state + x + table, which is the state's next value: state, input and output of n elements, and a constant.
ir::Graph graph_of(int64_t n) {
  const ir::Value x = ir::new_input("x", {Dtype::f32, {n}}), s = ir::new_input("s", {Dtype::f32, {n}});
  Array table(Dtype::f32, {n});
  for (int64_t i = 0; i < n; ++i) table.set(i, static_cast<double>(i % 2));
  const ir::Value next = op::add(op::add(s, x), ir::constant(table));
  ir::Graph g{.name = "g", .inputs = {x, s}, .outputs = {{"y", op::mul(next, 2.0)}, {"next", next}}};
  g.state = {{"s", "next"}};
  return g;
}

struct Gpu {
  explicit Gpu(const SimOptions& options = {.memory_bytes = 64 * mib})
      : driver(std::make_shared<SimDriver>(options)),
        open(std::make_shared<run::OpenDevice>("cuda:0", make_sim_device(driver))) {}
  run::Location place() const { return {&open->target(), open}; }
  std::shared_ptr<const run::Program> program(int64_t n) const {
    return run::Program::compile(graph_of(n), {.target = &open->target()});
  }
  std::shared_ptr<SimDriver> driver;
  std::shared_ptr<run::OpenDevice> open;
};

float step(run::Runner& r, float x) {
  const int64_t n = ir::static_dims(r.program().inputs()[0].type.dims)[0];
  std::fill_n(static_cast<float*>(r.input(0)), n, x);
  r.run();
  return static_cast<const float*>(r.output(0))[n - 1];
}

/// What `attempt` says when the memory goes away at each of its calls in turn, until there is one at which it does not matter. After every
/// failure there is as much as before, and it works when the memory is there again.
template <class Attempt, class Again>
std::vector<std::string> fail_at_every_call(SimDriver& driver, const Taken& taken, const Attempt& attempt,
                                            const Again& again) {
  std::vector<std::string> said;
  const LiveCounts before = driver.live();
  for (int64_t call = 1; call < 1000; ++call) {
    const int64_t calls = driver.calls();
    driver.take(taken, call);
    std::string error;
    try {
      attempt();
    } catch (const OutOfMemory& e) {
      error = e.what();
    } catch (const UserError& e) {  // refused before anything was allocated
      EXPECT_THAT(e.what(), HasSubstr("needs more memory than is free"));
      error = "refused";
    }
    driver.take({});
    EXPECT_EQ(driver.live(), before) << "call " << call;
    if (error.empty() && driver.calls() - calls < call) return said;
    if (error.empty()) continue;
    if (error != "refused") said.push_back(error);
    again();
  }
  ADD_FAILURE() << "it never ends";
  return said;
}

TEST(MemoryTaken, WhileAnExecutorAllocates) {
  const Gpu gpu;
  const auto loaded = std::make_shared<run::DeviceProgram>(gpu.program(1 << 16), gpu.open->shared());
  const auto attempt = [&] { run::DeviceExecutor e(loaded, {.slots = 2}); };
  const std::vector<std::string> said = fail_at_every_call(*gpu.driver, everything, attempt, attempt);
  ASSERT_FALSE(said.empty());
  for (const std::string& s : said)
    EXPECT_THAT(s,
                AllOf(HasSubstr("program g on simulated sm_90"), HasSubstr("though there was enough before"),
                      HasSubstr("cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (2)"), HasSubstr("1.2 MiB: arena "),
                      HasSubstr("state 256.0 KiB, 2 slots of 512.0 KiB"),
                      HasSubstr("at most 0 B, which are free now")));
}

TEST(MemoryTaken, PinnedMemoryOfTheHost) {
  const Gpu gpu;
  const auto loaded = std::make_shared<run::DeviceProgram>(gpu.program(1 << 16), gpu.open->shared());
  const auto attempt = [&] { run::DeviceExecutor e(loaded, {.slots = 2}); };
  const std::vector<std::string> said = fail_at_every_call(*gpu.driver, all_pinned, attempt, attempt);
  ASSERT_FALSE(said.empty());
  for (const std::string& s : said)
    EXPECT_THAT(s, AllOf(HasSubstr("cuMemAllocHost: CUDA_ERROR_OUT_OF_MEMORY (2)"),
                         HasSubstr("1.0 MiB of the host pinned")));
}

/// Constants, the executor's memory and parameters, one after the other.
TEST(MemoryTaken, WhileAProgramIsMadeReady) {
  const Gpu gpu;
  const auto program = gpu.program(1 << 16);
  const auto make = [&] {
    const auto cell = std::make_shared<run::Elements>(Array(Dtype::f32, {1 << 16}));
    return run::make_runner(program, gpu.place(), {{1, cell}});
  };
  EXPECT_EQ(step(*make(), 3), 8);  // what a device keeps for copies is there
  const std::vector<std::string> said = fail_at_every_call(
      *gpu.driver, everything, [&] { (void)make(); }, [&] { EXPECT_EQ(step(*make(), 3), 8); });
  ASSERT_FALSE(said.empty());
  int constants = 0, parameters = 0;
  for (const std::string& s : said) {
    EXPECT_THAT(s, AllOf(HasSubstr("program g on simulated sm_90"), HasSubstr("2 slots of 512.0 KiB"),
                         HasSubstr("which are free now")));
    constants += s.find("constants 256.0 KiB") != std::string::npos;
    parameters += s.find("parameters 256.0 KiB") != std::string::npos;
  }
  EXPECT_GT(constants, 0);
  EXPECT_GT(parameters, constants / 2);
}

/// A program is at work when a second, larger one finds no memory; the first goes on to the same values.
TEST(MemoryTaken, WhileAnotherProgramRuns) {
  const Gpu gpu;
  const auto cell = std::make_shared<run::Elements>(Array(Dtype::f32, {1 << 12}));
  const auto first = run::make_runner(gpu.program(1 << 12), gpu.place(), {{1, cell}});
  const auto larger = gpu.program(1 << 18);
  float sum = 0;
  const auto go_on = [&] {
    sum += 2;
    EXPECT_EQ(step(*first, 1), 2 * sum);
  };
  for (int i = 0; i < 3; ++i) go_on();
  const auto attempt = [&] {
    const run::Ticket under_way = first->submit();
    sum += 2;
    std::unique_ptr<run::Runner> second;
    std::exception_ptr failed;
    try {
      const auto other = std::make_shared<run::Elements>(Array(Dtype::f32, {1 << 18}));
      second = run::make_runner(larger, gpu.place(), {{1, other}});
      EXPECT_EQ(step(*second, 5), 12);
    } catch (...) {
      failed = std::current_exception();
    }
    first->wait(under_way);
    EXPECT_EQ(static_cast<const float*>(first->output(0))[7], 2 * sum);
    if (failed) std::rethrow_exception(failed);
  };
  std::fill_n(static_cast<float*>(first->input(0)), 1 << 12, 1.0f);
  const std::vector<std::string> said = fail_at_every_call(*gpu.driver, everything, attempt, go_on);
  EXPECT_FALSE(said.empty());
  go_on();
  EXPECT_EQ(cell->read().at(5), sum);
}

TEST(MemoryTaken, TheToolSaysSo) {
  const test::TemporaryFolder folder;
  const std::string bench = "bench --net linear --batch 4 --device cuda --seconds 0.01",
                    calls = (folder / "calls").string();
  ASSERT_EQ(test::call_tool(bench, test::on_sim_gpu("calls_to=" + calls)).code, 0);
  bool ran_out = false;
  // From somewhere in the middle on: a call at which the device's memory is allocated.
  for (int64_t call = 20; call < std::stoll(read_file(calls)) && !ran_out; ++call) {
    const test::ToolCall c = test::call_tool(
        bench, test::on_sim_gpu("take=" + std::to_string(call) + ":" + std::to_string(int64_t{1} << 30)));
    if (c.err.find("though there was enough before") == std::string::npos) continue;
    ran_out = true;
    EXPECT_EQ(c.code, 3);
    EXPECT_THAT(c.err, AllOf(HasSubstr("slots of"), HasSubstr("at most 0 B, which are free now")));
  }
  EXPECT_TRUE(ran_out);
}

}  // namespace
}  // namespace espalier
