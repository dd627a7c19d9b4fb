#include "pass/memory_plan.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"

namespace espalier::pass {
namespace {

std::vector<Lifetime> random_lifetimes(std::mt19937_64& rng, int count, int steps) {
  std::vector<Lifetime> buffers;
  for (int i = 0; i < count; ++i) {
    const int a = static_cast<int>(rng() % static_cast<uint64_t>(steps)),
              b = a + static_cast<int>(rng() % 12);
    buffers.push_back(
        {static_cast<int64_t>(rng() % 5000), a, rng() % 8 == 0 ? a + static_cast<int>(rng() % 100) : b});
  }
  return buffers;
}

/// The lifetimes of a training step: every activation lives until its gradient, gradients of neighbours overlap, and each step
/// has scratch.
std::vector<Lifetime> training_lifetimes(std::mt19937_64& rng, int layers) {
  std::vector<Lifetime> buffers;
  const int last = 2 * layers;
  for (int l = 0; l < layers; ++l) {
    const int64_t bytes = 64 * (1 + static_cast<int64_t>(rng() % 4000));
    buffers.push_back({bytes, l, last - l});
    if (l > 0) buffers.push_back({bytes, last - l - 1, last - l});
    buffers.push_back({64 * static_cast<int64_t>(rng() % 300), l, l});
    buffers.push_back({64 * static_cast<int64_t>(rng() % 2000), last - l, last - l});
  }
  return buffers;
}

TEST(MemoryPlan, RandomLifetimesNeverOverlapAndStayNearTheLargestLiveSet) {
  std::mt19937_64 rng(1);
  int near = 0;
  for (int round = 0; round < 200; ++round) {
    const auto buffers =
        random_lifetimes(rng, 1 + static_cast<int>(rng() % 120), 1 + static_cast<int>(rng() % 60));
    const MemoryPlan plan = plan_memory(buffers);
    verify(plan, buffers);
    EXPECT_EQ(plan.largest_live_bytes, largest_live_set(buffers));
    EXPECT_GE(plan.bytes, plan.largest_live_bytes);
    EXPECT_LE(static_cast<double>(plan.bytes), 1.10 * static_cast<double>(plan.largest_live_bytes))
        << "round " << round;
    near += static_cast<double>(plan.bytes) <= 1.05 * static_cast<double>(plan.largest_live_bytes);
  }
  EXPECT_GE(near, 194) << "of 200";
}

TEST(MemoryPlan, TrainingStepsNeedNoMoreThanTheirLargestLiveSet) {
  std::mt19937_64 rng(2);
  for (const int layers : {1, 3, 10, 40, 150}) {
    const auto buffers = training_lifetimes(rng, layers);
    const MemoryPlan plan = plan_memory(buffers);
    verify(plan, buffers);
    EXPECT_LE(static_cast<double>(plan.bytes), 1.01 * static_cast<double>(plan.largest_live_bytes))
        << layers << " layers";
  }
}

TEST(MemoryPlan, TheSameLifetimesGiveTheSamePlan) {
  std::mt19937_64 rng(3);
  const auto buffers = random_lifetimes(rng, 80, 30);
  EXPECT_EQ(plan_memory(buffers).offsets, plan_memory(buffers).offsets);
}

TEST(MemoryPlan, EmptyAndZeroSized) {
  EXPECT_EQ(plan_memory({}).bytes, 0);
  const std::vector<Lifetime> buffers{{0, 0, 4}, {100, 1, 2}, {0, 1, 1}};
  const MemoryPlan plan = plan_memory(buffers);
  verify(plan, buffers);
  EXPECT_EQ(plan.bytes, 128);
}

TEST(MemoryPlan, VerifierCatchesEveryMovedBuffer) {
  std::mt19937_64 rng(4);
  int faults = 0;
  for (int round = 0; round < 50; ++round) {
    std::vector<Lifetime> buffers = random_lifetimes(rng, 30, 10);
    for (Lifetime& b : buffers) b.bytes += 1;
    const MemoryPlan plan = plan_memory(buffers);
    for (size_t a = 0; a < buffers.size(); ++a)
      for (size_t b = 0; b < a; ++b) {
        if (buffers[a].last < buffers[b].first || buffers[b].last < buffers[a].first) continue;
        MemoryPlan broken = plan;
        broken.offsets[a] = broken.offsets[b];
        broken.bytes *= 2;
        EXPECT_THROW(verify(broken, buffers), InternalError);
        ++faults;
      }
  }
  EXPECT_GT(faults, 1000);
}

TEST(MemoryPlan, VerifierCatchesOffsetsOutsideOrUnaligned) {
  const std::vector<Lifetime> buffers{{100, 0, 1}, {100, 1, 2}};
  MemoryPlan plan = plan_memory(buffers);
  MemoryPlan moved = plan;
  moved.offsets[1] += 8;
  EXPECT_THROW(verify(moved, buffers), InternalError);
  MemoryPlan small = plan;
  small.bytes = 64;
  EXPECT_THROW(verify(small, buffers), InternalError);
  EXPECT_THROW(plan_memory(std::vector<Lifetime>{{8, 3, 2}}), InternalError);
}

TEST(MemoryPlan, AlignmentIsTheTargetsToSay) {
  std::mt19937_64 rng(5);
  const auto buffers = random_lifetimes(rng, 60, 20);
  const ArenaOptions options{.alignment = 256};
  const MemoryPlan plan = plan_memory(buffers, options);
  verify(plan, buffers, options);
  EXPECT_EQ(plan.largest_live_bytes, largest_live_set(buffers, options));
  EXPECT_THROW(verify(plan_memory(buffers), buffers, options), InternalError);
}

TEST(MemoryPlan, RedZonesAreNobodysAtAnyTime) {
  const std::vector<Lifetime> buffers{{100, 0, 1}, {100, 2, 3}, {30, 0, 3}};
  const ArenaOptions options{.red_zone = 40};
  const MemoryPlan plan = plan_memory(buffers, options);
  verify(plan, buffers, options);
  EXPECT_EQ(plan.bytes, 192 + 192 + 128);
  MemoryPlan shared = plan;
  shared.offsets[1] = shared.offsets[0];  // never alive together
  verify(shared, buffers);
  EXPECT_THROW(verify(shared, buffers, options), InternalError);
}

}  // namespace
}  // namespace espalier::pass
