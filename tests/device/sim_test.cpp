// The simulator runs kernel text as a GPU would: barriers, shuffles, ballots, shared memory, in any order of threads; and what is
// wrong on a GPU is an error here.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "support/arrays.h"
#include "support/errors.h"
#include "target/cuda/sim/kernel_library.h"

namespace espalier::target::cuda::sim {
namespace {

KernelSource source(const char* name, const char* text, bool synchronises = true) {
  return {name, text, 256, synchronises};
}

// y[block] = sum of the block's 128 elements: lanes by shuffles, warps through shared memory.
const char* const block_sum = R"(
K_KERNEL(block_sum, 128)(const float* x, float* y) {
  K_SHARED(float, part, 4);
  const int t = threadIdx.x;
  float s = x[blockIdx.x * 128 + t];
#pragma unroll
  for (int o = 16; o; o >>= 1) s += __shfl_xor_sync(0xffffffffu, s, o);
  if ((t & 31) == 0) part[t >> 5] = s;
  __syncthreads();
  if (t == 0) y[blockIdx.x] = part[0] + part[1] + part[2] + part[3];
}
)";
// The same in two rounds over one array; WAIT is what keeps them apart.
std::string two_rounds(const std::string& name, const std::string& wait) {
  return "K_KERNEL(" + name + R"(, 64)(const float* x, float* y) {
  K_SHARED(float, part, 64);
  const int t = threadIdx.x;
  float s = 0;
  for (int round = 0; round < 2; ++round) {
    part[t] = x[round * 64 + t];
    __syncthreads();
    s += part[63 - t];
    )" + wait +
         R"(
  }
  y[t] = s;
}
)";
}
const char* const positives = R"(
K_KERNEL(positives, 64)(const float* x, unsigned* y) {
  const int t = threadIdx.x;
  const unsigned all = __ballot_sync(0xffffffffu, x[t] > 0);
  const float next = __shfl_down_sync(0xffffffffu, x[t], 1);
  if ((t & 31) == 0) y[t >> 5] = all + (next > 0 ? 1u : 0u) + static_cast<unsigned>(__shfl_sync(1u, 0.0f, t & 31));
}
)";
const char* const add_one = R"(
K_KERNEL(add_one, 256)(const float* x, float* y) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  esp_store<1>(y + i, {esp_load<1>(x + i).v[0] + 1});
}
)";
const char* const divergent = R"(
K_KERNEL(divergent, 64)(float* y) {
  if (threadIdx.x < 32) __syncthreads();
  else __syncthreads();
  y[threadIdx.x] = 1;
}
)";
const char* const never_met = R"(
K_KERNEL(never_met, 64)(float* y) {
  if (threadIdx.x < 40) __shfl_xor_sync(0xffffffffu, 1, 1);
  __syncthreads();
  y[threadIdx.x] = 1;
}
)";
const char* const absent_lane = R"(
K_KERNEL(absent_lane, 64)(float* y) {
  if (threadIdx.x == 5) return;
  __syncthreads();
  y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
)";
const char* const past_the_end = R"(
K_KERNEL(past_the_end, 32)(float* y) { y[threadIdx.x + 1] = 1; }
)";

const KernelSource sources[] = {source("block_sum", block_sum),
                                source("positives", positives),
                                source("add_one", add_one, false),
                                source("divergent", divergent),
                                source("never_met", never_met),
                                source("absent_lane", absent_lane),
                                source("past_the_end", past_the_end, false),
                                {"rounds", two_rounds("rounds", "__syncthreads();"), 64, true},
                                {"no_barrier", two_rounds("no_barrier", ""), 64, true}};

const KernelLibrary& library() {
  static const KernelLibrary kernels(sources);
  return kernels;
}

void launch(const KernelCall& call, std::vector<void*> operands, Order order = Order::forward) {
  for (const KernelSource& s : sources)
    if (s.name == call.kernel) return library().launch(s, call, operands, {order, 3});
  FAIL() << "no kernel " << call.kernel;
}

constexpr Order orders[] = {Order::forward, Order::reverse, Order::shuffled};

std::vector<float> ramp(int n) {
  std::vector<float> x(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i % 37) * 0.25f;
  return x;
}

TEST(Simulator, BlocksSumThroughShufflesAndSharedMemoryInEveryOrderThreads) {
  std::vector<float> x = ramp(3 * 128);
  for (const Order order : orders) {
    std::vector<float> y(3, NAN);
    launch({"block_sum", {3}, {128}}, {x.data(), y.data()}, order);
    for (size_t b = 0; b < 3; ++b) {
      float want = 0;
      for (size_t i = 0; i < 128; ++i) want += x[b * 128 + i];
      EXPECT_EQ(y[b], want);
    }
  }
}

TEST(Simulator, BarriersKeepRoundsApartThreads) {
  std::vector<float> x = ramp(128), y(64);
  for (const Order order : orders) {
    launch({"rounds", {1}, {64}}, {x.data(), y.data()}, order);
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(y[i], x[63 - i] + x[127 - i]);
  }
}

TEST(Simulator, BallotsAndShufflesKnowTheirLanes) {
  std::vector<float> x(64, -1.f);
  x[0] = x[1] = x[31] = x[40] = 1;
  for (const Order order : orders) {
    std::vector<uint32_t> y(2);
    launch({"positives", {1}, {64}}, {x.data(), y.data()}, order);
    EXPECT_EQ(y[0], 0x80000003u + 1);
    EXPECT_EQ(y[1], 0x00000100u);
  }
}

TEST(Simulator, PlainThreadsRunAsALoop) {
  std::vector<float> x = ramp(512), y(512);
  for (const Order order : orders) {
    std::fill(y.begin(), y.end(), NAN);
    launch({"add_one", {2}, {256}}, {x.data(), y.data()}, order);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], x[i] + 1);
  }
}

TEST(Simulator, WaitsThatHangOnAGpuAreErrors) {
  std::vector<float> y(64);
  const auto words = [&](const char* name) {
    try {
      launch({name, {1}, {64}}, {y.data()});
    } catch (const InternalError& e) {
      return std::string(e.what());
    }
    return std::string("nothing");
  };
  EXPECT_NE(words("divergent").find("different barriers"), std::string::npos) << words("divergent");
  EXPECT_NE(words("never_met").find("the others never come"), std::string::npos) << words("never_met");
  EXPECT_NE(words("absent_lane").find("a lane that has ended"), std::string::npos) << words("absent_lane");
  std::vector<float> x = ramp(128), sum(1);
  EXPECT_NO_THROW(launch({"block_sum", {1}, {128}}, {x.data(), sum.data()}));  // the machine is whole again
}

TEST(Simulator, ACompilersRefusalIsShown) {
  const KernelSource wrong[] = {
      source("wrong", "K_KERNEL(wrong, 32)(float* y) { y[0] = nothing_of_that_name; }\n")};
  try {
    const KernelLibrary kernels(wrong);
    FAIL() << "it compiled";
  } catch (const InternalError& e) {
    EXPECT_NE(std::string(e.what()).find("nothing_of_that_name"), std::string::npos) << e.what();
  }
}

TEST(Simulator, AStorePastTheEndDies) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the address sanitizer and guard pages find it";
#endif
  GTEST_FLAG_SET(death_test_style, "threadsafe");
#if defined(__SANITIZE_ADDRESS__)
  std::vector<float> y(32);
  EXPECT_DEATH(launch({"past_the_end", {1}, {32}}, {y.data()}), "heap-buffer-overflow");
#else
  const test::GuardedBuffer y(128);
  EXPECT_DEATH(launch({"past_the_end", {1}, {32}}, {y.data()}), "");
#endif
}

TEST(Simulator, AMissingBarrierIsARaceThreads) {
#if !defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the thread sanitizer finds it";
#else
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  std::vector<float> x = ramp(128), y(64);
  EXPECT_DEATH(launch({"no_barrier", {1}, {64}}, {x.data(), y.data()}), "data race");
#endif
}

}  // namespace
}  // namespace espalier::target::cuda::sim
