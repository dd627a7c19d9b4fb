#include "base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace espalier {
namespace {

TEST(PoolThreads, RunsEveryChunkOnce) {
  std::vector<std::atomic<int>> calls(257);
  parallel_for(257, [&](int64_t i) { calls[static_cast<size_t>(i)].fetch_add(1); });
  for (const std::atomic<int>& count : calls) EXPECT_EQ(count.load(), 1);
}

TEST(PoolThreads, NestedCallsRunInline) {
  std::atomic<int> calls = 0;
  parallel_for(8, [&](int64_t) { parallel_for(8, [&](int64_t) { calls.fetch_add(1); }); });
  EXPECT_EQ(calls.load(), 64);
}

TEST(PoolThreads, ThrowsTheFirstExceptionByChunkAfterAllEnded) {
  std::atomic<int> calls = 0;
  try {
    parallel_for(16, [&](int64_t i) {
      calls.fetch_add(1);
      if (i % 5 == 3) throw std::runtime_error("chunk " + std::to_string(i));
    });
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "chunk 3");
  }
  EXPECT_EQ(calls.load(), 16);
}

}  // namespace
}  // namespace espalier
