// Whole programs planned for a GPU, through the executor for devices, against the reference: what passes, plans, records, slots and
// control flow make of a graph; and what becomes of it when calls of the driver fail.
#include "base/align.h"
#include "grad/grad.h"
#include "op/activation.h"
#include "op/contraction.h"
#include "op/control.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "run/device_executor.h"
#include "run/red_zones.h"
#include "support/arrays.h"
#include "support/device_program.h"
#include "support/errors.h"
#include "support/graph_of.h"
#include "support/random_graph.h"
#include "support/random_program.h"
#include "support/recorded_device.h"
#include "support/seeded_target.h"
#include "target/cpu/cpu_target.h"
#include "target/cuda/cuda_target.h"
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
using target::cuda::sim::Order;
using target::cuda::sim::Others;
using target::cuda::sim::SimDriver;
using target::cuda::sim::SimOptions;
using test::compiled;
using test::expect_user_error;
using test::feed;
using test::graph_of;
using test::loaded;
using test::outputs_of;
using test::write;

std::shared_ptr<target::Device> device_of(const std::shared_ptr<SimDriver>& driver) {
  return make_sim_device(driver);
}
std::shared_ptr<target::Device> new_device(const SimOptions& options = {}) {
  return make_sim_device(options);
}

/// With every buffer in an allocation of its own, where no more than the records need is aligned: what the guards of memory see, and what
/// a kernel takes for granted, shows.
std::vector<Array> run_apart(const Graph& g, std::span<const Array> inputs, uint64_t offsets) {
  run::CompileOptions options;
  options.target = &target::cuda::cuda_target(90);
  options.apart = true;
  options.offsets = offsets;
  run::DeviceExecutor e(
      std::make_shared<run::DeviceProgram>(run::Program::compile(g, options), new_device()));
  feed(e, inputs, true);
  e.poison();
  return outputs_of(e, e.run());
}

/// Twice over poisoned memory, equal bits both times and where buffers lie apart; other streams are late or early.
std::vector<Array> run_on_device(const Graph& g, std::span<const Array> inputs) {
  static int turn = 0;
  run::DeviceExecutor e(loaded(g, new_device({.others = ++turn % 2 ? Others::late : Others::first,
                                              .order = static_cast<Order>(turn % 3)})));
  std::vector<Array> results[2];
  for (auto& result : results) {
    feed(e, inputs, true);
    e.poison();
    result = outputs_of(e, e.run());
    e.check_red_zones();
  }
  EXPECT_EQ(results[0], results[1]) << "the runs differ";
  EXPECT_EQ(results[0], run_apart(g, inputs, static_cast<uint64_t>(turn))) << "other places, other bits";
  return results[0];
}

void expect_agrees(const Graph& g, std::span<const Array> inputs, double factor) {
  SCOPED_TRACE(ir::print(g));
  test::expect_close(run_on_device(g, inputs), target::reference::evaluate(g, inputs), factor);
}

TEST(DevicePrograms, RandomGraphsAgreeWithTheReference) {
  test::for_random_graphs(25, [](const test::RandomGraph& r) { expect_agrees(r.graph, r.inputs, 100); });
}

/// Three runs that feed the state forward, two of them under way at once.
TEST(DevicePrograms, StatesGoOnFromRunToRunThreads) {
  for (uint64_t seed = 0; seed < 12 && !HasFailure(); ++seed) {
    std::mt19937_64 rng(seed);
    const Graph g = test::random_program(rng, {.nodes = 14});
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + ir::print(g));
    std::vector<Array> inputs;
    for (const Value& v : g.inputs) {
      Array a(v.dtype(), ir::static_dims(v.dims()));
      for (int64_t i = 0; i < a.size(); ++i) a.set(i, static_cast<double>(rng() % 1000) / 500 - 1);
      inputs.push_back(a);
    }
    run::DeviceExecutor e(loaded(g, new_device()), {.slots = 2});
    feed(e, inputs, true);
    std::vector<Array> fed = inputs;
    for (int r = 0; r < 4; ++r) {
      const std::vector<Array> want = target::reference::evaluate(g, fed);
      feed(e, fed, false);
      test::expect_close(outputs_of(e, e.run()), want, 100);
      for (const ir::StatePair& s : g.state) fed[*g.find_input(s.input)] = want[*g.find_output(s.output)];
      for (size_t i = 0; i < fed.size(); ++i)
        if (!e.program().is_state_input(i) && fed[i].size() > 0) fed[i].set(0, fed[i].at(0) * 0.5);
    }
  }
}

/// Gradients of strided slices, summed: the fold is cut in parts, and its axes are split besides.
TEST(DevicePrograms, SumsOverSpreadElementsAreCutAndSplit) {
  for (const int64_t batch : {2, 8, 64}) {
    const Value x = ir::new_input("x", {Dtype::f32, {batch, 28, 28, 8}});
    const Value spread =
        op::pad(op::mul(x, 2.0), ir::constant(Dtype::f32, 0.0), {0, 0, 0, 0}, {0, 1, 1, 0}, {0, 1, 1, 0});
    const Graph g = graph_of({x}, {op::reduce_sum(spread, {0, 1, 2})});
    Array a(Dtype::f32, ir::static_dims(x.dims()));
    for (int64_t i = 0; i < a.size(); ++i) a.set(i, static_cast<double>(i % 17) - 3);
    const std::vector<Array> inputs{a};
    expect_agrees(g, inputs, 100);
  }
}

/// A run as one graph does what its launches did: the same bits, and at the addresses of now.
/// What a gradient compares with an extreme is rounded as what the extreme was taken of, wherever either is computed.
TEST(DevicePrograms, GradientsOfExtremesInSixteenBits) {
  std::mt19937_64 rng(21);
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
    Values in;
    std::vector<Array> data;
    const auto input = [&](std::vector<int64_t> dims, Dtype d) {
      data.push_back(op::draw_array(rng, d, std::move(dims), -1, 1));
      return in.emplace_back(ir::new_input("x" + std::to_string(in.size()), data.back().type()));
    };
    const Value a = input({24, 40}, dtype), b = input({24, 40}, dtype), c = input({24, 40}, dtype);
    const Value x = op::add(a, b);
    const Values extremes{op::reduce_max(x, {1}), op::reduce_min(x, {0}), op::max(x, op::mul(a, c)),
                          op::reduce_max(op::cast(x, Dtype::f32), {1})};
    Values results = extremes;
    for (const Value& y : extremes) {
      const Value seed = input(ir::static_dims(y.dims()), y.dtype());
      results.push_back(
          autodiff::vjp(std::vector<Value>{y}, std::vector<Value>{seed}, std::vector<Value>{a})[0]);
    }
    Graph g;
    g.inputs = in;
    for (const Value& v : results) g.outputs.push_back({"y" + std::to_string(g.outputs.size()), v});
    expect_agrees(g, data, 1);
    g.outputs.erase(g.outputs.begin(), g.outputs.begin() + static_cast<std::ptrdiff_t>(extremes.size()));
    expect_agrees(g, data, 1);
  }
}

TEST(DevicePrograms, GraphsAreTheLaunchesTheyReplaceThreads) {
  ir::SampleRng rng(4);
  const Value x = ir::new_input("x", {Dtype::f32, {6, 50}});
  const Graph g = graph_of({x}, {op::softmax(x, 1), op::reduce_sum(op::exp(x), {0})});
  const auto program = loaded(g, new_device());
  run::DeviceExecutor graphs(program, {.slots = 2}), launches(program, {.slots = 2, .graphs = false});
  for (int r = 0; r < 6; ++r) {
    const std::vector<Array> inputs{op::draw_array(rng, Dtype::f32, {6, 50}, -1, 1)};
    std::vector<Array> results[2];
    for (run::DeviceExecutor* e : {&graphs, &launches}) {
      feed(*e, inputs, true);
      results[e == &graphs] = outputs_of(*e, e->run());
    }
    EXPECT_EQ(results[0], results[1]) << "run " << r;
  }
  EXPECT_EQ(graphs.replays(), 5) << "one by one, they go through one slot";
  EXPECT_EQ(launches.replays(), 0);

  target::Device& device = program->device();
  const auto bound = run::device_memory(device, 4 * 300);
  const Array other = op::draw_array(rng, Dtype::f32, {6, 50}, -1, 1);
  run::upload_and_wait(device, bound.get(), other.data(), other.bytes());
  graphs.bind_input(0, bound.get());
  for (int r = 0; r < 2; ++r)
    test::expect_close(outputs_of(graphs, graphs.run()), target::reference::evaluate(g, std::vector{other}),
                       8);
  EXPECT_EQ(graphs.replays(), 7);
}

TEST(DevicePrograms, EachTicketHasItsOwnOutputs) {
  const Value x = ir::new_input("x", {Dtype::f32, {8}});
  const auto device = new_device();
  run::DeviceExecutor e(loaded(graph_of({x}, {op::mul(x, 2.0)}), device), {.slots = 3});
  std::vector<run::Ticket> tickets;
  for (int r = 0; r < 3; ++r) {
    write(e.input(0), Array::of<float>({8}, std::vector<float>(8, static_cast<float>(r + 1))));
    tickets.push_back(e.submit());
  }
  for (int r = 2; r >= 0; --r) {
    e.wait(tickets[static_cast<size_t>(r)]);
    EXPECT_EQ(static_cast<const float*>(e.output(tickets[static_cast<size_t>(r)], 0))[7], 2 * (r + 1));
  }
  e.run();
  EXPECT_THROW(e.output(tickets[2], 0), UserError) << "the last one waited for gave its slot";
  EXPECT_EQ(static_cast<const float*>(e.output(tickets[0], 0))[7], 2);
}

/// One layer of a recurrent net by scan, forward and backward; the width decides how far rows are aligned.
TEST(DevicePrograms, ScansOfOddAndEvenRows) {
  for (const int64_t width : {1, 3, 16})
    for (const bool reverse : {false, true}) {
      ir::SampleRng rng(5);
      const Array h0 = op::draw_array(rng, Dtype::f32, {2, width}, -1, 1),
                  xs = op::draw_array(rng, Dtype::f32, {5, 2, width}, -1, 1),
                  w = op::draw_array(rng, Dtype::f32, {width}, -1, 1);
      const Value h = ir::new_input("h", h0.type()), x = ir::new_input("x", xs.type()),
                  v = ir::new_input("w", w.type());
      const ir::GraphRef body = op::body_graph(
          "cell", std::vector{h.type(), ir::Type{Dtype::f32, {2, width}}, v.type()}, [](const Values& in) {
            const Value next =
                op::tanh(op::add(op::mul(in[0], op::broadcast_to(in[2], in[0].dims())), in[1]));
            return Values{next, op::mul(next, next)};
          });
      const Values made =
          op::scan({.body = body, .carries = 1, .slices = 1, .length = 5, .reverse = reverse}, {h, x, v});
      Values outputs = made;
      const Value loss = op::reduce_sum(op::mul(made[1], made[1]), {0, 1, 2});
      for (const Value& g : autodiff::gradient(loss, std::vector{h, x, v})) outputs.push_back(g);
      expect_agrees(graph_of({h, x, v}, outputs), std::vector{h0, xs, w}, 32);
    }
}

TEST(DevicePrograms, SayWhatLoadingTook) {
  const Value x = ir::new_input("x", {Dtype::f32, {8, 11}});
  const Graph g = graph_of({x}, {op::reduce_sum(op::mul(x, 0.1875), {1}), op::exp(op::reduce_max(x, {0}))});
  (void)loaded(g, new_device());
  const auto again = loaded(g, new_device());
  const target::LoadReport r = again->load_report();
  EXPECT_EQ(r.compiled, 0);
  std::set<std::string> kernels;
  for (const target::CallRecord& c : again->calls())
    if (const auto* k = std::get_if<target::KernelCall>(&c.work)) kernels.insert(k->kernel);
  EXPECT_EQ(r.found, static_cast<int64_t>(kernels.size()));
  EXPECT_GT(r.seconds, 0);
  EXPECT_EQ(text(target::LoadReport{.compiled = 3, .found = 12, .seconds = 0.214}),
            "3 kernels compiled, 12 from the cache, 0.21 s");
}

TEST(DevicePrograms, CondAndWhileAskTheDevice) {
  for (const float start : {-3.f, 0.5f, 40.f}) {
    const Value x = ir::new_input("x", {Dtype::f32, {4}});
    const Value positive = op::gt(op::reduce_max(x, {0}), ir::constant(Dtype::f32, 0));
    const ir::GraphRef twice = op::body_graph("twice", std::vector{x.type()},
                                              [](const Values&in) { return Values{op::mul(in[0], 2.0)}; }),
                       negated = op::body_graph("negated", std::vector{x.type()},
                                                [](const Values&in) { return Values{op::neg(in[0])}; }),
                       small = op::body_graph("small", std::vector{x.type()}, [](const Values&in) {
                         return Values{op::lt(op::reduce_sum(in[0], {0}), ir::constant(Dtype::f32, 100))};
                       });
    const Value chosen = op::cond(positive, twice, negated, {x})[0];
    const Values grown = op::while_loop({.condition = small, .body = twice, .carries = 1}, {chosen});
    expect_agrees(graph_of({x}, {chosen, grown[0]}),
                  std::vector{Array::of<float>({4}, {start, start / 2, 1, start})}, 8);
  }
}

TEST(DevicePrograms, ConstantsOfTheProgramAndItsBodiesLieOnTheDevice) {
  ir::SampleRng rng(3);
  const Array table = op::draw_array(rng, Dtype::f32, {300}, -1, 1);
  const Value x = ir::new_input("x", {Dtype::f32, {4, 300}});
  const ir::GraphRef body = op::body_graph(
      "row", std::vector{ir::Type{Dtype::f32, {300}}, ir::Type{Dtype::f32, {300}}},
      [&](const Values& in) { return Values{op::add(op::mul(in[0], ir::constant(table)), in[1])}; });
  const Value first = op::mul(ir::constant(table), 2.0);
  expect_agrees(
      graph_of({x}, op::scan({.body = body, .carries = 1, .slices = 1, .length = 4, .reverse = false},
                             {first, x})),
      std::vector{op::draw_array(rng, Dtype::f32, {4, 300}, -1, 1)}, 8);
}

TEST(DevicePrograms, WhatIsNotForADeviceIsRefused) {
  const Value x = ir::new_input("x", {Dtype::f32, {8}});
  const Graph g = graph_of({x}, {op::mul(x, 2.0)});
  run::CompileOptions on_cpu;
  on_cpu.target = &target::cpu::cpu_target();
  const auto device = new_device();
  expect_user_error([&] { run::DeviceProgram(run::Program::compile(g, on_cpu), device); },
                    {"fusion", "runs on the host only"});
  run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(compiled(g, {{"x", 0, 5}}), device));
  write(e.input(0), Array::of<float>({8}, {0, 1, 2, 3, 4, 9, 0, 0}));
  expect_user_error([&] { e.submit(); }, {"input x, element 5", "out of range"});
  expect_user_error([&] { e.bind_input(0, 4096); }, {"input x", "declared range"});
  expect_user_error([&] { e.bind_input(0, 4100); }, {"input x", "not aligned"});
  expect_user_error([&] { e.state("nothing"); }, {"no such state"});
  expect_user_error([] { target::cuda::cuda_target(75); }, {"75", "too old", "sm_80"});
}

TEST(DevicePrograms, AWriteBehindABufferIsFoundAndItsStepNamed) {
  const Value x = ir::new_input("x", {Dtype::f32, {40}});
  run::CompileOptions options;
  options.target = &target::cuda::cuda_target(90);
  options.red_zone = 32;
  options.disabled = {"fuse_loops"};
  const Value sum = op::reduce_sum(op::exp(x), {0});  // a step, then one that reads it
  const auto program = run::Program::compile(graph_of({x}, {op::mul(sum, 2.0)}), options);
  std::vector<char> arena(static_cast<size_t>(program->memory().arena),
                          static_cast<char>(run::red_zone_byte));
  const pass::Place at = program->steps()[0].buffers.at(1);
  ASSERT_EQ(at.kind, pass::Place::Kind::arena);
  std::memset(arena.data() + at.offset, 0, 160);
  run::check_red_zones(*program, arena.data());
  arena[static_cast<size_t>(at.offset) + 165] = 0;
  try {
    run::check_red_zones(*program, arena.data());
    FAIL() << "not found";
  } catch (const InternalError& error) {
    EXPECT_NE(std::string(error.what()).find("5 bytes behind the buffer at arena+"), std::string::npos)
        << error.what();
    EXPECT_NE(std::string(error.what()).find("step 0 (exp"), std::string::npos) << error.what();
  }
}

TEST(DevicePrograms, CopiesGoOnBesideLaunches) {
  const Value x = ir::new_input("x", {Dtype::f32, {64}});
  for (const int slots : {2, 3}) {
    const auto device = std::make_shared<test::RecordedDevice>(new_device());
    run::DeviceExecutor e(loaded(graph_of({x}, {op::mul(x, 2.0)}), device), {.slots = slots});
    const auto some_runs = [&](int left_out) {
      device->forget();
      device->leave_out(left_out);
      for (int r = 0; r < 7; ++r) {
        write(e.input(0), Array(Dtype::f32, {64}));
        e.submit();
      }
      device->leave_out(-1);
      const std::string wrong = test::order_of(device->work(), static_cast<size_t>(slots));
      for (run::Ticket t = 0; t < slots; ++t) e.run();  // nothing is under way any more
      return wrong;
    };
    EXPECT_EQ(some_runs(-1), "");
    const int waits = device->waits();
    ASSERT_GE(waits, 14);
    for (int w = 0; w < 14; ++w)
      EXPECT_NE(some_runs(w), "") << "wait " << w << " was left out and nobody noticed";
  }
}

/// Whichever call of the driver fails, and however: an error that says so, nothing leaks, and the next run is right where the device is
/// not lost.
void expect_any_call_may_fail(const Graph& g, const std::shared_ptr<const run::Program>& program) {
  ir::SampleRng rng(3);
  const std::vector<Array> inputs{op::draw_array(rng, Dtype::f32, {8, 40}, -1, 1)};
  const std::vector<Array> want = target::reference::evaluate(g, inputs);
  const auto work = [&](run::DeviceExecutor& e) {
    for (int r = 0; r < 3; ++r) {
      feed(e, inputs, true);
      test::expect_close(outputs_of(e, e.run()), want, 8);
    }
  };
  const auto one = [&](const std::shared_ptr<SimDriver>& driver, const target::cuda::sim::Fault& fault) {
    driver->fail(fault);
    bool failed = false;
    std::optional<run::DeviceExecutor> e;
    try {
      e.emplace(std::make_shared<run::DeviceProgram>(program, device_of(driver)));
      work(*e);
    } catch (const target::DeviceError& error) {
      failed = true;
      EXPECT_NE(std::string(error.what()).find("cu"), std::string::npos) << error.what();
      driver->fail({});
      if (e && !error.lost()) work(*e);
      if (error.lost() && e) EXPECT_THROW(e->run(), target::DeviceError);
    }
    driver->fail({});
    e.reset();
    EXPECT_EQ(driver->leaked(), "");
    return failed;
  };
  const auto clean = std::make_shared<SimDriver>();
  EXPECT_FALSE(one(clean, {}));
  const int64_t calls = clean->calls();
  int said = 0;
  for (const int wrong :
       {target::cuda::driver::cu_error_out_of_memory, target::cuda::driver::cu_error_launch_failed,
        target::cuda::driver::cu_error_unknown})
    for (int64_t call = 1; call <= calls && !testing::Test::HasFailure(); ++call) {
      SCOPED_TRACE(testing::Message() << "call " << call << " of " << calls << " fails with " << wrong);
      said += one(std::make_shared<SimDriver>(), {call, wrong});
    }
  EXPECT_GT(said, calls);
}

TEST(DevicePrograms, AnyCallMayFail) {
  const Value x = ir::new_input("x", {Dtype::f32, {8, 40}});
  const Graph g = graph_of({x}, {op::softmax(x, 1), op::reduce_sum(op::exp(x), {0})});
  expect_any_call_may_fail(g, compiled(g));
}

/// The call that asks for more than 48 KiB of shared memory is one of them.
TEST(DevicePrograms, AnyCallOfALargeBlockMayFail) {
  target::cuda::CallList list = test::seeded_list(R"(
K_KERNEL(seeded, 64)(const float* __restrict__ x, float* __restrict__ y) {
  K_SHARED_REST(float, all);
  for (int i = threadIdx.x; i < 320; i += 64) all[i + 15000] = esp_tanh(x[i]);
  __syncthreads();
  for (int i = threadIdx.x; i < 320; i += 64) y[i] = all[i + 15000];
}
)");
  std::get<target::KernelCall>(list.calls[0].work).shared_bytes = 60 << 10;
  list.sources[0].synchronises = true;
  const test::SeededTarget target(list);
  run::CompileOptions options;
  options.target = &target;
  options.disabled = {"fuse_loops"};
  const Value x = ir::new_input("x", {Dtype::f32, {8, 40}});
  const Graph g = graph_of({x}, {op::tanh(x)});
  expect_any_call_may_fail(g, run::Program::compile(g, options));
}

TEST(DevicePrograms, MoreThanIsFreeIsRefusedBeforeAnythingIsAllocated) {
  const Value x = ir::new_input("x", {Dtype::f32, {1 << 18}});
  const auto driver = std::make_shared<SimDriver>(SimOptions{.memory_bytes = 5 << 20});
  const auto program = loaded(graph_of({x}, {op::mul(x, 2.0)}), device_of(driver));
  const auto before = driver->live();
  expect_user_error([&] { run::DeviceExecutor e(program, {.slots = 3}); },
                    {"program g on", "more memory than is free", "6.0 MiB", "3 slots of 2.0 MiB",
                     "at most 5.0 MiB", "with 1 slot it needs 2.0 MiB"});
  EXPECT_EQ(driver->live(), before);
  const run::DeviceExecutor fits(program, {.slots = 2});
}

/// And the next run is captured again.
TEST(DevicePrograms, ARunThatCannotBeCapturedIsLaunchedRecordByRecord) {
  const Value x = ir::new_input("x", {Dtype::f32, {8}});
  const Graph g = graph_of({x}, {op::neg(op::tanh(x))});
  int launched = 0;
  int64_t calls = 1;
  for (int64_t call = 0; call <= calls; ++call) {  // 0: none fails
    const auto driver = std::make_shared<SimDriver>();
    run::DeviceExecutor e(loaded(g, device_of(driver)), {.slots = 1});
    std::memset(e.input(0), 0, 32);
    e.run();
    const int64_t before = driver->calls();
    driver->fail({.call = call, .error = target::cuda::driver::cu_error_capture_unsupported});
    bool failed = false;
    try {
      e.run();
    } catch (const target::DeviceError&) {
      failed = true;
    }
    driver->fail({});
    if (call == 0) calls = driver->calls() - before;
    if (failed || e.replays() > 0) continue;
    ++launched;
    EXPECT_EQ(static_cast<const float*>(e.output(1, 0))[7], 0);
    EXPECT_EQ(e.why_no_graphs(), "");
    e.run();
    EXPECT_EQ(e.replays(), 1);
  }
  EXPECT_GT(launched, 1) << "calls of a capture";
}

TEST(DevicePrograms, WhatARunThatFailsMayHaveOverwrittenIsNotGivenOut) {
  const Value x = ir::new_input("x", {Dtype::f32, {8}});
  const auto driver = std::make_shared<SimDriver>();
  run::DeviceExecutor e(loaded(graph_of({x}, {op::neg(x)}), device_of(driver)), {.slots = 1});
  e.input(0);
  const run::Ticket first = e.run();
  EXPECT_NE(e.output(first, 0), nullptr);
  driver->fail({.call = 2, .error = target::cuda::driver::cu_error_out_of_memory});
  EXPECT_THROW(e.submit(), target::DeviceError);
  driver->fail({});
  expect_user_error([&] { e.output(first, 0); }, {"run 0", "a later run has taken the place"});
  expect_user_error([&] { e.hold(first, 0, {}); }, {"run 0", "a later run has taken the place"});
  EXPECT_NO_THROW(e.wait(first));
  EXPECT_NE(e.output(e.run(), 0), nullptr);
}

}  // namespace
}  // namespace espalier
