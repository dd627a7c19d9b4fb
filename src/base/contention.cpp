#include "base/contention.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <optional>
#include <thread>

#include "base/threads.h"

namespace espalier {

bool ContentionWatch::look(int64_t now_ms, int64_t switches) {
  const int64_t past = now_ms - from_ms_;
  if (from_ms_ >= 0 && past < window_ms) return contended_;
  const bool known = from_ms_ >= 0 && past <= gap_ms;
  const bool crowded = known && (switches - from_switches_) * 1000 > crowded_per_second * past;
  from_ms_ = now_ms;
  from_switches_ = switches;
  if (contended_) {
    if (now_ms < until_ms_) return true;
    contended_ = false;
    calm_since_ms_ = now_ms;
    crowded_windows_ = 0;
    return false;
  }
  crowded_windows_ = crowded ? crowded_windows_ + 1 : 0;
  if (crowded_windows_ < 2) return false;
  const bool at_once = now_ms - calm_since_ms_ < 8 * window_ms;  // it never went away
  hold_ms_ = calm_since_ms_ > 0 && at_once ? std::min(2 * hold_ms_, last_hold_ms) : first_hold_ms;
  until_ms_ = now_ms + hold_ms_;
  contended_ = true;
  return true;
}

#if ESPALIER_OPENMP

namespace {

constexpr int most_keepers = 16;

/// Processors that libgomp compares its threads with: the affinity mask alone.
int affinity_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

}  // namespace

struct EarlySleep::Keeper {
  explicit Keeper(int threads) : thread([this, threads] { serve(threads); }) {}

  void serve(int threads) {
    leave_signals_to_others();
#pragma omp parallel num_threads(threads)
    leave_signals_to_others();
    std::unique_lock lock(mutex);
    begun = true;
    changed.notify_all();
    changed.wait(lock, [&] { return ended; });
  }

  void wait_begun() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return begun; });
  }

  void end() {
    {
      const std::lock_guard lock(mutex);
      ended = true;
    }
    changed.notify_all();
    thread.join();
  }

  std::mutex mutex;
  std::condition_variable changed;
  bool begun = false, ended = false;
  std::thread thread;
};

EarlySleep::EarlySleep(int pool_threads) {
  // One more than the processors in all; the keeper's own thread counts for none, each that joins it for one.
  const int threads = std::max(2, affinity_processors() - pool_threads + 2);
  if (threads > most_keepers) return;
  keeper_ = std::make_unique<Keeper>(threads);
  keeper_->wait_begun();
}

EarlySleep::~EarlySleep() {
  if (keeper_) keeper_->end();
}

namespace {

int64_t coarse_ms() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return int64_t{t.tv_sec} * 1000 + t.tv_nsec / 1000000;
}

int64_t involuntary_switches() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nivcsw;
}

struct Watched {
  ContentionWatch watch;
  std::optional<EarlySleep> answer;
  int64_t calls = 0, next_ms = 0;
  const bool decided = std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr;
};

}  // namespace

void note_team_work(int pool_threads) {
  static Watched& w = *new Watched;  // its thread may outlive static destruction
  constexpr int64_t calls_per_look = 16;
  if (w.decided || ++w.calls % calls_per_look != 0) return;
  const int64_t now = coarse_ms();
  if (now < w.next_ms) return;
  w.next_ms = now + ContentionWatch::window_ms;
  const bool contended = w.watch.look(now, involuntary_switches());
  if (contended && !w.answer) w.answer.emplace(pool_threads);
  if (!contended && w.answer) w.answer.reset();
}

#else

struct EarlySleep::Keeper {};
EarlySleep::EarlySleep(int) {}
EarlySleep::~EarlySleep() = default;
void note_team_work(int) {}

#endif

}  // namespace espalier
