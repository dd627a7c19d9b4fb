// Not instrumented by the thread sanitizer: it is told what the stream does.
#include "target/cuda/sim/stream_work.h"

#include <sys/mman.h>

#include <cstdlib>
#include <exception>
#include <new>

#include "target/cuda/sim/fiber_switch.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace espalier::target::cuda::sim {

namespace {

void note_read([[maybe_unused]] const void* at, [[maybe_unused]] size_t bytes) {
#if ESPALIER_SIM_TSAN
  __tsan_read_range(const_cast<void*>(at), bytes);
#endif
}
void note_write([[maybe_unused]] void* at, [[maybe_unused]] size_t bytes) {
#if ESPALIER_SIM_TSAN
  __tsan_write_range(at, bytes);
#endif
}

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};
void do_copy(void* argument) {
  Copy c = *static_cast<Copy*>(argument);
  note_read(c.from, c.bytes);
  note_write(c.to, c.bytes);
  asm volatile("rep movsb" : "+D"(c.to), "+S"(c.from), "+c"(c.bytes) : : "memory");
}

struct Fill {
  void* to;
  unsigned char byte;
  size_t bytes;
};
void do_fill(void* argument) {
  const Fill f = *static_cast<Fill*>(argument);
  note_write(f.to, f.bytes);
  set_bytes(f.to, f.byte, f.bytes);
}

/// A launch with memory of its own: kernels read their arguments as the stream, so the stream gives them back.
struct LaunchWork {
  Launch launch;
  const uint64_t* arguments;
  size_t count;
  char problem[512];
};
void do_launch(void* argument) {
  LaunchWork& w = *static_cast<LaunchWork*>(argument);
  auto* values = static_cast<uint64_t*>(std::malloc((w.count + 1) * sizeof(uint64_t)));
  auto** places = static_cast<void**>(std::malloc((w.count + 1) * sizeof(void*)));
  for (size_t i = 0; i < w.count; ++i) {
    values[i] = w.arguments[i];
    places[i] = &values[i];
  }
  w.launch.arguments = places;
  try {
    run_blocks(w.launch);
  } catch (const std::exception& e) {
    size_t n = 0;
    for (const char* c = e.what(); *c && n + 1 < sizeof w.problem; ++c) w.problem[n++] = *c;
    w.problem[n] = '\0';
  }
  std::free(places);
  std::free(values);
}

}  // namespace

TimeTag::TimeTag() : tag_(static_cast<char*>(std::malloc(1))) {}
TimeTag::~TimeTag() { std::free(tag_); }
void TimeTag::acquire() const {
#if ESPALIER_SIM_TSAN
  __tsan_acquire(tag_);
#endif
}
void TimeTag::release() const {
#if ESPALIER_SIM_TSAN
  __tsan_release(tag_);
#endif
}

#if ESPALIER_SIM_TSAN
/// A stream runs on a stack of its own, whose memory the host never uses.
struct StreamWorker::Stack {
  static constexpr size_t bytes = size_t{1} << 18;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  void* fiber = __tsan_create_fiber(0);
  void* sp = nullptr;
  void *host_sp = nullptr, *host_fiber = nullptr;
  void (*work)(void*) = nullptr;
  void* argument = nullptr;

  Stack() {
    if (memory == MAP_FAILED) throw std::bad_alloc();
    void** top = reinterpret_cast<void**>(static_cast<char*>(memory) + bytes - 16);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&serve);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    sp = top;
  }
  ~Stack() {
    __tsan_destroy_fiber(fiber);
    munmap(memory, bytes);
  }
  void enter() {
    host_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber, 1);
  }
  void leave() { __tsan_switch_to_fiber(host_fiber, 1); }

  static thread_local Stack* starting;
  static void serve() {
    Stack* self = starting;
    for (;;) {
      self->work(self->argument);
      esp_sim_switch(&self->sp, self->host_sp);
    }
  }
};

thread_local StreamWorker::Stack* StreamWorker::Stack::starting = nullptr;

void StreamWorker::acquire(const TimeTag& tag) {
  stack_->enter();
  tag.acquire();
  stack_->leave();
}
void StreamWorker::release(const TimeTag& tag) {
  stack_->enter();
  tag.release();
  stack_->leave();
}
void StreamWorker::run(void (*work)(void*), void* argument) {
  stack_->work = work;
  stack_->argument = argument;
  Stack::starting = stack_.get();
  stack_->enter();
  esp_sim_switch(&stack_->host_sp, stack_->sp);
  stack_->leave();
}
#else
struct StreamWorker::Stack {};
void StreamWorker::acquire(const TimeTag&) {}
void StreamWorker::release(const TimeTag&) {}
void StreamWorker::run(void (*work)(void*), void* argument) { work(argument); }
#endif

StreamWorker::StreamWorker() : stack_(std::make_unique<Stack>()) {}
StreamWorker::~StreamWorker() = default;

void StreamWorker::copy(void* to, const void* from, size_t bytes) {
  Copy c{to, from, bytes};
  run(do_copy, &c);
}

void StreamWorker::fill(void* to, unsigned char byte, size_t bytes) {
  Fill f{to, byte, bytes};
  run(do_fill, &f);
}

std::string StreamWorker::launch(Launch launch, const uint64_t* arguments, size_t count) {
  LaunchWork w{launch, arguments, count, ""};
  run(do_launch, &w);
  return w.problem;
}

void set_bytes(void* to, unsigned char byte, size_t bytes) {
  asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(byte) : "memory");
}

bool all_bytes(const void* at, unsigned char byte, size_t bytes) {
  const auto* c = static_cast<const unsigned char*>(at);
  for (size_t i = 0; i < bytes; ++i)
    if (c[i] != byte) return false;
  return true;
}

void forbid([[maybe_unused]] void* at, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(at, bytes);
#endif
}

void allow([[maybe_unused]] void* at, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(at, bytes);
#endif
}

}  // namespace espalier::target::cuda::sim
