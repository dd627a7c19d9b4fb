// The CUDA context of a caller's thread is its own: whatever is called, it is current afterwards as it was before.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "op/elementwise.h"
#include "run/runner.h"
#include "support/device_run.h"
#include "support/errors.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"
#include "tensor/tensor.h"

namespace espalier {
namespace {

using target::cuda::driver::CuContext;
using target::cuda::sim::make_sim_device;
using target::cuda::sim::SimDriver;
using target::cuda::sim::SimOptions;

/// The primary context of GPU 1, which a caller uses by itself.
class CallersContext {
 public:
  explicit CallersContext(const SimDriver& driver) : driver_(driver) {
    EXPECT_EQ(driver.api().Init(0), 0);
    EXPECT_EQ(driver.api().DevicePrimaryCtxRetain(&context_, 1), 0);
    EXPECT_EQ(driver.api().CtxPushCurrent(context_), 0);
  }
  ~CallersContext() {
    EXPECT_EQ(driver_.api().CtxPopCurrent(&context_), 0);
    EXPECT_EQ(driver_.api().DevicePrimaryCtxRelease(1), 0);
  }
  CallersContext(const CallersContext&) = delete;
  CallersContext& operator=(const CallersContext&) = delete;
  CuContext handle() const { return context_; }

 private:
  const SimDriver& driver_;
  CuContext context_ = nullptr;
};

/// s + x, which is the next state.
ir::Graph adding() {
  const ir::Value x = ir::new_input("x", {Dtype::f32, {ir::Dim(64)}}),
                  s = ir::new_input("s", {Dtype::f32, {ir::Dim(64)}});
  const ir::Value next = op::add(s, x);
  ir::Graph g{.name = "adding", .inputs = {x, s}, .outputs = {{"y", op::mul(next, 2.0)}, {"next", next}}};
  g.state = {{"s", "next"}};
  return g;
}

/// A parameter goes from GPU to GPU and to the host, over runs that are launched, captured and replayed; `check` looks after every call.
template <class Check>
void use_both(const std::shared_ptr<SimDriver>& driver, const Check& check) {
  const auto cell = std::make_shared<run::Elements>(Array::full(Dtype::f32, {64}, 1));
  std::vector<std::unique_ptr<run::Runner>> runners;
  for (int number : {0, 1}) {
    const auto open =
        std::make_shared<run::OpenDevice>("cuda:" + std::to_string(number), make_sim_device(driver, number));
    check("open");
    const run::Location where{&open->target(), open};
    const auto program = run::Program::compile(adding(), {.target = where.target});
    check("compile");
    runners.push_back(run::make_runner(program, where, {{1, cell}}));
    check("make_runner");
    EXPECT_GT(open->device().free_bytes(), 0);
    check("free_bytes");
  }
  for (int round = 0; round < 3; ++round)
    for (const auto& r : runners) {
      std::fill_n(static_cast<float*>(r->input(0)), 64, 1.0f);
      check("input");
      const run::Ticket ticket = r->submit();
      check("submit");
      r->wait(ticket);
      check("wait");
    }
  EXPECT_EQ(cell->read().at(3), 7);
  check("read");
  runners.clear();
  check("the end of runners");
}

TEST(Contexts, OfTheCallerStaysCurrent) {
  const auto driver = std::make_shared<SimDriver>(SimOptions{.devices = 2});
  {
    const CallersContext theirs(*driver);
    use_both(driver, [&](const char* what) { EXPECT_EQ(driver->current(), theirs.handle()) << what; });
    EXPECT_EQ(driver->current(), theirs.handle()) << "the devices are gone";
  }
  EXPECT_EQ(driver->current(), nullptr);
  EXPECT_EQ(driver->leaked(), "");
}

TEST(Contexts, AThreadWithoutOneHasNoneAfterwards) {
  const auto driver = std::make_shared<SimDriver>(SimOptions{.devices = 2});
  std::thread([&] {
    use_both(driver, [&](const char* what) { EXPECT_EQ(driver->current(), nullptr) << what; });
  }).join();
}

/// Also where a call fails, whichever it is.
TEST(Contexts, AfterAFailureItIsCurrentAsWell) {
  const auto driver = std::make_shared<SimDriver>(SimOptions{.devices = 2});
  const CallersContext theirs(*driver);
  int failures = 0;
  for (int64_t call = 1; call < 400; call += 7) {
    driver->fail({.call = call, .error = target::cuda::driver::cu_error_invalid_value});
    try {
      use_both(driver, [&](const char* what) { EXPECT_EQ(driver->current(), theirs.handle()) << what; });
    } catch (const UserError&) {  // of the device, or of a plan for one that does not tell what it is
      ++failures;
    }
    driver->fail({});
    EXPECT_EQ(driver->current(), theirs.handle()) << "call " << call;
  }
  EXPECT_GT(failures, 10);
}

/// Within a run nothing is pushed and popped but once.
TEST(Contexts, ARunEntersOnce) {
  const auto driver = std::make_shared<SimDriver>();
  const auto open = std::make_shared<run::OpenDevice>("cuda:0", make_sim_device(driver));
  const run::Location where{&open->target(), open};
  const auto cell = std::make_shared<run::Elements>(Array::full(Dtype::f32, {64}, 1));
  const auto runner =
      run::make_runner(run::Program::compile(adding(), {.target = where.target}), where, {{1, cell}});
  for (int i = 0; i < 3; ++i) runner->run();
  const int64_t before = driver->calls();
  const run::Ticket ticket = runner->submit();
  // One push and pop; a wait for the slot, the upload with its event and wait, the graph, the download with its two events and its wait.
  EXPECT_LE(driver->calls() - before, 2 + 9);
  runner->wait(ticket);
}

}  // namespace
}  // namespace espalier
