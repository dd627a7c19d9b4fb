#include "run/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "base/threads.h"
#include "run/program_cache.h"
#include "run/targets.h"
#include "support/errors.h"
#include "support/graph_of.h"
#include "support/plain_target.h"
#include "support/random_program.h"
#include "target/reference/interpreter.h"
#include "target/reference/reference_target.h"

namespace espalier::run {
namespace {

using ir::Array;
using ir::Value;
using test::graph_of;

Value input(const std::string& name, ir::Dims dims, ir::Dtype dtype = ir::Dtype::f32) {
  return ir::new_input(name, {dtype, std::move(dims)});
}

CompileOptions on(const target::Target& target) {
  CompileOptions options;
  options.target = &target;
  return options;
}

std::vector<Array> random_inputs(std::mt19937_64& rng, const ir::Graph& g) {
  std::vector<Array> arrays;
  for (const Value& v : g.inputs) {
    Array a(v.dtype(), ir::static_dims(v.dims()));
    for (int64_t i = 0; i < a.size(); ++i) a.set(i, static_cast<double>(rng() % 1000) / 500 - 1);
    arrays.push_back(a);
  }
  return arrays;
}

void write(void* to, const Array& a) {
  if (a.bytes() > 0) std::memcpy(to, a.data(), static_cast<size_t>(a.bytes()));
}

Array read(const Executor& e, size_t o) {
  const Port& port = e.program().outputs()[o];
  Array a(port.type.dtype, ir::static_dims(port.type.dims));
  if (a.bytes() > 0) std::memcpy(a.write(), e.output(o), static_cast<size_t>(a.bytes()));
  return a;
}

std::vector<Array> outputs_of(const Executor& e) {
  std::vector<Array> all;
  for (size_t o = 0; o < e.program().outputs().size(); ++o) all.push_back(read(e, o));
  return all;
}

/// Three runs, feeding state forward: what the executor must do.
std::vector<std::vector<Array>> expected_runs(const ir::Graph& g, std::vector<Array> inputs, int runs) {
  std::vector<std::vector<Array>> all;
  for (int r = 0; r < runs; ++r) {
    all.push_back(target::reference::evaluate(g, inputs));
    for (const ir::StatePair& s : g.state)
      inputs[*g.find_input(s.input)] = all.back()[*g.find_output(s.output)];
  }
  return all;
}

std::vector<std::vector<Array>> executed_runs(std::shared_ptr<const Program> program,
                                              const std::vector<Array>& inputs, int runs) {
  Executor e(std::move(program));
  for (size_t i = 0; i < inputs.size(); ++i) write(e.input(i), inputs[i]);
  std::vector<std::vector<Array>> all;
  for (int r = 0; r < runs; ++r) {
    e.poison();
    e.run();
    all.push_back(outputs_of(e));
  }
  return all;
}

TEST(Executor, RandomProgramsOnTheReferenceComputeWhatTheGraphMeans) {
  std::mt19937_64 rng(21);
  for (int round = 0; round < 150; ++round) {
    const ir::Graph g = test::random_program(rng, {.nodes = static_cast<int>(rng() % 40)});
    const std::vector<Array> inputs = random_inputs(rng, g);
    const auto program = Program::compile_fused(g, on(target::reference::reference_target()));
    EXPECT_EQ(executed_runs(program, inputs, 3), expected_runs(g, inputs, 3))
        << ir::print(g) << program->text();
  }
}

TEST(Executor, PassesKeepTheMeaningOfRandomPrograms) {
  std::mt19937_64 rng(22);
  for (int round = 0; round < 60; ++round) {
    const ir::Graph g = test::random_program(rng, {.nodes = static_cast<int>(rng() % 40)});
    const std::vector<Array> inputs = random_inputs(rng, g);
    const auto program = Program::compile(g, on(target::reference::reference_target()));
    const auto got = executed_runs(program, inputs, 1), want = expected_runs(g, inputs, 1);
    for (size_t o = 0; o < want[0].size(); ++o)
      for (int64_t i = 0; i < want[0][o].size(); ++i)
        EXPECT_NEAR(got[0][o].at(i), want[0][o].at(i), 1e-4 * std::max(1.0, std::abs(want[0][o].at(i))))
            << ir::print(g);
  }
}

TEST(ExecutorThreads, PoisonThreadsAndPlacesDoNotChangeABit) {
  std::mt19937_64 rng(23);
  for (int round = 0; round < 40; ++round) {
    const ir::Graph g = test::random_program(rng, {.nodes = static_cast<int>(rng() % 60)});
    const std::vector<Array> inputs = random_inputs(rng, g);
    const auto program = Program::compile_fused(g, on(test::plain_target()));
    set_threads(1);
    const auto one = executed_runs(program, inputs, 3);
    for (const int threads : {2, 3}) {
      set_threads(threads);
      EXPECT_EQ(executed_runs(program, inputs, 3), one) << threads << " threads";
    }
    set_threads(available_threads());
    const auto meant = expected_runs(g, inputs, 1);
    for (size_t o = 0; o < meant[0].size(); ++o)
      for (int64_t i = 0; i < meant[0][o].size(); ++i)
        EXPECT_NEAR(one[0][o].at(i), meant[0][o].at(i), 1e-3 * std::max(1.0, std::abs(meant[0][o].at(i))));
  }
}

TEST(ExecutorThreads, SeveralExecutorsOfOneProgramRunAtOnce) {
  std::mt19937_64 rng(24);
  const ir::Graph g = test::random_program(rng, {.nodes = 60});
  const std::vector<Array> inputs = random_inputs(rng, g);
  const auto program = Program::compile_fused(g, on(test::plain_target()));
  const auto alone = executed_runs(program, inputs, 5);
  std::vector<std::thread> users;
  std::vector<std::vector<std::vector<Array>>> got(4);
  for (size_t u = 0; u < got.size(); ++u)
    users.emplace_back([&, u] {
      Executor e(program, {.parallel = u % 2 == 0});
      for (size_t i = 0; i < inputs.size(); ++i) write(e.input(i), inputs[i]);
      for (int r = 0; r < 5; ++r) {
        e.run();
        got[u].push_back(outputs_of(e));
      }
    });
  for (std::thread& t : users) t.join();
  for (const auto& runs : got) EXPECT_EQ(runs, alone);
}

TEST(Executor, StateIsUpdatedInPlaceAndSharedBetweenPrograms) {
  const Value x = input("x", {32}), w = input("w", {32});
  const ir::Graph train = graph_of({x, w}, {{"w2", op::sub(w, x)}}, {{"w", "w2"}});
  const Value w_eval = input("w", {32}), x_eval = input("x", {32});
  const ir::Graph eval = graph_of({w_eval, x_eval}, {{"y", op::mul(w_eval, x_eval)}});
  Executor step(Program::compile_fused(train, on(test::plain_target())), {.own_state = false});
  Executor use(Program::compile_fused(eval, on(test::plain_target())), {.own_inputs = false});
  EXPECT_TRUE(step.program().state()[0].in_place);
  EXPECT_EQ(step.program().memory().arena, 0);
  EXPECT_THROW(step.run(), UserError);
  Array weights = Array::full(ir::Dtype::f32, {32}, 10), data = Array::full(ir::Dtype::f32, {32}, 2);
  step.bind_state("w", weights.write());
  use.bind_input(0, weights.data());
  use.bind_input(1, data.data());
  write(step.input(0), data);
  for (int i = 0; i < 3; ++i) step.run();
  use.run();
  EXPECT_EQ(weights.at(31), 4);
  EXPECT_EQ(read(use, 0).at(0), 8);
  EXPECT_EQ(step.output(0), weights.data());
}

TEST(Executor, IntegerInputsAreCheckedAgainstTheirRange) {
  const Value labels = input("labels", {4}, ir::Dtype::i64);
  const ir::Graph g = graph_of({labels}, {{"y", op::neg(labels)}});
  CompileOptions options = on(target::reference::reference_target());
  options.ranges = {{"labels", 0, 10}};
  Executor e(Program::compile_fused(g, options));
  auto* values = static_cast<int64_t*>(e.input(0));
  values[2] = 9;
  e.run();
  EXPECT_EQ(read(e, 0).at(2), -9);
  values[3] = 10;
  try {
    e.run();
    FAIL() << "a label out of range passed";
  } catch (const UserError& error) {
    EXPECT_EQ(error.fields().where, "input labels, element 3");
    EXPECT_EQ(error.fields().got, "10");
    EXPECT_EQ(error.fields().allowed, "0 to 9");
  }
  values[3] = -1;
  EXPECT_THROW(e.run(), UserError);
  options.ranges = {{"nothing", 0, 10}};
  EXPECT_THROW(Program::compile_fused(g, options), UserError);
}

TEST(Executor, BindingsAreChecked) {
  const Value x = input("x", {16}), s = input("s", {16});
  const ir::Graph g = graph_of({x, s}, {{"y", op::neg(x)}, {"s2", op::add(s, x)}}, {{"s", "s2"}});
  Executor e(Program::compile_fused(g, on(test::plain_target())));
  Array a(ir::Dtype::f32, {32});
  EXPECT_THROW(e.bind_input(0, static_cast<const char*>(a.data()) + 4), UserError);
  EXPECT_THROW(e.bind_input(0, nullptr), UserError);
  EXPECT_THROW(e.bind_output(1, a.write()), UserError);
  EXPECT_THROW(e.bind_state("t", a.write()), UserError);
  e.bind_output(0, a.write());
  static_cast<float*>(e.input(0))[5] = 7;
  e.run();
  EXPECT_EQ(a.at(5), -7);
  EXPECT_EQ(static_cast<float*>(e.state("s"))[5], 7);
}

/// A run that would read what it writes under another name is refused; what only lies there between two bindings is not.
TEST(Executor, AStateSharesMemoryWithNoOtherInput) {
  const Value x = input("x", {16}), s = input("s", {16}), t = input("t", {16});
  const ir::Graph g =
      graph_of({x, s, t}, {{"s2", op::add(s, x)}, {"t2", op::sub(t, x)}}, {{"s", "s2"}, {"t", "t2"}});
  Executor e(Program::compile_fused(g, on(test::plain_target())));
  Array memory = Array::full(ir::Dtype::f32, {64}, 1);
  auto* at = static_cast<float*>(memory.write());
  const auto words = [&] { return test::error_of([&] { e.run(); }); };
  e.bind_state("s", at);
  e.bind_input(0, at + 16);
  EXPECT_EQ(words(), "no error");
  e.bind_state("t", at);
  EXPECT_THAT(words(),
              testing::HasSubstr("state t and state s: share memory, and the program writes the state"));
  e.bind_state("s", at + 32);
  EXPECT_EQ(words(), "no error") << "they change places one after the other";
  e.bind_input(0, at + 32);
  EXPECT_THAT(words(), testing::HasSubstr("state s and input x"));
  EXPECT_THAT(words(), testing::HasSubstr("state s and input x")) << "as long as it is so";
  e.bind_input(0, at + 16);
  EXPECT_EQ(words(), "no error");
  EXPECT_EQ(at[32], 3);
  EXPECT_EQ(at[0], 0);
}

TEST(Executor, AnEmptyTensorMayHaveNoMemory) {
  const Value x = input("x", {3}), none = input("none", {0}), s = input("s", {0});
  const ir::Graph g = graph_of(
      {x, none, s}, {{"y", op::add(x, x)}, {"s2", op::add(s, none)}, {"e", op::neg(none)}}, {{"s", "s2"}});
  Executor e(Program::compile_fused(g, on(test::plain_target())));
  Array memory = Array::full(ir::Dtype::f32, {64}, 2), out = Array::full(ir::Dtype::f32, {64}, 0);
  e.bind_input(0, memory.data());
  e.bind_input(1, nullptr);
  e.bind_state("s", nullptr);
  e.bind_output(0, out.write());
  e.bind_output(2, nullptr);
  e.run();
  EXPECT_EQ(static_cast<const float*>(out.data())[2], 4);
  EXPECT_THAT(test::error_of([&] { e.bind_input(0, nullptr); }), testing::HasSubstr("input x: null memory"));
}

TEST(Executor, AnOutputSharesMemoryWithNothingElse) {
  const Value x = input("x", {16});
  Executor e(Program::compile_fused(graph_of({x}, {{"y", op::add(x, x)}, {"z", op::neg(x)}}),
                                    on(test::plain_target())));
  const auto words = [&] { return test::error_of([&] { e.run(); }); };
  Array memory = Array::full(ir::Dtype::f32, {64}, 1);
  auto* at = static_cast<float*>(memory.write());
  e.bind_output(0, at);
  EXPECT_EQ(words(), "no error");
  e.bind_input(0, at);
  EXPECT_THAT(words(),
              testing::HasSubstr("output y and input x: share memory, and the program writes the output"));
  e.bind_input(0, at + 16);
  EXPECT_EQ(words(), "no error");
  EXPECT_EQ(at[15], 2);
  e.bind_output(0, e.output(1));
  EXPECT_THAT(words(), testing::HasSubstr("output y and output z"));
}

TEST(Executor, TimesEveryStep) {
  std::mt19937_64 rng(25);
  const ir::Graph g = test::random_program(rng);
  Executor e(Program::compile_fused(g, on(test::plain_target())));
  std::vector<int64_t> ns(e.program().steps().size(), -1);
  e.run_timed(ns);
  for (const int64_t t : ns) EXPECT_GE(t, 0);
}

TEST(Program, SymbolsMustBeBound) {
  const Value x = input("x", {ir::Dim::symbol("batch"), 4});
  const ir::Graph g = graph_of({x}, {{"y", op::neg(x)}});
  EXPECT_THROW(Program::compile(g), UserError);
  CompileOptions options;
  options.symbols = {{"batch", 3}};
  EXPECT_EQ(Program::compile(g, options)->outputs()[0].type.dims, (ir::Dims{3, 4}));
}

TEST(ProgramThreads, TheCacheCompilesOneStructureOnce) {
  ProgramCache cache(2);
  const auto graph = [](double by) {
    const Value x = input("x", {16});
    return graph_of({x}, {{"y", op::mul(x, by)}});
  };
  std::vector<std::shared_ptr<const Program>> got(4);
  std::vector<std::thread> users;
  for (auto& g : got) users.emplace_back([&] { g = cache.get(graph(2)); });
  for (std::thread& t : users) t.join();
  for (const auto& g : got) EXPECT_EQ(g, got[0]);
  EXPECT_NE(cache.get(graph(3)), got[0]);
  CompileOptions exact;
  exact.exact = true;
  EXPECT_NE(cache.get(graph(2), exact), got[0]);
  EXPECT_EQ(cache.size(), 2u);
  EXPECT_NE(cache.get(graph(2)), got[0]) << "the oldest entry has left";
}

TEST(Targets, AreFoundByName) {
  EXPECT_EQ(find_target("reference").spec().name(), "reference");
  EXPECT_EQ(find_target("null").spec().name(), "null");
  EXPECT_THROW(find_target("abacus"), UserError);
}

}  // namespace
}  // namespace espalier::run
