// Every call of the driver that a small program makes fails once, with errors of every kind: the error is said, nothing leaks, and what can
// go on goes on.
#include <gtest/gtest.h>

#include "op/elementwise.h"
#include "op/movement.h"
#include "op/sampling.h"
#include "support/device_run.h"
#include "support/loops.h"
#include "target/cuda/driver/context.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier::target::cuda::sim {
namespace {

/// It asks for more shared memory than any launch may have.
const KernelSource large_block{"large", R"(
K_KERNEL(large, 32)(float* y) {
  K_SHARED_REST(float, all);
  all[15000 + threadIdx.x] = 1;
  if (threadIdx.x < 16) y[threadIdx.x] = all[15000 + threadIdx.x];
}
)",
                               32, true};

struct Program {
  Program() {
    std::mt19937_64 rng(3);
    data = {op::draw_array(rng, ir::Dtype::f32, {4, 32}), op::draw_array(rng, ir::Dtype::f32, {32})};
    const ir::Value x = ir::new_input("x", data[0].type()), b = ir::new_input("b", data[1].type());
    const ir::Value y = op::tanh(op::add(x, op::broadcast_to(b, x.dims())));
    body = test::body_of({x, b}, {y, op::neg(y)});
    want = reference::evaluate(body, data);
  }
  /// Events and a second stream beside the kernels.
  void run(Device& device) const {
    test::DeviceThings things(device);
    const Stream first = things.stream(), second = things.stream();
    const Event from = things.event(true), to = things.event(true);
    device.record(from, first);
    device.wait(second, from);
    device.record(to, second);
    device.sync(to);
    while (!device.finished(to)) {
    }
    EXPECT_GE(device.elapsed_ms(from, to), 0);
    EXPECT_GT(device.free_bytes(), 0);
    const Address memory = things.memory(64);
    const CallRecord fill{FillCall{64, 5}, {{0}}, {}};
    const auto executable = device.load({}, std::span(&fill, 1));
    const auto graph =
        capture(device, first, [&] { device.launch(*executable, 0, std::vector{memory}, first); });
    device.launch(*graph, first);
    auto* fetched = things.pinned<unsigned char>(64);
    device.download(fetched, memory, 64, first);
    device.sync(first);
    EXPECT_EQ(fetched[63], 5);
    const CallRecord large{KernelCall{"large", {1}, {32}, 60 << 10}, {{0}}, {}};
    const auto blocks = device.load(std::span(&large_block, 1), std::span(&large, 1));
    device.launch(*blocks, 0, std::vector{memory}, first);
    device.sync(first);
    const std::vector<ir::Array> got = test::run_on_device(device, body, data);
    for (size_t i = 0; i < want.size(); ++i)
      EXPECT_TRUE(test::close(got[i], want[i], test::tolerance_of(want[i].dtype())));
  }

  std::vector<ir::Array> data, want;
  ir::Graph body;
};

constexpr driver::CuResult errors[] = {driver::cu_error_out_of_memory, driver::cu_error_invalid_value,
                                       driver::cu_error_not_ready,     driver::cu_error_illegal_address,
                                       driver::cu_error_launch_failed, driver::cu_error_unknown};

/// Make the device and run the program; the call number `call` fails. What it says, or null.
std::unique_ptr<DeviceError> run_with_fault(const Program& program, const std::shared_ptr<SimDriver>& driver,
                                            const Fault& fault, std::unique_ptr<Device>& device) {
  driver->fail(fault);
  std::unique_ptr<DeviceError> error;
  try {
    device = make_sim_device(driver);
    program.run(*device);
  } catch (const DeviceError& e) {
    error = std::make_unique<DeviceError>(e);
  }
  driver->fail({});
  return error;
}

TEST(Faults, EveryCallMayFail) {
  const Program program;
  const auto clean = std::make_shared<SimDriver>();
  program.run(*make_sim_device(clean));
  const int64_t calls = clean->calls();
  ASSERT_GT(calls, 60);
  int said = 0;
  for (const driver::CuResult wrong : errors)
    for (int64_t call = 1; call <= calls; ++call) {
      SCOPED_TRACE(testing::Message() << "call " << call << " of " << calls << " fails with " << wrong);
      const auto driver = std::make_shared<SimDriver>();
      std::unique_ptr<Device> device;
      const auto error = run_with_fault(program, driver, {call, wrong}, device);
      const bool lasts = driver::is_lasting(wrong);
      if (error) {
        ++said;
        const bool at_init =
            error->fields().where.ends_with(", cuInit");  // nothing is there that could be lost
        EXPECT_EQ(error->lost(), lasts && !at_init) << error->what();
        EXPECT_NE(error->fields().where.find(", cu"), std::string::npos) << error->what();
      }
      if (device) {
        EXPECT_LE(
            driver->live().modules + driver->live().streams + driver->live().events + driver->live().graphs,
            0);
        EXPECT_EQ(driver->live().pinned + driver->live().allocations, 0);
        if (!lasts) program.run(*device);
        if (lasts && error) EXPECT_THROW(program.run(*device), DeviceError);
      }
      device.reset();
      EXPECT_EQ(driver->live(), LiveCounts{});
      EXPECT_EQ(driver->leaked(), "");
      device = make_sim_device(driver);  // a new context works
      program.run(*device);
      if (testing::Test::HasFailure()) return;
    }
  // What gives something back has nobody to tell, and a query that is not ready is no error.
  EXPECT_GT(said, static_cast<int>(std::size(errors)) * calls / 2);
}

TEST(Faults, ALostDeviceSaysSoToTheEnd) {
  const Program program;
  const auto driver = std::make_shared<SimDriver>();
  const auto device = make_sim_device(driver);
  program.run(*device);
  driver->fail({5, driver::cu_error_illegal_address});
  std::string first, later;
  try {
    program.run(*device);
  } catch (const DeviceError& e) {
    first = e.what();
  }
  const int64_t calls = driver->calls();
  try {
    device->allocate(4);
  } catch (const DeviceError& e) {
    EXPECT_TRUE(e.lost());
    later = e.what();
  }
  EXPECT_NE(first.find("failed with CUDA_ERROR_ILLEGAL_ADDRESS (700)"), std::string::npos) << first;
  EXPECT_NE(later.find("failed with CUDA_ERROR_ILLEGAL_ADDRESS (700)"), std::string::npos) << later;
  EXPECT_NE(later.find("cuMemAlloc"), std::string::npos) << later;
  EXPECT_EQ(driver->calls(), calls);  // the driver is not asked again
}

}  // namespace
}  // namespace espalier::target::cuda::sim
