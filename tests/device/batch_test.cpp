// Many small updates as one launch (pass batch_nests): the same bits as each by itself, on the simulated device.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "run/device_executor.h"
#include "support/arrays.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
using ir::Value;

std::shared_ptr<const run::Program> compiled(const ir::Graph& g, bool batched) {
  run::CompileOptions options;
  options.target = &target::cuda::cuda_target(90);
  options.red_zone = 64;
  if (!batched) options.disabled.insert("batch_nests");
  return run::Program::compile(g, options);
}

int64_t launches(const run::Program& p, std::string_view kind = "") {
  int64_t n = 0;
  for (const run::Step& s : p.steps())
    for (const target::CallRecord& c : s.kernel->calls()) {
      const auto* call = std::get_if<target::KernelCall>(&c.work);
      n += call && call->kernel.starts_with(kind);
    }
  return n;
}

/// States after two runs over poisoned memory, then the outputs of the second.
std::vector<Array> run_twice(const std::shared_ptr<const run::Program>& program,
                             std::span<const Array> inputs, target::cuda::sim::Order order) {
  run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(
      program, target::cuda::sim::make_sim_device(target::cuda::sim::SimOptions{.order = order})));
  for (size_t i = 0; i < inputs.size(); ++i)
    if (program->is_state_input(i)) e.write_state(program->inputs()[i].name, inputs[i].data());
  std::vector<Array> out;
  for (int r = 0; r < 2; ++r) {
    e.poison();
    for (size_t i = 0; i < inputs.size(); ++i)
      if (!program->is_state_input(i) && inputs[i].bytes() > 0)
        std::memcpy(e.input(i), inputs[i].data(), static_cast<size_t>(inputs[i].bytes()));
    const run::Ticket ticket = e.run();
    e.check_red_zones();
    if (r == 0) continue;
    for (size_t o = 0; o < program->outputs().size(); ++o) {
      const run::Port& port = program->outputs()[o];
      Array a(port.type.dtype, ir::static_dims(port.type.dims));
      if (program->is_state_output(o))
        e.read_state(program->inputs()[static_cast<size_t>(program->state_input(o))].name, a.write());
      else if (a.bytes() > 0) std::memcpy(a.write(), e.output(ticket, o), static_cast<size_t>(a.bytes()));
      out.push_back(a);
    }
  }
  return out;
}

/// Parameters of a few dims with moments, gradients and a rate in common; some also feed a cast or a sum, some read a neighbour's old
/// value.
ir::Graph random_updates(std::mt19937_64& rng, int parameters) {
  const std::vector<ir::Dims> dims{{64}, {3, 5}, {7}, {8, 4, 4}, {1}, {}, {33, 2}};
  ir::Graph g{
      .name = "updates", .level = ir::Level::tensor, .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  const auto input = [&](const std::string& name, Dtype dtype, const ir::Dims& d) {
    return g.inputs.emplace_back(ir::new_input(name, {dtype, d}));
  };
  const Value rate = input("rate", Dtype::f32, {});
  Value before;
  for (int i = 0; i < parameters; ++i) {
    const std::string n = std::to_string(i);
    const ir::Dims& d = dims[rng() % dims.size()];
    const Value p = input("p" + n, Dtype::f32, d), v = input("v" + n, Dtype::f32, d);
    Value gradient = input("g" + n, rng() % 4 == 0 ? Dtype::bf16 : Dtype::f32, d);
    gradient = op::cast(gradient, Dtype::f32);
    if (rng() % 5 == 0 && before && before.dims() == d) gradient = op::add(gradient, before);
    const Value moment = op::add(op::mul(v, 0.9), gradient);
    const Value next = op::sub(p, op::mul(moment, op::broadcast_in(rate, d, {})));
    g.outputs.push_back({"v" + n + "'", moment});
    g.outputs.push_back({"p" + n + "'", next});
    g.state.push_back({"v" + n, "v" + n + "'"});
    g.state.push_back({"p" + n, "p" + n + "'"});
    if (rng() % 3 == 0) g.outputs.push_back({"low" + n, op::cast(op::mul(p, 2.0), Dtype::bf16)});
    if (rng() % 6 == 0) g.outputs.push_back({"sum" + n, op::reduce_sum(next, op::all_axes(next))});
    before = p;
  }
  return g;
}

std::vector<Array> random_inputs(const ir::Graph& g, std::mt19937_64& rng) {
  std::vector<Array> inputs;
  for (const Value& v : g.inputs) {
    Array& a = inputs.emplace_back(v.dtype(), ir::static_dims(v.dims()));
    for (int64_t i = 0; i < a.size(); ++i) a.set(i, static_cast<double>(rng() % 1000) / 500 - 1);
  }
  return inputs;
}

TEST(DeviceBatch, ManyUpdatesHaveTheBitsOfEachByItself) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    std::mt19937_64 rng(seed);
    const ir::Graph g = random_updates(rng, 4 + static_cast<int>(rng() % 20));
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + ir::print(g));
    const std::vector<Array> inputs = random_inputs(g, rng);
    const auto one = compiled(g, true), many = compiled(g, false);
    EXPECT_GE(launches(*one, "batch"), 1);
    EXPECT_LT(launches(*one), launches(*many));
    const auto order = static_cast<target::cuda::sim::Order>(seed % 3);
    const std::vector<Array> got = run_twice(one, inputs, order);
    EXPECT_EQ(got, run_twice(many, inputs, order));
    std::vector<Array> fed = inputs;
    const std::vector<Array> first = target::reference::evaluate(g, fed);
    for (const ir::StatePair& s : g.state) fed[*g.find_input(s.input)] = first[*g.find_output(s.output)];
    test::expect_close(got, target::reference::evaluate(g, fed), 10);
    if (HasFailure()) return;
  }
}

/// More operands than a launch has parameters for: as many launches as that takes.
TEST(DeviceBatch, ALaunchHasFourKilobytesOfParameters) {
  std::mt19937_64 rng(7);
  const ir::Graph g = random_updates(rng, 150);
  const auto program = compiled(g, true);
  EXPECT_GE(launches(*program, "batch"), 2);
  for (const run::Step& s : program->steps())
    for (const target::CallRecord& c : s.kernel->calls()) EXPECT_LE(c.operands.size() * 8, size_t{4096});
}

/// Large updates are steps of their own, so that their gradients need not wait.
TEST(DeviceBatch, LargeUpdatesStayAlone) {
  ir::Graph g{
      .name = "large", .level = ir::Level::tensor, .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  for (int i = 0; i < 3; ++i) {
    const Value p =
        g.inputs.emplace_back(ir::new_input("p" + std::to_string(i), {Dtype::f32, {1024, 300 + i}}));
    g.outputs.push_back({"q" + std::to_string(i), op::mul(p, 0.5)});
  }
  EXPECT_EQ(launches(*compiled(g, true)), 3);
  EXPECT_EQ(launches(*compiled(g, true), "batch"), 0);
}

/// A state's new value that something reads which also reads the old one: the batch must not come between.
TEST(DeviceBatch, WhatIsReadAfterwardsIsNoPartOfTheLastBatch) {
  ir::Graph g{
      .name = "order", .level = ir::Level::tensor, .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  std::vector<Value> next;
  for (int i = 0; i < 4; ++i) {
    const std::string n = std::to_string(i);
    const Value p = g.inputs.emplace_back(ir::new_input("p" + n, {Dtype::f32, {20 + i}}));
    next.push_back(op::mul(p, 0.5));
    g.outputs.push_back({"p" + n + "'", next.back()});
    g.state.push_back({"p" + n, "p" + n + "'"});
  }
  // Of p1's next and p0's old value, and the other way round.
  const auto head = [](const Value& v) { return op::reduce_sum(op::slice(v, {0}, {8}), {0}); };
  g.outputs.push_back({"a", op::mul(head(next[1]), head(g.inputs[0]))});
  g.outputs.push_back({"b", op::mul(head(next[0]), head(g.inputs[1]))});
  std::mt19937_64 rng(1);
  const std::vector<Array> inputs = random_inputs(g, rng);
  EXPECT_EQ(run_twice(compiled(g, true), inputs, target::cuda::sim::Order::forward),
            run_twice(compiled(g, false), inputs, target::cuda::sim::Order::forward));
}

}  // namespace
}  // namespace espalier
