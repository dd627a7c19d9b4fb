#include "base/contention.h"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <string>
#include <thread>

#include "base/threads.h"

namespace espalier {
namespace {

/// Feeds a watch a steady rate of switches, a look each window.
struct Clock {
  ContentionWatch watch;
  int64_t now = 1000, switches = 0;

  bool pass(int64_t ms, int64_t per_second) {
    for (const int64_t end = now + ms; now < end;) {
      now += ContentionWatch::window_ms;
      switches += per_second * ContentionWatch::window_ms / 1000;
      watch.look(now, switches);
    }
    return watch.contended();
  }
};

TEST(Contention, HousekeepingIsNoneAndBusyNeighboursAre) {
  Clock quiet, busy;
  EXPECT_FALSE(quiet.pass(60000, 50));
  EXPECT_TRUE(busy.pass(1000, 180));
}

TEST(Contention, OneCrowdedWindowIsNotEnough) {
  Clock c;
  c.pass(1000, 20);
  EXPECT_FALSE(c.pass(ContentionWatch::window_ms, 2000));
  EXPECT_FALSE(c.pass(ContentionWatch::window_ms, 20));
  EXPECT_FALSE(c.pass(ContentionWatch::window_ms, 2000));
}

TEST(Contention, ItIsHeldThenLookedAtAnewAndHeldLongerWhereItStays) {
  Clock c;
  ASSERT_TRUE(c.pass(1000, 200));
  EXPECT_TRUE(c.pass(ContentionWatch::first_hold_ms - 2000, 0)) << "held although nothing is seen";
  EXPECT_FALSE(c.pass(2000, 0)) << "and then looked at anew";
  EXPECT_FALSE(c.pass(30000, 20));

  Clock stays;
  int64_t held = 0, times = 0;
  for (bool before = false; stays.now < 300000;) {
    const bool now = stays.pass(ContentionWatch::window_ms, 200);
    held += now;
    times += now && !before;
    before = now;
  }
  EXPECT_LE(times, 8) << "10 + 20 + 40 + 60 + ... seconds";
  EXPECT_GT(held * ContentionWatch::window_ms, 285000);
}

TEST(Contention, LooksFarApartSayNothing) {
  ContentionWatch w;
  for (int64_t i = 0; i < 20; ++i) EXPECT_FALSE(w.look(i * 5000, i * 100000)) << i;
}

#if ESPALIER_OPENMP

int threads_of_process() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "Threads:") {
      int n = 0;
      status >> n;
      return n;
    }
  return -1;
}

TEST(Contention, EarlySleepAddsATeamAndTakesItAway) {
  const int pool = available_threads();
  if (pool < 2) GTEST_SKIP() << "one processor: no teams";
  parallel_for(pool, [](int64_t) {});
  const int before = threads_of_process();
  {
    const EarlySleep sleep(pool);
    EXPECT_GE(threads_of_process(), before + 2);
    std::atomic<int64_t> sum{0};
    parallel_for(100, [&](int64_t i) { sum += i; });
    EXPECT_EQ(sum, 4950);
  }
  while (threads_of_process() > before) std::this_thread::yield();  // they end by themselves, soon
}

#endif

}  // namespace
}  // namespace espalier
