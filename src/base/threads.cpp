#include "base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>

#include "base/align.h"
#include "base/contention.h"
#include "base/error.h"

#if ESPALIER_OPENMP
#include <omp.h>
#else
#include <condition_variable>
#include <thread>
#endif

namespace espalier {

namespace {

/// CPUs the cgroup's quota allows (v2, then v1), or 0 for no limit.
int cgroup_limit() {
  if (std::ifstream f("/sys/fs/cgroup/cpu.max"); f) {
    std::string quota;
    double period = 0;
    if (f >> quota >> period && quota != "max" && period > 0)
      return std::max(1, static_cast<int>(std::ceil(std::stod(quota) / period)));
  }
  std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double quota = 0, period = 0;
  if (q >> quota && p >> period && quota > 0 && period > 0)
    return std::max(1, static_cast<int>(std::ceil(quota / period)));
  return 0;
}

std::atomic<int> threads_in_use{0};
std::mutex pool_mutex;
thread_local bool inside_pool = false;
thread_local int team_of_libraries = 0;  ///< what this thread told OpenMP; 0 = nothing yet

void set_team_of_libraries(int threads) {
  if (team_of_libraries == threads) return;
  team_of_libraries = threads;
#if ESPALIER_OPENMP
  omp_set_num_threads(threads);
#endif
}

/// The first failure by chunk order.
class Failure {
 public:
  void keep(int64_t chunk) {
    const std::lock_guard lock(mutex_);
    if (error_ && chunk >= chunk_) return;
    chunk_ = chunk;
    error_ = std::current_exception();
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  int64_t chunk_ = 0;
  std::exception_ptr error_;
};

void run_guarded(ChunkFn fn, void* context, int64_t chunk, Failure& failure) {
  try {
    fn(context, chunk);
  } catch (...) {
    failure.keep(chunk);
  }
}

}  // namespace

int available_threads() {
  static const int count = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    int n = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    if (const int limit = cgroup_limit(); limit > 0) n = std::min(n, limit);
    return std::max(1, n);
  }();
  return count;
}

int pool_threads() {
  const int n = threads_in_use.load(std::memory_order_relaxed);
  return n > 0 ? n : available_threads();
}

int team_threads() { return inside_pool ? 1 : pool_threads(); }

void set_threads(int count) {
  if (count < 1 || count > 1024)
    throw UserError({"number of threads", "out of range", std::to_string(count), "1 to 1024"});
  threads_in_use.store(count, std::memory_order_relaxed);
}

void leave_signals_to_others() {
  sigset_t set;
  sigfillset(&set);
  for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) sigdelset(&set, own);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

PoolScope::PoolScope(bool parallel) : alone_(!parallel && !inside_pool) {
  if (inside_pool) return;
  set_team_of_libraries(parallel ? pool_threads() : 1);
  if (alone_) inside_pool = true;
}

void PoolScope::end() {
  inside_pool = false;
  set_team_of_libraries(pool_threads());
}

namespace {

/// Chunks that a team shares out among itself. Each member first takes its own range, which is the same in every call of as many
/// chunks and the one a static OpenMP loop (oneDNN's) would give it: what it wrote in one step of a program it reads in the next from its
/// own caches. Then it helps the others.
class Job {
 public:
  Job(ChunkFn fn, void* context, int64_t chunks, int threads)
      : fn_(fn),
        context_(context),
        ranges_(static_cast<int>(std::min<int64_t>({chunks, threads, max_ranges}))) {
    for (int r = 0; r < ranges_; ++r) {
      range_[r].next.store(first_of(r, chunks), std::memory_order_relaxed);
      range_[r].end = first_of(r + 1, chunks);
    }
  }

  void work(int member) {
    inside_pool = true;
    for (int r = 0; r < ranges_; ++r) {
      Range& range = range_[(member + r) % ranges_];
      while (range.next.load(std::memory_order_relaxed) < range.end) {
        const int64_t i = range.next.fetch_add(1, std::memory_order_relaxed);
        if (i < range.end) run_guarded(fn_, context_, i, failure);
      }
    }
    inside_pool = false;
  }

  Failure failure;

 private:
  static constexpr int64_t max_ranges = 64;
  struct alignas(cache_line) Range {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  int64_t first_of(int range, int64_t chunks) const {
    return chunks / ranges_ * range + std::min<int64_t>(range, chunks % ranges_);
  }

  ChunkFn fn_;
  void* context_;
  int ranges_;
  static Range range_[max_ranges];  // of the one job there is at a time (pool_mutex)
};
Job::Range Job::range_[max_ranges];

#if ESPALIER_OPENMP

void run_in_team(int threads, Job& job) {
#pragma omp parallel num_threads(threads)
  {
    static thread_local bool signals_left = false;
    if (!signals_left && omp_get_thread_num() > 0) {
      leave_signals_to_others();
      signals_left = true;
    }
    job.work(omp_get_thread_num());
  }
}

#else

/// Threads that wait for jobs and live as long as the process.
class Team {
 public:
  void run(int threads, Job& job) {
    {
      const std::lock_guard lock(mutex_);
      for (; workers_ < threads - 1; ++workers_) std::thread([this, me = workers_] { serve(me); }).detach();
      job_ = &job;
      helpers_ = busy_ = threads - 1;
      ++generation_;
    }
    begin_.notify_all();
    job.work(0);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return busy_ == 0; });
    job_ = nullptr;
  }

 private:
  void serve(int me) {
    leave_signals_to_others();
    int64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      begin_.wait(lock, [&] { return generation_ != seen && job_ != nullptr; });
      seen = generation_;
      if (me >= helpers_) continue;
      Job& job = *job_;
      lock.unlock();
      job.work(me + 1);
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable begin_, done_;
  Job* job_ = nullptr;
  int64_t generation_ = 0;
  int workers_ = 0, helpers_ = 0, busy_ = 0;
};

void run_in_team(int threads, Job& job) {
  static Team* team = new Team;  // its threads may outlive static destruction
  team->run(threads, job);
}

#endif

}  // namespace

void parallel_chunks(int64_t chunks, ChunkFn fn, void* context) {
  if (chunks <= 0) return;
  // The whole pool takes part, also where there are fewer chunks: libgomp ends the threads that a smaller team leaves out.
  const int threads = pool_threads();
  if (threads == 1 || chunks == 1 || inside_pool) {
    for (int64_t i = 0; i < chunks; ++i) fn(context, i);
    return;
  }
  const std::lock_guard lock(pool_mutex);
  Job job(fn, context, chunks, threads);
  run_in_team(threads, job);
  note_team_work(threads);
  job.failure.rethrow();
}

}  // namespace espalier
