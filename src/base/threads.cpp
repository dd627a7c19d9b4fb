#include "base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>

#include "base/error.h"

#if ESPALIER_OPENMP
#include <omp.h>
#else
#include <thread>
#include <vector>
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

void set_threads(int count) {
  if (count < 1 || count > 1024)
    throw UserError({"number of threads", "out of range", std::to_string(count), "1 to 1024"});
  threads_in_use.store(count, std::memory_order_relaxed);
}

void parallel_chunks(int64_t chunks, ChunkFn fn, void* context) {
  if (chunks <= 0) return;
  const int threads = static_cast<int>(std::min<int64_t>(pool_threads(), chunks));
  if (threads == 1 || inside_pool) {
    for (int64_t i = 0; i < chunks; ++i) fn(context, i);
    return;
  }
  const std::lock_guard lock(pool_mutex);
  Failure failure;
#if ESPALIER_OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t i = 0; i < chunks; ++i) {
    inside_pool = true;
    run_guarded(fn, context, i, failure);
    inside_pool = false;
  }
#else
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    inside_pool = true;
    for (int64_t i = next.fetch_add(1); i < chunks; i = next.fetch_add(1)) run_guarded(fn, context, i, failure);
    inside_pool = false;
  };
  std::vector<std::thread> team;
  for (int i = 1; i < threads; ++i) team.emplace_back(work);
  work();
  for (std::thread& t : team) t.join();
#endif
  failure.rethrow();
}

}  // namespace espalier
