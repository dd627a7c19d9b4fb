// No standard container is touched on a fiber, and this file is not instrumented by the thread sanitizer: its reads and writes
// are the machine's, not the kernel's.
#include "target/cuda/sim/block.h"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "target/cuda/sim/fiber_switch.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

asm(R"(.text
.globl esp_sim_switch
.hidden esp_sim_switch
.type esp_sim_switch,@function
esp_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size esp_sim_switch,.-esp_sim_switch
)");
namespace espalier::target::cuda::sim {
namespace {

constexpr size_t stack_bytes = size_t{64} * 1024, largest_exchange = 16;
constexpr size_t static_shared_bytes = sim_static_shared_bytes;
constexpr int max_arrays = 64;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t gap = 64;  // between shared arrays, not to be touched
#else
constexpr size_t gap = 0;
#endif
constexpr size_t shared_bytes = sim_most_shared_bytes + (max_arrays + 1) * (gap + 16);

struct Index {
  unsigned x, y, z;
};
struct Place {
  Index thread, block, block_dim, grid_dim;
};

enum class State : uint8_t { ready, at_barrier, in_warp, done };

struct Warp {
  alignas(16) unsigned char slot[2][32][largest_exchange];
  unsigned arrived = 0, mask = 0, live = 0;
  int site = 0;
  int round = 0;  // of meetings
  // Of even and odd rounds: who wakes late must not see what the others have done since.
  char* tags = nullptr;
};

struct Fiber {
  void* sp = nullptr;
  char* stack = nullptr;
  Index thread{};
  Warp* warp = nullptr;
  int lane = 0;
  unsigned parity = 0;
  State state = State::done;
  void* sanitizer_fiber = nullptr;
  void* fake_stack = nullptr;
};

struct SharedArray {
  const void* tag;
  char* memory;
};

/// The one multiprocessor: the launch, the block that runs, the thread that runs.
struct Machine {
  const Launch* launch = nullptr;
  Place place{};
  Fiber* fibers = nullptr;  // 1024
  Warp* warps = nullptr;    // 32
  Fiber* current = nullptr;
  int live = 0, waiting = 0;
  int barrier_site = 0;
  const char* failure = nullptr;
  char* shared = nullptr;
  size_t shared_used = 0;
  size_t rest_bytes = 0;  // at the beginning of `shared`: what the launch asked for
  SharedArray arrays[max_arrays];
  int array_count = 0;
  void* scheduler_sp = nullptr;
  void* scheduler_fiber = nullptr;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
  int round = 0;                                                       // of barriers
  char *begin_tag = nullptr, *end_tag = nullptr, *stop_tag = nullptr;  // of the launch
  char* barrier_tags = nullptr;                                        // of the block
  char* stacks = nullptr;  // of the launch, under the thread sanitizer
};
Machine machine;

/// Not Grid::count(): an inline function may become the copy of a file that is instrumented, and this one reads what lies on the host's stack.
int64_t count_of(const Grid& g) { return int64_t{g.x} * g.y * g.z; }

/// Places in time, so that nothing but what the kernel does orders its threads: fresh for every launch, and for every block.
struct Tags {
  explicit Tags(size_t n) : first(static_cast<char*>(std::calloc(n, 1))) {
    if (!first) throw std::bad_alloc();
  }
  ~Tags() { std::free(first); }
  Tags(const Tags&) = delete;
  Tags& operator=(const Tags&) = delete;
  char* first;
};

/// One launch at a time. The thread sanitizer does not see it: it orders no work of two streams.
class MachineLock {
 public:
  MachineLock() {
    while (busy.test_and_set(std::memory_order_acquire)) sched_yield();
  }
  ~MachineLock() { busy.clear(std::memory_order_release); }
  MachineLock(const MachineLock&) = delete;
  MachineLock& operator=(const MachineLock&) = delete;

 private:
  static std::atomic_flag busy;
};
std::atomic_flag MachineLock::busy;

#if ESPALIER_SIM_TSAN
/// Stacks that no launch before has touched.
class FreshStacks {
 public:
  explicit FreshStacks(int64_t threads) : bytes_(stack_bytes * static_cast<size_t>(threads)) {
    void* memory =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    machine.stacks = static_cast<char*>(memory);
  }
  ~FreshStacks() { munmap(machine.stacks, bytes_); }
  FreshStacks(const FreshStacks&) = delete;
  FreshStacks& operator=(const FreshStacks&) = delete;

 private:
  size_t bytes_;
};
#endif

void acquire([[maybe_unused]] char* tag) {
#if ESPALIER_SIM_TSAN
  __tsan_acquire(tag);
#endif
}
void release([[maybe_unused]] char* tag) {
#if ESPALIER_SIM_TSAN
  __tsan_release(tag);
#endif
}

/// Copies and fills that no sanitizer sees as an access.
void copy_bytes(void* to, const void* from, size_t n) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}
void poison_bytes(void* to, size_t n) {
  asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(0xff) : "memory");
}

void to_scheduler([[maybe_unused]] bool for_good) {
  Fiber* f = machine.current;
  release(machine.stop_tag);
#if ESPALIER_SIM_TSAN
  __tsan_switch_to_fiber(machine.scheduler_fiber, 1);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &f->fake_stack, machine.scheduler_stack,
                                 machine.scheduler_stack_bytes);
#endif
  esp_sim_switch(&f->sp, machine.scheduler_sp);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(f->fake_stack, nullptr, nullptr);
#endif
}

void to_fiber(Fiber* f) {
  machine.current = f;
  machine.place.thread = f->thread;
#if ESPALIER_SIM_TSAN
  __tsan_switch_to_fiber(f->sanitizer_fiber, 1);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&machine.scheduler_fake_stack, f->stack, stack_bytes);
#endif
  esp_sim_switch(&machine.scheduler_sp, f->sp);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(machine.scheduler_fake_stack, nullptr, nullptr);
#endif
  machine.current = nullptr;
}

/// The launch ends here; what the threads hold is forgotten.
void fail(const char* reason) {
  if (!machine.current) throw InternalError(std::string("simulated kernel: ") + reason);
  machine.failure = reason;
  to_scheduler(true);
}

void run_fiber() {
  Fiber* f = machine.current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &machine.scheduler_stack, &machine.scheduler_stack_bytes);
#endif
  acquire(machine.begin_tag);
  machine.launch->entry(machine.launch->arguments);
  release(machine.end_tag);
  f->state = State::done;
  --machine.live;
  f->warp->live &= ~(1u << f->lane);
  to_scheduler(true);
  std::abort();  // a finished thread goes on
}

void sync_threads(int site) {
  Fiber* f = machine.current;
  if (!f) fail("a barrier in a kernel that says it has none");
  if (machine.waiting > 0 && machine.barrier_site != site)
    fail("threads of one block wait at different barriers");
  machine.barrier_site = site;
  char* tag = machine.barrier_tags + (machine.round & 1);
  release(tag);
  f->state = State::at_barrier;
  ++machine.waiting;
  to_scheduler(false);
  acquire(tag);
}

void sync_warp(unsigned mask, int site) {
  Fiber* f = machine.current;
  if (!f) fail("a warp operation in a kernel that says it has none");
  Warp* w = f->warp;
  if (!(mask >> f->lane & 1)) fail("a lane is not in its own mask");
  if (w->arrived && w->mask != mask) fail("lanes of a warp pass different masks");
  if (w->arrived && w->site != site) fail("lanes of a warp wait at different places");
  if (mask & ~w->live) fail("a mask names a lane that has ended or never was");
  w->mask = mask;
  w->site = site;
  char* tag = w->tags + (w->round & 1);
  release(tag);
  w->arrived |= 1u << f->lane;
  if (w->arrived == mask) {
    const int64_t n = count_of(machine.launch->block);
    for (int64_t i = 0; i < n; ++i)
      if (Fiber& other = machine.fibers[i]; other.warp == w && other.state == State::in_warp)
        other.state = State::ready;
    w->arrived = 0;
    ++w->round;
  } else {
    f->state = State::in_warp;
    to_scheduler(false);
  }
  acquire(tag);
}

void exchange(unsigned mask, void* value, size_t bytes, int from, int site) {
  Fiber* f = machine.current;
  if (!f) fail("a shuffle in a kernel that says it has none");
  if (bytes > largest_exchange) fail("a shuffle of more than 16 bytes");
  const unsigned side = f->parity++ & 1;
  copy_bytes(f->warp->slot[side][f->lane], value, bytes);
  sync_warp(mask, site);
  if (!(mask >> from & 1)) fail("a shuffle from a lane outside the mask");
  copy_bytes(value, f->warp->slot[side][from], bytes);
}

unsigned ballot(unsigned mask, int predicate, int site) {
  Fiber* f = machine.current;
  if (!f) fail("a ballot in a kernel that says it has none");
  const unsigned side = f->parity++ & 1;
  copy_bytes(f->warp->slot[side][f->lane], &predicate, sizeof predicate);
  sync_warp(mask, site);
  unsigned all = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    int its = 0;
    copy_bytes(&its, f->warp->slot[side][lane], sizeof its);
    if ((mask >> lane & 1) && its) all |= 1u << lane;
  }
  return all;
}

void* shared(size_t bytes, size_t alignment, const void* tag) {
  if (!machine.current) fail("shared memory in a kernel that says its threads do not meet");
  for (int i = 0; i < machine.array_count; ++i)
    if (machine.arrays[i].tag == tag) return machine.arrays[i].memory;
  const size_t step = alignment < 16 ? 16 : alignment, at = (machine.shared_used + step - 1) / step * step;
  const size_t rest = machine.rest_bytes > 0 ? machine.rest_bytes + gap : 0,
               gaps = static_cast<size_t>(machine.array_count) * gap;
  if (at - rest + bytes > static_shared_bytes + gaps || machine.array_count == max_arrays)
    fail("more than 48 KiB of shared memory");
  if (at - rest + bytes - gaps + machine.rest_bytes > sim_most_shared_bytes)
    fail("more shared memory than a device has");
  char* memory = machine.shared + at;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(memory, bytes);
#endif
  poison_bytes(memory, bytes);  // NaN: what was never written shows
  machine.shared_used = at + bytes + gap;
  machine.arrays[machine.array_count++] = {tag, memory};
  return memory;
}

void* shared_rest() {
  if (!machine.current) fail("shared memory in a kernel that says its threads do not meet");
  if (machine.rest_bytes == 0) fail("shared memory that the launch does not ask for");
  return machine.shared;
}

void misaligned(size_t bytes) {
  fail(bytes == 16  ? "a misaligned access of 16 bytes"
       : bytes == 8 ? "a misaligned access of 8 bytes"
                    : "a misaligned access of several elements as one");
}

struct Port {
  const Place* place;
  void (*sync_threads)(int site);
  void (*sync_warp)(unsigned mask, int site);
  void* (*shared)(size_t bytes, size_t alignment, const void* tag);
  void (*exchange)(unsigned mask, void* value, size_t bytes, int from, int site);
  unsigned (*ballot)(unsigned mask, int predicate, int site);
  void* (*shared_rest)();
  void (*misaligned)(size_t bytes);
};
const Port port{&machine.place, sync_threads, sync_warp, shared, exchange, ballot, shared_rest, misaligned};

void map_shared() {
  machine.shared = static_cast<char*>(
      mmap(nullptr, shared_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (machine.shared == MAP_FAILED) throw std::bad_alloc();
}

/// Every block finds shared memory that nobody has touched.
void fresh_shared() {
#if ESPALIER_SIM_TSAN
  if (machine.shared && (machine.array_count > 0 || machine.rest_bytes > 0)) {
    munmap(machine.shared, shared_bytes);
    machine.shared = nullptr;
  }
#endif
  if (!machine.shared) map_shared();
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(machine.shared, shared_bytes);
#endif
  machine.shared_used = 0;
  machine.array_count = 0;
  machine.rest_bytes = static_cast<size_t>(machine.launch->shared_bytes);
  if (machine.rest_bytes == 0) return;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(machine.shared, machine.rest_bytes);
#endif
  poison_bytes(machine.shared, machine.rest_bytes);
  machine.shared_used = machine.rest_bytes + gap;
}

void prepare_fiber(Fiber& f, Index thread, int64_t number) {
#if ESPALIER_SIM_TSAN
  f.stack = machine.stacks + stack_bytes * static_cast<size_t>(number);
#endif
  if (!f.stack) f.stack = static_cast<char*>(std::aligned_alloc(4096, stack_bytes));
  if (!f.stack) throw std::bad_alloc();
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(f.stack, stack_bytes);
#endif
  f.thread = thread;
  f.lane = static_cast<int>(number & 31);
  f.warp = &machine.warps[number >> 5];
  f.warp->live |= 1u << f.lane;
  f.parity = 0;
  f.state = State::ready;
  f.fake_stack = nullptr;
#if ESPALIER_SIM_TSAN
  f.sanitizer_fiber = __tsan_create_fiber(0);
#endif
  void** sp = reinterpret_cast<void**>(f.stack + stack_bytes - 16);
  *--sp = nullptr;  // where run_fiber would return to
  *--sp = reinterpret_cast<void*>(&run_fiber);
  for (int i = 0; i < 6; ++i) *--sp = nullptr;
  f.sp = sp;
}

void end_fibers([[maybe_unused]] int64_t n) {
#if ESPALIER_SIM_TSAN
  for (int64_t i = 0; i < n; ++i) __tsan_destroy_fiber(machine.fibers[i].sanitizer_fiber);
#endif
}

Index index_of(int64_t number, const Grid& g) {
  return {static_cast<unsigned>(number % g.x), static_cast<unsigned>(number / g.x % g.y),
          static_cast<unsigned>(number / g.x / g.y)};
}

std::vector<int64_t> numbers(int64_t n, Order order) {
  std::vector<int64_t> all(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) all[static_cast<size_t>(i)] = order == Order::reverse ? n - 1 - i : i;
  return all;
}

/// Ready threads in turn until all have ended; a barrier opens when every live thread waits at it.
void schedule_block(std::vector<int64_t>& order, std::mt19937_64& rng) {
  while (machine.live > 0) {
    bool progress = false;
    if (machine.launch->order == Order::shuffled) std::shuffle(order.begin(), order.end(), rng);
    for (const int64_t i : order) {
      if (machine.fibers[i].state != State::ready) continue;
      progress = true;
      to_fiber(&machine.fibers[i]);
      if (machine.failure) return;
    }
    if (machine.live > 0 && machine.waiting == machine.live) {
      progress = true;
      machine.waiting = 0;
      ++machine.round;
      for (const int64_t i : order)
        if (machine.fibers[i].state == State::at_barrier) machine.fibers[i].state = State::ready;
    }
    if (!progress) {
      machine.failure = "some threads wait where the others never come";
      return;
    }
  }
}

void run_block_of_fibers(std::vector<int64_t>& order, std::mt19937_64& rng) {
  const Launch& l = *machine.launch;
  const int64_t n = count_of(l.block);
  fresh_shared();
  const Tags tags(2 + 2 * 32);
  machine.barrier_tags = tags.first;
  for (int64_t w = 0; w < (n + 31) / 32; ++w) {
    machine.warps[w] = Warp{};
    machine.warps[w].tags = tags.first + 2 + 2 * w;
  }
  for (int64_t i = 0; i < n; ++i) prepare_fiber(machine.fibers[i], index_of(i, l.block), i);
  machine.live = static_cast<int>(n);
  machine.waiting = 0;
  schedule_block(order, rng);
  end_fibers(n);
  if (machine.failure) {
    acquire(machine.stop_tag);  // what its threads did up to there
    throw InternalError(std::string("simulated kernel: ") + machine.failure);
  }
}

void run_block_plainly(const std::vector<int64_t>& order) {
  for (const int64_t i : order) {
    machine.place.thread = index_of(i, machine.launch->block);
    machine.launch->entry(machine.launch->arguments);
  }
}

}  // namespace

void run_blocks(const Launch& launch) {
  const MachineLock lock;
  const int64_t threads = count_of(launch.block), blocks = count_of(launch.grid);
  if (threads < 1 || threads > 1024) throw InternalError("simulated kernel: a block has 1 to 1024 threads");
  if (launch.shared_bytes < 0 || launch.shared_bytes > sim_most_shared_bytes)
    throw InternalError("simulated kernel: more shared memory than a device has");
  if (!machine.fibers) machine.fibers = new Fiber[1024], machine.warps = new Warp[32];
  machine.launch = &launch;
  machine.failure = nullptr;
  machine.current = nullptr;
  machine.place.block_dim = {launch.block.x, launch.block.y, launch.block.z};
  machine.place.grid_dim = {launch.grid.x, launch.grid.y, launch.grid.z};
#if ESPALIER_SIM_TSAN
  machine.scheduler_fiber = __tsan_get_current_fiber();
  const FreshStacks stacks(threads);
#endif
  const Tags tags(3);
  machine.begin_tag = tags.first;
  machine.end_tag = tags.first + 1;
  machine.stop_tag = tags.first + 2;
  release(machine.begin_tag);
  std::mt19937_64 rng(launch.seed);
  std::vector<int64_t> order = numbers(threads, launch.order), block_order = numbers(blocks, launch.order);
  if (launch.order == Order::shuffled) {
    std::shuffle(block_order.begin(), block_order.end(), rng);
    std::shuffle(order.begin(), order.end(), rng);
  }
  for (const int64_t b : block_order) {
    machine.place.block = index_of(b, launch.grid);
    if (launch.synchronises || ESPALIER_SIM_TSAN) run_block_of_fibers(order, rng);
    else run_block_plainly(order);
  }
  acquire(machine.end_tag);
}

const void* sim_port() { return &port; }

}  // namespace espalier::target::cuda::sim
