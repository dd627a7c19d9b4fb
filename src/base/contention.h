#pragma once
// Threads of a team wait for each other in a busy loop, since waking one that sleeps costs more than most kernels take. Where
// other processes want the same processors that is the wrong way round: a thread that was put aside for some milliseconds is waited
// for by others that keep busy the very processor it needs. Here that is noticed and answered.
#include <cstdint>
#include <memory>

namespace espalier {

/// Decides from counts of involuntary context switches whether the processors are contended. Not thread-safe.
///
/// Two windows in a row with more than `crowded_per_second` say yes; since a team that sleeps early is seldom put aside, the
/// count says little from then on: after a hold the answer is no again, to look anew, and each further yes holds twice as long.
class ContentionWatch {
 public:
  static constexpr int64_t window_ms = 250, gap_ms = 1000, first_hold_ms = 10000, last_hold_ms = 60000;
  /// An idle machine's housekeeping is at 50 on two processors, one busy process beside two threads at 180 and more.
  static constexpr int64_t crowded_per_second = 110;

  /// `now_ms` on any steady clock, `switches` of the whole process so far; calls further apart than `gap_ms` say nothing.
  bool look(int64_t now_ms, int64_t switches);
  bool contended() const { return contended_; }

 private:
  int64_t from_ms_ = -1, from_switches_ = 0;
  int64_t until_ms_ = 0, hold_ms_ = first_hold_ms, calm_since_ms_ = 0;
  int crowded_windows_ = 0;
  bool contended_ = false;
};

/// While it lives, teams of libgomp on all processors soon sleep where they wait, as they do where there are more threads than processors:
/// a team is added that does nothing. Has no effect where it would take many threads.
class EarlySleep {
 public:
  explicit EarlySleep(int pool_threads);
  ~EarlySleep();
  EarlySleep(const EarlySleep&) = delete;
  EarlySleep& operator=(const EarlySleep&) = delete;

 private:
  struct Keeper;
  std::unique_ptr<Keeper> keeper_;
};

/// To be called, by one thread at a time, after work on a team of `pool_threads`: looks now and then, and has teams sleep early while
/// the processors are contended. Does nothing where OMP_WAIT_POLICY or GOMP_SPINCOUNT is set: the user has decided.
void note_team_work(int pool_threads);

}  // namespace espalier
