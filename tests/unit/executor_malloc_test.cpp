// malloc and operator new of this whole program are intercepted: they count, and hand on to the system's. What code inside
// oneDNN's library asks for is counted apart. Sanitizers bring a malloc of their own.
#include <gtest/gtest.h>

#include <link.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/threads.h"
#include "grad/grad.h"
#include "nn/layers.h"
#include "nn/losses.h"
#include "nn/models.h"
#include "nn/optim.h"
#include "op/control.h"
#include "op/elementwise.h"
#include "op/reduction.h"
#include "run/executor.h"
#include "support/plain_target.h"
#include "support/random_program.h"
#include "target/null/null_target.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {
std::atomic<int64_t> allocations{0};          ///< by anyone but oneDNN
std::atomic<int64_t> library_allocations{0};  ///< by code inside oneDNN's library

/// Where oneDNN's code lies in memory.
struct LibraryCode {
  uintptr_t first = 0, end = 0;
  bool holds(const void* at) const {
    const auto p = reinterpret_cast<uintptr_t>(at);
    return p >= first && p < end;
  }
};

int find_library(dl_phdr_info* info, size_t, void* out) {
  if (!std::strstr(info->dlpi_name, "libdnnl")) return 0;
  auto& code = *static_cast<LibraryCode*>(out);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& part = info->dlpi_phdr[i];
    if (part.p_type != PT_LOAD || !(part.p_flags & PF_X)) continue;
    code.first = info->dlpi_addr + part.p_vaddr;
    code.end = code.first + part.p_memsz;
  }
  return 1;
}
LibraryCode library;  ///< filled by the tests that need it

/// Threads wait as libgomp has it: what starts a thread where the machine is busy (base/contention.h) stays out of the counts.
[[maybe_unused]] const int waiting_is_decided = ::setenv("GOMP_SPINCOUNT", "300000", 0);

void count(const void* caller) {
  (library.holds(caller) ? library_allocations : allocations).fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t n) {
  count(__builtin_return_address(0));
  return __libc_malloc(n);
}
void* calloc(size_t n, size_t size) {
  count(__builtin_return_address(0));
  return __libc_calloc(n, size);
}
void* realloc(void* p, size_t n) {
  count(__builtin_return_address(0));
  return __libc_realloc(p, n);
}
void* aligned_alloc(size_t alignment, size_t n) {
  count(__builtin_return_address(0));
  return __libc_memalign(alignment, n);
}
void* memalign(size_t alignment, size_t n) {
  count(__builtin_return_address(0));
  return __libc_memalign(alignment, n);
}
int posix_memalign(void** out, size_t alignment, size_t n) {
  count(__builtin_return_address(0));
  *out = __libc_memalign(alignment, n);
  return *out ? 0 : ENOMEM;
}
}

void* operator new(size_t n) {
  count(__builtin_return_address(0));
  if (void* p = __libc_malloc(n ? n : 1)) return p;
  throw std::bad_alloc();
}
void* operator new[](size_t n) {
  count(__builtin_return_address(0));
  if (void* p = __libc_malloc(n ? n : 1)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { __libc_free(p); }
void operator delete[](void* p) noexcept { __libc_free(p); }
void operator delete(void* p, size_t) noexcept { __libc_free(p); }
void operator delete[](void* p, size_t) noexcept { __libc_free(p); }

namespace espalier::run {
namespace {

int64_t allocations_of_runs(Executor& e, int runs) {
  const int64_t before = allocations.load();
  for (int r = 0; r < runs; ++r) e.run();
  return allocations.load() - before;
}

TEST(ExecutorMemory, TheCounterCounts) {
  const int64_t before = allocations.load();
  void* volatile bytes = std::malloc(100);
  int* volatile number = new int(3);
  std::free(bytes);
  delete number;
  EXPECT_GE(allocations.load() - before, 2);
}

TEST(ExecutorMemory, NothingIsAllocatedFromTheSecondRunOn) {
  std::mt19937_64 rng(31);
  for (int round = 0; round < 5; ++round) {
    const ir::Graph g = test::random_program(rng, {.states = 4, .nodes = 80});
    CompileOptions options;
    options.target = &test::plain_target();
    Executor e(Program::compile_fused(g, options));
    for (const int threads : {1, 2, 3}) {
      set_threads(threads);
      e.run();
      EXPECT_EQ(allocations_of_runs(e, 99), 0) << threads << " threads";
    }
    set_threads(available_threads());
  }
}

/// Training a small dense network on the processor: emitted loops only (oneDNN allocates inside each of its calls).
TEST(ExecutorMemory, ATrainingStepOfEmittedLoopsAllocatesNothing) {
  nn::Init init(1);
  nn::Linear layer(10, 1, init);
  nn::Adam adam(parameters_of(layer), {.rate = 0.1});
  Compiled step = espalier::compile([&](const std::vector<Tensor>& in) {
    const Tensor loss = nn::mse(layer(in[0]), in[1]);
    adam.minimise(loss);
    return std::vector<Tensor>{loss};
  });
  espalier::Step& s = step.step(std::vector<ir::Type>{{ir::Dtype::f32, {32, 10}}, {ir::Dtype::f32, {32, 1}}});
  for (const run::Step& call : s.program().steps()) EXPECT_EQ(call.kernel->name(), "loops") << call.op;
  s.run();
  EXPECT_EQ(allocations_of_runs(s.executor(), 99), 0);
}

/// A loop forwards and backwards: a branch and an inner loop in its body. Emitted loops only.
TEST(ExecutorMemory, NestedControlFlowAllocatesNothing) {
  const ir::Value h = ir::new_input("h", {ir::Dtype::f32, {40, 50}}),
                  x = ir::new_input("x", {ir::Dtype::f32, {6, 40, 50}});
  const std::vector<ir::Type> two{h.type(), h.type()};
  using Values = std::vector<ir::Value>;
  const auto tanh_sum =
      op::body_graph("tanh", two, [](const Values& in) { return Values{op::tanh(op::add(in[0], in[1]))}; });
  const auto row_product = op::body_graph("rows", std::vector<ir::Type>(2, {ir::Dtype::f32, {50}}),
                                          [](const Values& in) { return Values{op::mul(in[0], in[1])}; });
  const auto product =
      op::body_graph("product", two, [](const Values& in) { return Values{op::mul(in[0], in[1])}; });
  const auto body = op::body_graph("step", two, [&](const Values& in) {
    const ir::Value sum = op::reduce_sum(in[1], {0, 1});
    const ir::Value next = op::cond(op::gt(sum, ir::constant(ir::Dtype::f32, 0)), tanh_sum, product, in)[0];
    return Values{next,
                  op::scan({.body = row_product, .carries = 1, .slices = 1, .length = 40, .reverse = false},
                           {op::reduce_sum(next, {0}), in[1]})[0]};
  });
  const std::vector<ir::Value> out =
      op::scan({.body = body, .carries = 1, .slices = 1, .length = 6, .reverse = false}, {h, x});
  const ir::Value loss = op::add(op::reduce_sum(out[0], {0, 1}), op::reduce_sum(out[1], {0, 1}));
  ir::Graph g{.name = "loops",
              .level = ir::Level::tensor,
              .inputs = {h, x},
              .outputs = {{"loss", loss}},
              .state = {},
              .info = {}};
  for (const ir::Value& v : autodiff::gradient(loss, std::vector{h, x}))
    g.outputs.push_back({"d" + std::to_string(g.outputs.size()), v});
  Executor e(Program::compile(g));
  e.run();
  EXPECT_EQ(allocations_of_runs(e, 99), 0);
}

/// Whole training steps of a convolutional network. oneDNN builds a table of arguments in each call of its own: the same number
/// in every step, and nothing besides.
TEST(ExecutorMemory, ATrainingStepOfAConvolutionalNetworkAllocatesNothingOutsideTheLibrary) {
  for (const char* precision : {"f32", "bf16"}) {
    nn::Init init(2);
    nn::UNet net(3, 1, init, 16);
    nn::Adam adam(parameters_of(net), {.rate = 1e-3});
    Compiled step = espalier::compile(
        [&](const std::vector<Tensor>& in) {
          const Tensor loss = nn::bce_with_logits(net(in[0], nn::Mode::train), in[1]);
          adam.minimise(loss);
          return std::vector<Tensor>{loss};
        },
        {.precision = precision});
    espalier::Step& s =
        step.step(std::vector<ir::Type>{{ir::Dtype::f32, {2, 64, 64, 3}}, {ir::Dtype::f32, {2, 64, 64, 1}}});
    for (const run::Step& call : s.program().steps()) EXPECT_NE(call.kernel->name(), "reference") << call.op;
    s.run();
    dl_iterate_phdr(find_library, &library);
    ASSERT_GT(library.end, library.first) << "oneDNN is not loaded";
    library_allocations = 0;
    EXPECT_EQ(allocations_of_runs(s.executor(), 1), 0) << precision;
    const int64_t per_step = library_allocations.exchange(0);
    EXPECT_EQ(allocations_of_runs(s.executor(), 98), 0) << precision;
    EXPECT_EQ(library_allocations.load(), 98 * per_step) << precision;
    EXPECT_GT(per_step, 0) << "no call of oneDNN: the test sees nothing";
  }
}

TEST(ExecutorMemory, AnExecutorMakesOneAllocationForAllItsBuffers) {
  std::mt19937_64 rng(32);
  const ir::Graph g = test::random_program(rng, {.nodes = 40});
  CompileOptions options;
  options.target = &target::null::null_target();
  const auto program = Program::compile_fused(g, options);
  const Executor e(program);
  const MemoryUse& m = program->memory();
  const auto slots = static_cast<int64_t>(program->inputs().size() + program->outputs().size());
  EXPECT_GE(e.allocated_bytes(), m.arena + m.inputs + m.outputs + m.state);
  EXPECT_LE(e.allocated_bytes(), m.arena + m.inputs + m.outputs + m.state + 64 * (slots + 2));
}

}  // namespace
}  // namespace espalier::run

#endif
