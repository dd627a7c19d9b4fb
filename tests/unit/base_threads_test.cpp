#include "base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <latch>
#include <stdexcept>
#include <thread>
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

TEST(PoolThreads, TakeNoSignalsOfTheProcess) {
  const int before = pool_threads();
  set_threads(2);
  std::latch both(2);  // so that each thread has one chunk
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> workers = 0;
  parallel_for(2, [&](int64_t) {
    both.arrive_and_wait();
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
    const bool worker = std::this_thread::get_id() != caller;
    workers += worker;
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) EXPECT_EQ(sigismember(&blocked, signal), worker);
    EXPECT_EQ(sigismember(&blocked, SIGSEGV), 0) << "a fault must still be reported";
  });
  EXPECT_EQ(workers, 1);
  set_threads(before);
}

TEST(PoolThreads, AScopeKeepsLibrariesOnItsThread) {
  EXPECT_EQ(team_threads(), pool_threads());
  {
    const PoolScope alone(false);
    EXPECT_EQ(team_threads(), 1);
    const PoolScope inner(true);
    EXPECT_EQ(team_threads(), 1);
  }
  EXPECT_EQ(team_threads(), pool_threads());
  std::atomic<int> most{0};
  parallel_for(4, [&](int64_t) {
    if (team_threads() > 1) ++most;
  });
  EXPECT_EQ(most.load(), 0);
}

}  // namespace
}  // namespace espalier
