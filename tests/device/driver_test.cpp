// A device over the simulated driver: generated kernels against the reference, memory, programs, and what is said of misuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "support/device_run.h"
#include "support/errors.h"
#include "support/loop_bodies.h"
#include "support/loops.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier::target::cuda::sim {
namespace {

using test::DeviceThings;
using testing::HasSubstr;

KernelSource add_one(const std::string& name = "add_one") {
  return {name, "K_KERNEL(" + name + R"(, 64)(const float* x, float* y) {
  const int i = blockIdx.x * 64 + threadIdx.x;
  y[i] = x[i] + 1;
}
)",
          64, false};
}
CallRecord launch_of(const std::string& name, uint32_t blocks = 1, uint32_t threads = 64) {
  return {KernelCall{name, {blocks}, {threads}}, {{0}, {1}}, {}};
}

TEST(SimDevice, BodiesAgreeWithTheReference) {
  const auto driver = std::make_shared<SimDriver>();
  {
    const auto device = make_sim_device(driver);
    for (const char* name :
         {"softmax_and_log_softmax", "sum_over_an_indivisible_long_axis", "pad_concat_slice_reverse"})
      for (const test::LoopBodies& bodies : test::loop_bodies) {
        if (std::string(bodies.name) != name) continue;
        bodies.make([&](const ir::Graph& body, const std::vector<ir::Array>& data, double scale) {
          const std::vector<ir::Array> want = reference::evaluate(body, data),
                                       got = test::run_on_device(*device, body, data);
          for (size_t i = 0; i < want.size(); ++i)
            EXPECT_TRUE(test::close(got[i], want[i], test::tolerance_of(want[i].dtype()) * scale))
                << ir::print(body);
        });
      }
    EXPECT_GT(driver->launches(), 0);
    EXPECT_EQ(driver->live(), (LiveCounts{.contexts = 1}));
  }
  EXPECT_EQ(driver->live(), LiveCounts{});
  EXPECT_EQ(driver->leaked(), "");
}

TEST(SimDevice, TellsWhatItIs) {
  const auto device =
      make_sim_device({.devices = 2, .capability = 80, .memory_bytes = 5000, .taken_bytes = 1000});
  const DeviceInfo info = device->info();
  EXPECT_EQ(info.index, 0);
  EXPECT_EQ(info.capability, 80);
  EXPECT_EQ(info.memory_bytes, 5000);
  EXPECT_EQ(device->free_bytes(), 4000);
  const Address a = device->allocate(300);
  EXPECT_EQ(a % 256, 0u);
  EXPECT_EQ(device->free_bytes(), 3700);
  device->release(a);
  EXPECT_EQ(device->free_bytes(), 4000);
}

TEST(SimDevice, OutOfMemorySaysWhatWasAskedAndWhatWasFree) {
  const auto device = make_sim_device({.memory_bytes = 1 << 20, .taken_bytes = 1 << 10});
  try {
    device->allocate(1 << 20);
    FAIL();
  } catch (const DeviceError& e) {
    EXPECT_FALSE(e.lost());
    EXPECT_EQ(e.fields().where, "device cuda:0 (simulated sm_90 number 0), cuMemAlloc");
    EXPECT_EQ(e.fields().problem, "CUDA_ERROR_OUT_OF_MEMORY (2): out of memory");
    EXPECT_EQ(e.fields().got, "1048576 bytes asked for, 1047552 of 1048576 free");
  }
  device->release(device->allocate(1000));
}

TEST(SimDevice, ADeviceThatCannotBeHad) {
  EXPECT_THAT(test::error_of([] { make_sim_device({.devices = 0}); }), HasSubstr("no CUDA-capable device"));
  EXPECT_THAT(test::error_of([] { make_sim_device(std::make_shared<SimDriver>(), 3); }),
              HasSubstr("device cuda:3, cuDeviceGet: CUDA_ERROR_INVALID_DEVICE (101)"));
  EXPECT_THAT(test::error_of([] { make_sim_device({.held_by_another = true}); }),
              testing::AllOf(HasSubstr("cuDevicePrimaryCtxRetain: CUDA_ERROR_DEVICE_UNAVAILABLE (46)"),
                             HasSubstr("exclusive process")));
}

TEST(SimDevice, CopiesAndFills) {
  const auto device = make_sim_device();
  DeviceThings things(*device);
  const Stream stream = things.stream();
  const Address a = things.memory(64), b = things.memory(64);
  auto* out = things.pinned<unsigned char>(64);
  const auto program = device->load(
      {}, std::vector<CallRecord>{
              {FillCall{64, 7}, {{0}}, {}}, {FillCall{8, 1}, {{0, 16}}, {}}, {CopyCall{32}, {{0}, {1}}, {}}});
  device->launch(*program, 0, std::vector{a}, stream);
  device->launch(*program, 0, std::vector{b}, stream);
  device->launch(*program, 1, std::vector{a + 16}, stream);
  device->launch(*program, 2, std::vector{a, b + 32}, stream);
  device->download(out, b, 64, stream);
  device->sync(stream);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(out[i], i >= 48 && i < 56 ? 1 : 7) << i;
}

TEST(SimDevice, EventsTellTheTimeBetween) {
  const auto device = make_sim_device();
  DeviceThings things(*device);
  const Stream stream = things.stream();
  const Event first = things.event(true), last = things.event(true), plain = things.event();
  EXPECT_TRUE(device->finished(first));  // never recorded
  device->record(first, stream);
  device->record(last, stream);
  EXPECT_FALSE(device->finished(last));
  device->sync(last);
  EXPECT_TRUE(device->finished(last));
  EXPECT_GE(device->elapsed_ms(first, last), 0);
  device->record(plain, stream);
  while (!device->finished(plain)) {
  }
  EXPECT_THROW(device->elapsed_ms(first, plain), InternalError);
}

TEST(SimDevice, AStreamOfTheCallers) {
  const auto driver = std::make_shared<SimDriver>(SimOptions{.devices = 2});
  const auto device = make_sim_device(driver), other = make_sim_device(driver, 1);
  driver::CuContext context = nullptr;
  driver::CuStream foreign = nullptr;
  ASSERT_EQ(driver->api().DevicePrimaryCtxRetain(&context, 0), 0);
  ASSERT_EQ(driver->api().CtxPushCurrent(context), 0);
  ASSERT_EQ(driver->api().StreamCreate(&foreign, 0), 0);
  const Stream stream = device->adopt_stream(foreign);
  device->sync(stream);
  device->release(stream);
  EXPECT_THAT(test::error_of([&] { other->adopt_stream(foreign); }), HasSubstr("belongs to another context"));
  EXPECT_EQ(driver->api().StreamDestroy(foreign), 0);
  EXPECT_EQ(driver->api().CtxPopCurrent(&context), 0);
  EXPECT_EQ(driver->api().DevicePrimaryCtxRelease(0), 0);
}

TEST(SimDevice, WhatTheCompilerRefusesIsShown) {
  const auto device = make_sim_device();
  const KernelSource wrong[] = {
      {"wrong", "K_KERNEL(wrong, 32)(float* y) { y[0] = nothing_of_that_name; }\n", 32, false}};
  EXPECT_THAT(test::error_of([&] { device->load(wrong, {}); }), HasSubstr("nothing_of_that_name"));
}

TEST(SimDevice, RecordsMustFitTheirKernels) {
  const auto device = make_sim_device();
  const KernelSource sources[] = {add_one()};
  const auto load = [&](const CallRecord& call) { return device->load(sources, std::span(&call, 1)); };
  EXPECT_THROW(load(launch_of("another")), InternalError);
  EXPECT_THROW(load(launch_of("add_one", 1, 65)), InternalError);
  EXPECT_THROW(load({CopyCall{4}, {{0}}, {}}), InternalError);
  EXPECT_THROW(load({FillCall{4, 0}, {}, {}}), InternalError);

  DeviceThings things(*device);
  const Stream stream = things.stream();
  const Address x = things.memory(256), y = things.memory(256);
  const auto program = load(launch_of("add_one"));
  EXPECT_THROW(device->launch(*program, 1, std::vector{x, y}, stream), InternalError);
  EXPECT_THROW(device->launch(*program, 0, std::vector{x}, stream), InternalError);
  EXPECT_THROW(device->launch(*program, 0, std::vector{x, y}, Stream{77}), InternalError);
  CallRecord three = launch_of("add_one");
  three.operands.push_back({2});
  EXPECT_THAT(test::error_of([&] {
                device->launch(*load(three), 0, std::vector{x, y, y}, stream);
              }),
              testing::AllOf(HasSubstr("more than 2 parameters"),
                             HasSubstr("kernel add_one, 1 blocks of 64 threads")));
  EXPECT_THAT(
      test::error_of([&] {
        device->launch(*load({KernelCall{"add_one", {1}, {64}}, {{0}}, {}}), 0, std::vector{x}, stream);
      }),
      HasSubstr("1 parameters of 2"));
  EXPECT_THAT(test::error_of([&] {
                device->launch(*load({KernelCall{"add_one", {1, 70000}, {64}}, {{0}, {1}}, {}}), 0,
                               std::vector{x, y}, stream);
              }),
              HasSubstr("a grid of 1 x 70000 x 1"));
  device->launch(*program, 0, std::vector{x, y}, stream);
  device->sync(stream);
}

TEST(SimDevice, ProgramsFromSeveralThreads) {
  const auto driver = std::make_shared<SimDriver>();
  const auto device = make_sim_device(driver);
  const KernelSource sources[] = {add_one("add_one_a"), add_one("add_one_b"), add_one("add_one_a")};
  std::vector<std::thread> threads;
  for (const char* name : {"add_one_a", "add_one_b", "add_one_a"})
    threads.emplace_back([&, name] {
      const CallRecord call = launch_of(name);
      const auto program = device->load(sources, std::span(&call, 1));
      DeviceThings things(*device);
      const Stream stream = things.stream();
      const Address x = things.memory(256);
      auto* data = things.pinned<float>(64);
      std::fill_n(data, 64, 0.0f);
      device->upload(x, data, 256, stream);
      for (int i = 0; i < 20; ++i) device->launch(*program, 0, std::vector{x, x}, stream);
      device->download(data, x, 256, stream);
      device->sync(stream);
      for (int i = 0; i < 64; ++i) EXPECT_EQ(data[i], 20);
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(driver->launches(), 60);
  EXPECT_EQ(driver->live(), (LiveCounts{.contexts = 1}));
}

}  // namespace
}  // namespace espalier::target::cuda::sim
