// Programs whose buffers are allocations of their own (CompileOptions::apart), at places that no more than their records need is aligned:
// faults that one arena hides, and what verifiers of records find.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "op/control.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "run/device_executor.h"
#include "run/record_needs.h"
#include "support/errors.h"
#include "support/graph_of.h"
#include "support/seeded_target.h"
#include "target/cuda/sim/sim_driver.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
using ir::Graph;
using ir::Value;
using Values = std::vector<Value>;
using target::cuda::sim::make_sim_device;
using target::cuda::sim::SimDriver;
using test::graph_of;
using testing::HasSubstr;

/// y = -tanh(-x) of 64 elements, with tanh by the seeded kernel between two buffers of the arena.
Graph around_seeded() {
  const Value x = ir::new_input("x", {Dtype::f32, {64}});
  return graph_of({x}, {op::neg(op::tanh(op::neg(x)))});
}

struct How {
  bool apart = false;
  uint64_t offsets = 0;
};

std::shared_ptr<const run::Program> compiled(const Graph& g, const target::Target& target, const How& how) {
  run::CompileOptions options;
  options.target = &target;
  options.disabled = {"fuse_loops"};
  options.apart = how.apart;
  options.offsets = how.offsets;
  return run::Program::compile(g, options);
}

/// Runs it with ones; what the device says, or "".
std::string words_of(const target::cuda::CallList& list, const How& how, const Graph& g = around_seeded()) {
  const test::SeededTarget target(list);
  try {
    run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(compiled(g, target, how), make_sim_device()));
    std::fill_n(static_cast<float*>(e.input(0)), 64, 1.0f);
    e.run();
  } catch (const target::DeviceError& error) {
    return error.what();
  }
  return "";
}

TEST(Apart, AStorePastABufferOfTheArenaIsFound) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the address sanitizer stops at the store";
#endif
  const auto list = test::seeded_list(
      "K_KERNEL(seeded, 64)(const float* __restrict__ x, float* __restrict__ y) { y[threadIdx.x + 1] = "
      "x[threadIdx.x]; }\n");
  EXPECT_EQ(words_of(list, {}), "") << "an arena hides it";
  for (const uint64_t offsets : {0ul, 7ul})
    EXPECT_THAT(words_of(list, {true, offsets}), testing::AllOf(HasSubstr("kernel seeded, operand 1: "),
                                                                HasSubstr("was written past its end")));
}

TEST(Apart, ALoadPastABufferOfTheArenaDiesUnderTheSanitizer) {
#if !defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the address sanitizer sees loads";
#else
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto list = test::seeded_list(
      "K_KERNEL(seeded, 64)(const float* __restrict__ x, float* __restrict__ y) { y[threadIdx.x] = "
      "x[threadIdx.x + "
      "1]; }\n");
  EXPECT_EQ(words_of(list, {}), "") << "an arena hides it";
  EXPECT_DEATH(words_of(list, {true, 0}), "use-after-poison");
#endif
}

/// A kernel that moves 16 bytes at once and says that it moves 4, over buffers that no other record names.
TEST(Apart, MoreAlignmentThanARecordStatesIsFound) {
  const std::string text = R"(
K_KERNEL(seeded, 64)(const float* __restrict__ x, float* __restrict__ y) {
  if (threadIdx.x < 16) esp_store<4>(y + 4 * threadIdx.x, esp_load<4>(x + 4 * threadIdx.x));
}
)";
  const Value x = ir::new_input("x", {Dtype::f32, {64}});
  const Graph alone = graph_of({x}, {op::tanh(x)});
  const auto words = [&](std::vector<int64_t> alignment, const How& how) {
    return words_of(test::seeded_list(text, std::move(alignment)), how, alone);
  };
  EXPECT_EQ(words({4, 4}, {}), "") << "slots are aligned";
  EXPECT_EQ(words({4, 4}, {true, 0}), "");
  for (const uint64_t offsets : {1ul, 2ul, 3ul}) {
    EXPECT_EQ(words({16, 16}, {true, offsets}), "");
    EXPECT_THAT(words({4, 16}, {true, offsets}), HasSubstr("misaligned access of 16"));
    EXPECT_THAT(words({16, 4}, {true, offsets}), HasSubstr("misaligned access of 16"));
  }
}

std::string internal_error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const InternalError& e) {
    return e.what();
  }
  return "no error";
}

/// Rows of 20 bytes are aligned by 4, and what a loop in the body reads of them, too.
TEST(Apart, RecordsThatNeedMoreThanThePlanGivesAreRefused) {
  const auto plan = [](std::vector<int64_t> alignment) {
    const test::SeededTarget target(test::seeded_list(
        "K_KERNEL(seeded, 64)(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }\n",
        std::move(alignment)));
    const Value x = ir::new_input("x", {Dtype::f32, {3, 5}}), h = ir::new_input("h", {Dtype::f32, {5}});
    const ir::GraphRef inner = op::body_graph("inner", std::vector{h.type(), h.type()}, [](const Values& in) {
      return Values{op::add(op::tanh(in[1]), in[0])};
    });
    const ir::GraphRef body = op::body_graph("row", std::vector{h.type(), h.type()}, [&](const Values& in) {
      return op::scan({.body = inner, .carries = 1, .slices = 0, .length = 2, .reverse = false},
                      {in[0], in[1]});
    });
    const Graph g = graph_of(
        {h, x}, op::scan({.body = body, .carries = 1, .slices = 1, .length = 3, .reverse = false}, {h, x}));
    return internal_error_of([&] { compiled(g, target, {}); });
  };
  EXPECT_EQ(plan({4, 4}), "no error");
  EXPECT_THAT(plan({8, 4}), HasSubstr("need 8 bytes of alignment of input"));
  EXPECT_EQ(plan({4, 64}), "no error") << "what tanh gives lies in the arena";
  EXPECT_THAT(plan({4, 512}), HasSubstr("need 512 bytes of alignment of arena"));
}

/// A branch reads four of the five elements of a row that a loop walks: not as one, though four neighbours could be.
TEST(Apart, ABranchKnowsHowTheRowsOfALoopAreAligned) {
  const Value x = ir::new_input("x", {Dtype::f32, {3, 5}}), h = ir::new_input("h", {Dtype::f32, {4}});
  const ir::Type row{Dtype::f32, {5}};
  const auto four = [](const Value& v) { return op::slice(v, {0}, {4}); };
  const ir::GraphRef once = op::body_graph("once", std::vector{row},
                                           [&](const Values&in) { return Values{four(in[0])}; }),
                     twice = op::body_graph("twice", std::vector{row}, [&](const Values&in) {
                       return Values{op::mul(four(in[0]), 2.0)};
                     });
  const ir::GraphRef body = op::body_graph("row", std::vector{h.type(), row}, [&](const Values& in) {
    const Value positive = op::gt(op::reduce_max(in[0], {0}), ir::constant(Dtype::f32, 0));
    const Value next = op::add(in[0], op::cond(positive, once, twice, {in[1]})[0]);
    return Values{next, op::mul(next, 2.0)};
  });
  const Graph g = graph_of(
      {h, x}, op::scan({.body = body, .carries = 1, .slices = 1, .length = 3, .reverse = false}, {h, x}));
  const std::vector<Array> inputs{Array::full(Dtype::f32, {4}, 0.5), Array::full(Dtype::f32, {3, 5}, 0.25)};
  const std::vector<Array> want = target::reference::evaluate(g, inputs);
  for (const How how : {How{}, How{true, 0}, How{true, 5}}) {
    run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(
        compiled(g, target::cuda::cuda_target(90), how), make_sim_device()));
    for (size_t i = 0; i < 2; ++i)
      std::memcpy(e.input(i), inputs[i].data(), static_cast<size_t>(inputs[i].bytes()));
    const run::Ticket t = e.run();
    for (size_t o = 0; o < want.size(); ++o)
      for (int64_t i = 0; i < want[o].size(); ++i)
        EXPECT_NEAR(static_cast<const float*>(e.output(t, o))[i], want[o].at(i), 1e-4);
  }
}

TEST(Apart, AnInPlaceResultOfARestrictedParameterIsRefused) {
  target::cuda::CallList list = test::seeded_list(
      "K_KERNEL(seeded, 64)(const float* __restrict__ x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }\n");
  list.in_place = {{0, 0}};
  const test::SeededTarget target(list);
  EXPECT_THAT(internal_error_of([&] { compiled(around_seeded(), target, {}); }),
              HasSubstr("is written and another operand, too, which seeded is told not to be"));
  list.sources[0].text.replace(list.sources[0].text.find(" __restrict__"), 13, "");
  const test::SeededTarget honest(list);
  EXPECT_EQ(internal_error_of([&] { compiled(around_seeded(), honest, {}); }), "no error");
}

/// What buffers are: as many allocations as places, each of its bytes; graphs, states and bound inputs work as they do in an arena.
TEST(Apart, EveryBufferIsAnAllocationThreads) {
  const Value x = ir::new_input("x", {Dtype::f32, {6}}), s = ir::new_input("s", {Dtype::f32, {6}});
  const Value sum = op::add(s, op::exp(op::mul(x, ir::constant(Array::full(Dtype::f32, {6}, 2)))));
  Graph g = graph_of({x, s}, {sum, op::neg(sum)});
  g.state.push_back({"s", "y0"});
  for (const uint64_t offsets : {0ul, 3ul}) {
    const auto driver = std::make_shared<SimDriver>();
    const std::shared_ptr<target::Device> device = make_sim_device(driver);
    const auto program = std::make_shared<run::DeviceProgram>(
        compiled(g, target::cuda::cuda_target(90), {true, offsets}), device);
    const auto before = driver->live();
    run::DeviceExecutor e(program, {.slots = 2});
    const auto now = driver->live();
    const auto buffers = static_cast<int64_t>(program->program().arena_buffers().size());
    EXPECT_EQ(now.allocations - before.allocations, buffers + 1 + 2 * 2) << "the state, and two slots of two";
    if (offsets == 0) EXPECT_EQ(now.bytes - before.bytes, 24 * (buffers + 1 + 4));
    EXPECT_EQ(e.allocated_bytes(), now.bytes - before.bytes);
    const Array zeros = Array::full(Dtype::f32, {6}, 0);
    e.write_state("s", zeros.data());
    for (int r = 1; r <= 4; ++r) {
      std::fill_n(static_cast<float*>(e.input(0)), 6, 0.0f);
      e.poison();
      EXPECT_EQ(static_cast<const float*>(e.output(e.run(), 1))[5], -static_cast<float>(r));
    }
    EXPECT_EQ(e.replays(), 3);
    const run::DeviceMemory bound = run::device_memory(*device, 24);
    run::upload_and_wait(*device, bound.get(), zeros.data(), 24);
    e.bind_input(0, bound.get());
    for (int r = 5; r <= 6; ++r)
      EXPECT_EQ(static_cast<const float*>(e.output(e.run(), 1))[0], -static_cast<float>(r));
  }
}

}  // namespace
}  // namespace espalier
