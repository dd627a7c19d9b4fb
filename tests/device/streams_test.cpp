// Order on a simulated device: a pipeline of two streams as a training loop has it, right and with each of its waits left out; and memory
// that is used when it should not be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "support/device_run.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier::target::cuda::sim {
namespace {

using test::DeviceThings;
using testing::HasSubstr;

const KernelSource sources[] = {{"twice_and_one", R"(
K_KERNEL(twice_and_one, 32)(const float* x, float* y) {
  const int i = blockIdx.x * 32 + threadIdx.x;
  y[i] = 2 * x[i] + 1;
}
)",
                                 32, false},
                                {"overruns", R"(
K_KERNEL(overruns, 32)(float* y) { y[threadIdx.x + 1] = 1; }
)",
                                 32, false},
                                {"hangs", R"(
K_KERNEL(hangs, 64)(float* y) {
  if (threadIdx.x < 32) __syncthreads();
  else __syncthreads();
  y[threadIdx.x] = 1;
}
)",
                                 64, true}};
const CallRecord calls[] = {{KernelCall{"twice_and_one", {2}, {32}}, {{0}, {1}}, {}},
                            {KernelCall{"overruns", {1}, {32}}, {{0}}, {}},
                            {KernelCall{"hangs", {1}, {64}}, {{0}}, {}}};
constexpr int64_t n = 64, bytes = 4 * n;

enum class Bug { none, no_copied_wait, no_used_wait, host_reuse, no_final_sync };

/// The copy stream fills one of two device buffers from one of two pinned ones, the other stream computes: are the results right?
bool pipeline(Others others, Bug bug) {
  const auto device = make_sim_device({.others = others});
  const auto program = device->load(sources, calls);
  constexpr int steps = 5;
  DeviceThings things(*device);
  const Stream copies = things.stream(), compute = things.stream();
  float* staged[] = {things.pinned<float>(n), things.pinned<float>(n)};
  float* results = things.pinned<float>(steps * n);
  const Address x[] = {things.memory(bytes), things.memory(bytes)}, y = things.memory(bytes),
                z = things.memory(bytes);
  const Event copied[] = {things.event(), things.event()}, used[] = {things.event(), things.event()};
  for (int s = 0; s < steps; ++s) {
    const int b = s & 1;
    if (bug != Bug::host_reuse) device->sync(copied[b]);
    for (int i = 0; i < n; ++i) staged[b][i] = static_cast<float>(100 * s + i);
    if (bug != Bug::no_used_wait) device->wait(copies, used[b]);
    device->upload(x[b], staged[b], bytes, copies);
    device->record(copied[b], copies);
    if (bug != Bug::no_copied_wait) device->wait(compute, copied[b]);
    device->launch(*program, 0, std::vector{x[b], y}, compute);
    device->launch(*program, 0, std::vector{y, z}, compute);
    device->record(used[b], compute);
    device->download(results + s * n, z, bytes, compute);
  }
  if (bug != Bug::no_final_sync) device->sync(compute);
  bool right = true;
  for (int s = 0; s < steps; ++s)
    for (int i = 0; i < n; ++i) right &= results[s * n + i] == static_cast<float>(4 * (100 * s + i) + 3);
  return right;
}

TEST(Streams, APipelineInOrderThreads) {
  EXPECT_TRUE(pipeline(Others::late, Bug::none));
  EXPECT_TRUE(pipeline(Others::first, Bug::none));
}

TEST(Streams, AWaitLeftOutShowsInTheValues) {
  EXPECT_FALSE(pipeline(Others::late, Bug::no_copied_wait));
  EXPECT_FALSE(pipeline(Others::late, Bug::no_used_wait));
  EXPECT_FALSE(pipeline(Others::late, Bug::host_reuse));
  EXPECT_FALSE(pipeline(Others::late, Bug::no_final_sync));
}

/// Another stream writes over an operand, and nothing says when.
bool overwritten(Others others) {
  const auto device = make_sim_device({.others = others});
  const auto program = device->load(sources, calls);
  DeviceThings things(*device);
  const Stream compute = things.stream(), other = things.stream();
  const Address x = things.memory(bytes), y = things.memory(bytes);
  auto* staged = things.pinned<float>(2 * n);
  for (int i = 0; i < 2 * n; ++i) staged[i] = static_cast<float>(i);
  device->upload(x, staged, bytes, compute);
  device->sync(compute);
  device->launch(*program, 0, std::vector{x, y}, compute);
  device->upload(x, staged + n, bytes, other);
  device->download(staged, y, bytes, compute);
  device->sync(compute);
  return staged[5] != 11;
}

TEST(Streams, WhatMayBeEarlyIsAlsoTriedEarly) {
  EXPECT_FALSE(overwritten(Others::late));
  EXPECT_TRUE(overwritten(Others::first));
}

TEST(Streams, AWaitLeftOutIsARaceThreads) {
#if !defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the thread sanitizer finds it";
#else
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const Bug bug : {Bug::no_copied_wait, Bug::no_used_wait, Bug::host_reuse, Bug::no_final_sync})
    EXPECT_DEATH(pipeline(Others::late, bug), "data race") << static_cast<int>(bug);
#endif
}

/// What the DeviceError of `f` says, which is one that stays; and it stays.
template <class F>
std::string loss(Device& device, const F& f) {
  try {
    f();
  } catch (const DeviceError& e) {
    EXPECT_TRUE(e.lost()) << e.what();
    EXPECT_THROW(device.allocate(4), DeviceError);
    EXPECT_THROW(device.make_stream(), DeviceError);
    return e.what();
  }
  return "no error";
}

TEST(Streams, MemoryGivenBackBeforeItsUse) {
  const auto device = make_sim_device();
  const auto program = device->load(sources, calls);
  DeviceThings things(*device);
  const Stream stream = things.stream();
  const Address x = device->allocate(bytes), y = things.memory(bytes);
  device->launch(*program, 0, std::vector{x, y}, stream);
  device->release(x);
  EXPECT_THAT(loss(*device, [&] { device->sync(stream); }),
              testing::AllOf(HasSubstr("CUDA_ERROR_ILLEGAL_ADDRESS (700): kernel twice_and_one, operand 0: "
                                       "allocation 0 is used after it was given back"),
                             HasSubstr("cuStreamSynchronize"), HasSubstr("the device is lost")));
}

TEST(Streams, PinnedMemoryGivenBackBeforeItsCopy) {
  const auto device = make_sim_device();
  DeviceThings things(*device);
  const Stream stream = things.stream();
  const Address x = things.memory(bytes);
  void* staged = device->allocate_pinned(bytes);
  device->upload(x, staged, bytes, stream);
  device->release_pinned(staged);
  EXPECT_THAT(loss(*device, [&] { device->sync(stream); }),
              HasSubstr("a copy: pinned memory 0 is used after it was given back"));
}

/// Work of a stream that is destroyed goes on, some time: it is not waited for.
TEST(Streams, ADestroyedStreamIsNotWaitedFor) {
  for (const bool waits : {true, false}) {
    const auto driver = std::make_shared<SimDriver>(SimOptions{});
    {
      const auto device = make_sim_device(driver);
      const Address x = device->allocate(bytes);
      void* const staged = device->allocate_pinned(bytes);
      const Stream stream = device->make_stream();
      const Event done = device->make_event(false);
      device->upload(x, staged, bytes, stream);
      device->record(done, stream);
      device->release(stream);
      if (waits) {
        EXPECT_FALSE(device->finished(done));
        device->sync(done);
      }
      device->release(x);
      device->release_pinned(staged);
      device->release(done);
      EXPECT_EQ(driver->live().streams, 0);
    }
    EXPECT_EQ(driver->leaked(),
              waits ? ""
                    : "work of a destroyed stream went wrong: a copy: pinned memory 0 is used after it "
                      "was given back");
  }
}

TEST(Streams, OperandsOutsideOfMemory) {
  for (const int64_t off : {int64_t{4} << 40, bytes + 1, int64_t{-1}}) {
    const auto device = make_sim_device();
    const auto program = device->load(sources, calls);
    DeviceThings things(*device);
    const Stream stream = things.stream();
    const Address x = things.memory(bytes), y = things.memory(bytes);
    EXPECT_THAT(loss(*device,
                     [&] {
                       device->launch(*program, 0, std::vector{x, y + static_cast<Address>(off)}, stream);
                     }),
                HasSubstr("kernel twice_and_one, operand 1: "));
  }
}

TEST(Streams, CopiesOfPageableMemoryAndPastTheEndAreRefused) {
  const auto device = make_sim_device();
  DeviceThings things(*device);
  const Stream stream = things.stream();
  const Address x = things.memory(bytes);
  std::vector<float> pageable(n);
  auto* staged = things.pinned<float>(n);
  const auto words = [&](const auto& f) {
    try {
      f();
    } catch (const DeviceError& e) {
      EXPECT_FALSE(e.lost());
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(words([&] { device->upload(x, pageable.data(), bytes, stream); }),
              HasSubstr("is no pinned memory"));
  EXPECT_THAT(words([&] { device->download(pageable.data(), x, bytes, stream); }),
              HasSubstr("is no pinned memory"));
  EXPECT_THAT(words([&] { device->upload(x + 4, staged, bytes, stream); }),
              HasSubstr("256 bytes at 4 of allocation 0, which has 256"));
  EXPECT_THAT(words([&] { device->download(staged, x, bytes + 1, stream); }),
              HasSubstr("257 bytes at 0 of pinned memory 0"));
  device->upload(x, staged, bytes, stream);
  device->sync(stream);
}

TEST(Streams, AStorePastTheEnd) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the address sanitizer stops at the store";
#endif
  const auto device = make_sim_device();
  const auto program = device->load(sources, calls);
  DeviceThings things(*device);
  const Stream stream = things.stream();
  const Address y = things.memory(128);
  device->launch(*program, 1, std::vector{y}, stream);
  EXPECT_THAT(loss(*device, [&] { device->sync(stream); }),
              HasSubstr("kernel overruns, operand 0: allocation 0 of 128 bytes was written past its end"));
}

TEST(Streams, AKernelThatHangsLosesTheDevice) {
  const auto device = make_sim_device();
  const auto program = device->load(sources, calls);
  DeviceThings things(*device);
  const Stream stream = things.stream();
  const Event event = things.event();
  device->launch(*program, 2, std::vector{things.memory(bytes)}, stream);
  device->record(event, stream);
  EXPECT_THAT(loss(*device, [&] { device->sync(event); }),
              testing::AllOf(HasSubstr("CUDA_ERROR_LAUNCH_FAILED (719): kernel hangs: "),
                             HasSubstr("cuEventSynchronize")));
}

TEST(Graphs, WhatIsCapturedIsDoneWheneverItIsLaunchedThreads) {
  const auto driver = std::make_shared<SimDriver>();
  const auto device = make_sim_device(driver);
  const auto program = device->load(sources, calls);
  DeviceThings things(*device);
  const Stream stream = things.stream(), other = things.stream();
  const Address x = things.memory(bytes), y = things.memory(bytes);
  auto* data = things.pinned<float>(n);
  const auto graph = capture(*device, stream, [&] {
    device->launch(*program, 0, std::vector{x, y}, stream);
    device->launch(*program, 0, std::vector{y, x}, stream);
    device->download(data, x, bytes, stream);
  });
  device->sync(stream);
  EXPECT_EQ(driver->launches(), 0);
  std::fill_n(data, n, 1.0f);
  device->upload(x, data, bytes, stream);
  device->launch(*graph, stream);
  device->sync(stream);
  for (int i = 0; i < n; ++i) EXPECT_EQ(data[i], 7);
  device->launch(*graph, other);
  device->launch(*graph, other);
  device->sync(other);
  for (int i = 0; i < n; ++i) EXPECT_EQ(data[i], 127);
  EXPECT_EQ(driver->launches(), 6);
  EXPECT_EQ(driver->live().graphs, 1);
}

TEST(Graphs, WhatMayNotBeCaptured) {
  const auto device = make_sim_device();
  const auto program = device->load(sources, calls);
  DeviceThings things(*device);
  const Stream stream = things.stream();
  const Event event = things.event();
  const Address x = things.memory(bytes), y = things.memory(bytes);
  const std::function<void()> wrongs[] = {
      [&] { device->sync(stream); },        [&] { device->allocate(4); },
      [&] { device->allocate_pinned(4); },  [&] { device->record(event, stream); },
      [&] { device->wait(stream, event); }, [&] { device->load(sources, calls); },
  };
  for (const auto& wrong : wrongs) {
    try {
      capture(*device, stream, wrong);
      ADD_FAILURE() << "no error";
    } catch (const DeviceError& e) {
      EXPECT_FALSE(e.lost());
      EXPECT_THAT(e.what(), HasSubstr("while the stream is captured"));
    }
    device->launch(*program, 0, std::vector{x, y}, stream);
    device->sync(stream);
  }
  // An error that nobody looked at is found at the end.
  const Address spare = device->allocate(4);
  device->begin_capture(stream);
  device->release(spare);
  EXPECT_THROW(device->end_capture(stream), DeviceError);
  device->release(spare);
}

TEST(Graphs, KernelsOfAnExecutableThatIsGone) {
  const auto device = make_sim_device();
  auto program = device->load(sources, calls);
  DeviceThings things(*device);
  const Stream stream = things.stream();
  const Address x = things.memory(bytes), y = things.memory(bytes);
  const auto graph = capture(*device, stream, [&] {
    device->launch(*program, 0, std::vector{x, y}, stream);
  });
  program.reset();
  device->launch(*graph, stream);
  EXPECT_THAT(loss(*device, [&] { device->sync(stream); }),
              HasSubstr("kernel twice_and_one: its module was unloaded"));
}

}  // namespace
}  // namespace espalier::target::cuda::sim
