// A GPU's memory and streams as programs use them: runs on addresses of theirs, in a stream of theirs, without waiting.
#include "tensor/gpu_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "op/elementwise.h"
#include "support/errors.h"
#include "support/sim_plugin.h"
#include "tensor/compile.h"
#include "tensor/dlpack.h"

namespace espalier {
namespace {

using ir::Dtype;
using test::error_of;
using testing::HasSubstr;

constexpr int64_t n = 64, bytes = 4 * n;

class GpuMemory : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(test::use_sim_gpu()); }
  Device gpu = Device::cuda();
};

/// Batches come and go through two pinned buffers each way; the host waits where a buffer comes round.
TEST_F(GpuMemory, RunsOnAddressesInAStreamOfTheCallersThreads) {
  const int64_t before = gpu.memory().in_use;
  {
    GpuStream stream(gpu);
    Compiled fn = compile(
        [](const std::vector<Tensor>& in) {
          return std::vector{in[0] * 2.0 + 1.0, in[0] * 3.0};
        },
        {.device = gpu, .stream = stream.handle()});
    const std::vector<ir::Type> types{{Dtype::f32, {ir::Dim(n)}}};
    Step& step = fn.step(types);
    const auto x = gpu_memory(gpu, bytes), y = gpu_memory(gpu, bytes);
    EXPECT_GE(gpu.memory().in_use, before + 2 * bytes);
    step.bind_input(0, x.get());
    step.bind_output(0, y.get());
    std::vector<std::shared_ptr<void>> in, out;
    for (int b = 0; b < 2; ++b) {
      in.push_back(pinned_memory(gpu, bytes));
      out.push_back(pinned_memory(gpu, bytes));
    }
    for (int r = 0; r < 6; r += 2) {
      for (int b = 0; b < 2; ++b) {
        for (int64_t i = 0; i < n; ++i)
          static_cast<float*>(in[b].get())[i] = static_cast<float>(100 * (r + b) + i);
        stream.upload(x.get(), in[b].get(), bytes);
        step.submit();
        stream.download(out[b].get(), y.get(), bytes);
      }
      stream.wait();
      for (int b = 0; b < 2; ++b)
        EXPECT_EQ(static_cast<const float*>(out[b].get())[n - 1],
                  static_cast<float>(2 * (100 * (r + b) + n - 1) + 1));
    }
    step.run();
    EXPECT_EQ(step.result(1).at(n - 1), 3 * (500 + n - 1)) << "what is not bound comes to the host";
    EXPECT_THAT(error_of([&] { step.result(0); }), HasSubstr("is bound to memory of the device's"));
  }
  EXPECT_EQ(gpu.memory().in_use, before);
}

/// What was moved from, what waits, and what is nobody's.
TEST_F(GpuMemory, MovesAndErrors) {
  GpuStream stream(gpu), other(std::move(stream));
  stream = std::move(other);
  const auto x = gpu_memory(gpu, bytes), host = pinned_memory(gpu, bytes);
  std::memset(host.get(), 7, bytes);
  stream.upload(x.get(), host.get(), bytes);
  stream.wait();
  const auto back = pinned_memory(gpu, bytes);
  std::memset(back.get(), 0, bytes);
  stream.download(back.get(), x.get(), bytes);
  stream = GpuStream(gpu);
  EXPECT_EQ(std::memcmp(back.get(), host.get(), bytes), 0) << "the one that goes has waited";
  std::vector<float> pageable(n);
  EXPECT_THAT(error_of([&] { stream.download(pageable.data(), x.get(), bytes); }),
              HasSubstr("is no pinned memory"));
  EXPECT_THAT(error_of([] { gpu_memory(Device::cpu(), 4); }),
              HasSubstr("device cpu: has no memory of its own"));
  EXPECT_THAT(error_of([] { GpuStream none{Device::cpu()}; }), HasSubstr("device cpu"));
  EXPECT_THAT(error_of([&] { pinned_memory(gpu, -1); }), HasSubstr("a negative number of bytes (got -1"));
  EXPECT_NE(pinned_memory(gpu, 0), nullptr);
  gpu.set_memory_limit(gpu.memory().in_use + bytes);
  EXPECT_THAT(error_of([&] { gpu_memory(gpu, bytes + 1); }), HasSubstr("limit"));
  EXPECT_NO_THROW(gpu_memory(gpu, bytes));
  gpu.set_memory_limit(0);
}

/// As another library gives and takes it.
TEST_F(GpuMemory, ResultsIntoTensorsOfOthers) {
  Compiled fn =
      compile([](const std::vector<Tensor>& in) { return std::vector{in[0] - 1.0}; }, {.device = gpu});
  const std::vector<ir::Type> types{{Dtype::f32, {ir::Dim(n)}}};
  Step& step = fn.step(types);
  const auto y = gpu_memory(gpu, bytes), host = pinned_memory(gpu, bytes);
  int64_t dims[] = {n};
  int deleted = 0;
  dlpack::ManagedTensor theirs{
      .tensor = {.data = y.get(), .device = {dlpack::DeviceKind::cuda, 0}, .rank = 1, .shape = dims},
      .context = &deleted,
      .deleter = [](dlpack::ManagedTensor* self) { ++*static_cast<int*>(self->context); }};
  {
    const std::shared_ptr<const void> kept = dlpack::bind_output(step, 0, &theirs);
    step.set_input(0, Array::full(Dtype::f32, {n}, 5));
    step.run();
    GpuStream stream(gpu);
    stream.download(host.get(), y.get(), bytes);
    stream.wait();
    EXPECT_EQ(static_cast<const float*>(host.get())[n - 1], 4);
    EXPECT_EQ(deleted, 0);
  }
  EXPECT_EQ(deleted, 1);
  dims[0] = n / 2;
  EXPECT_THAT(error_of([&] { dlpack::bind_output(step, 0, &theirs); }),
              HasSubstr("result 0: is of another type"));
  theirs.tensor.device = {};
  EXPECT_THAT(error_of([&] { dlpack::bind_output(step, 0, &theirs); }),
              HasSubstr("lies elsewhere than the step runs"));
  EXPECT_EQ(deleted, 1) << "nothing was taken";
}

}  // namespace
}  // namespace espalier
