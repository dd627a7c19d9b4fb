// Memory of executors on a device: the arena that programs share, what callers bind, what is empty, and what is counted.
#include "base/align.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/sampling.h"
#include "run/scratch.h"
#include "support/device_program.h"
#include "support/graph_of.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
using ir::Graph;
using ir::Value;
using target::cuda::sim::make_sim_device;
using target::cuda::sim::SimDriver;
using target::cuda::sim::SimOptions;
using test::expect_user_error;
using test::feed;
using test::graph_of;
using test::loaded;
using test::outputs_of;
using test::write;

std::shared_ptr<target::Device> new_device() { return make_sim_device(SimOptions{}); }

TEST(ExecutorMemory, AnEmptyTensorMayHaveNoMemory) {
  const Value x = ir::new_input("x", {Dtype::f32, {3}}), none = ir::new_input("none", {Dtype::f32, {0}}),
              s = ir::new_input("s", {Dtype::f32, {0}});
  Graph g = graph_of({x, none, s}, {op::concat({x, none}, 0), op::add(s, none)});
  g.state.push_back({"s", "y1"});
  const auto device = new_device();
  for (const bool apart : {false, true}) {
    const auto program = loaded(g, device, apart);
    for (const std::vector<size_t>& external : {std::vector<size_t>{}, {1}}) {
      run::DeviceExecutor e(program, {.own_state = false, .external = external});
      e.bind_input(1, 0);
      e.bind_state("s", 0);
      for (int r = 0; r < 3; ++r) {
        write(e.input(0), Array::of<float>({3}, {1, 2, 3}));
        EXPECT_EQ(static_cast<const float*>(e.output(e.run(), 0))[2], 3);
      }
      expect_user_error([&] { e.bind_input(0, 0); }, {"input x", "null memory"});
    }
  }
}

/// Results where the caller wants them, with graphs and without: what is bound is not copied, and may be nobody else's.
TEST(ExecutorMemory, OutputsInDeviceMemory) {
  const Value x = ir::new_input("x", {Dtype::f32, {8}}), w = ir::new_input("w", {Dtype::f32, {8}}),
              s = ir::new_input("s", {Dtype::f32, {8}});
  Graph g = graph_of({x, w, s}, {op::mul(x, 2.0), op::add(x, w), op::add(s, x), op::neg(x)});
  g.state.push_back({"s", "y2"});
  for (const bool apart : {false, true}) {
    const auto device = new_device();
    run::DeviceExecutor e(loaded(g, device, apart), {});
    const run::DeviceMemory memory = run::device_memory(*device, 1024);
    EXPECT_EQ(e.output_bytes(), apart ? 3 * 32 : 2 * 256 + 32);
    e.bind_input(1, memory.get());
    write(e.input(0), Array::full(Dtype::f32, {8}, 5));
    const run::Ticket before = e.run();
    e.bind_output(1, memory.get() + 256);
    EXPECT_NE(e.output(before, 1), nullptr) << "of a run that was there before";
    EXPECT_EQ(e.output_bytes(), 2 * 32);
    EXPECT_EQ(e.input_bytes(), 32);
    for (int r = 0; r < 4; ++r) {
      if (r == 3) e.bind_output(1, memory.get() + 512);
      e.poison();
      const std::vector<float> w_now(8, 10.f * static_cast<float>(r));
      run::upload_and_wait(*device, memory.get(), w_now.data(), 32);
      write(e.input(0), Array::full(Dtype::f32, {8}, r + 1));
      const run::Ticket ticket = e.run();
      EXPECT_EQ(e.output(ticket, 1), nullptr);
      EXPECT_EQ(static_cast<const float*>(e.output(ticket, 0))[7], 2 * (r + 1));
      EXPECT_EQ(static_cast<const float*>(e.output(ticket, 3))[7], -(r + 1));
      std::vector<float> got(8);
      run::download_and_wait(*device, got.data(), memory.get() + (r < 3 ? 256 : 512), 32);
      EXPECT_EQ(got, std::vector<float>(8, static_cast<float>(11 * r + 1)));
      expect_user_error([&] { e.hold(ticket, 1, {}); }, {"output y1", "is bound"});
    }
    EXPECT_EQ(e.replays(), 4) << "all but the first";
    const int64_t runs = e.runs();
    e.bind_output(0, memory.get() + 512);
    expect_user_error([&] { e.submit(); }, {"output y0 and output y1", "share memory"});
    e.bind_output(0, memory.get());
    expect_user_error([&] { e.submit(); }, {"output y0 and input w", "the program writes the output"});
    e.bind_output(0, e.state("s"));
    expect_user_error([&] { e.submit(); }, {"output y0 and state s"});
    EXPECT_EQ(e.runs(), runs);
    expect_user_error([&] { e.bind_output(2, memory.get()); }, {"output y2", "bind_state"});
    expect_user_error([&] { e.bind_output(0, 0); }, {"output y0", "null memory"});
    expect_user_error([&] { e.bind_output(0, memory.get() + 4); }, {"output y0", "not aligned"});
  }
}

/// Programs that compute one after the other do so in one piece of memory, of the largest; who was there before it grew goes on.
TEST(ExecutorMemory, OneArenaForAll) {
  const auto driver = std::make_shared<SimDriver>(SimOptions{});
  {
    const std::shared_ptr<target::Device> device = make_sim_device(driver);
    const auto scratch = std::make_shared<run::Scratch>(*device);
    const auto deep = [&](int64_t n) {
      const Value x = ir::new_input("x", {Dtype::f32, {n, n}});
      const Graph g = graph_of({x}, {op::matmul(op::matmul(x, x), x)});
      return std::make_shared<const run::DeviceProgram>(
          run::Program::compile(g, {.target = &target::cuda::cuda_target(90)}), device);
    };
    const auto alone = [&](const std::shared_ptr<const run::DeviceProgram>& p, const Array& x) {
      run::DeviceExecutor e(p, {});
      feed(e, std::vector{x}, true);
      return outputs_of(e, e.run());
    };
    const std::shared_ptr<const run::DeviceProgram> programs[] = {deep(20), deep(40), deep(30)};
    std::vector<int64_t> arenas;
    for (const auto& p : programs) arenas.push_back(round_up(p->program().memory().arena, run::device_piece));
    EXPECT_LT(arenas[0], arenas[2]);
    EXPECT_LT(arenas[2], arenas[1]);
    const run::OwnedStream stream = run::owned_stream(*device);
    const auto before = device->account().statistics().in_use;
    const auto there = [&] { return device->account().statistics().in_use - before; };
    std::vector<std::unique_ptr<run::DeviceExecutor>> all;
    std::mt19937_64 rng(5);
    int64_t own = 0, largest = 0;
    for (size_t i = 0; i < 3; ++i) {
      all.push_back(std::make_unique<run::DeviceExecutor>(
          programs[i], run::DeviceExecutorOptions{.stream = stream.get(), .scratch = scratch}));
      own += all.back()->allocated_bytes() - arenas[i];
      largest = std::max(largest, arenas[i]);
      EXPECT_EQ(there(), own + largest);
      for (int r = 0; r < 3; ++r)
        for (const auto& e : all) {
          const Array x =
              op::draw_array(rng, Dtype::f32, ir::static_dims(e->program().inputs()[0].type.dims), -1, 1);
          if (r == 0 && e == all.back()) e->poison();
          feed(*e, std::vector{x}, true);
          EXPECT_EQ(outputs_of(*e, e->run()), alone(programs[static_cast<size_t>(&e - all.data())], x));
        }
    }
    EXPECT_EQ(all[0]->replays(), 8) << "captured anew where the memory has moved";
    own -= all[1]->allocated_bytes() - arenas[1];
    all.erase(all.begin() + 1);
    EXPECT_EQ(there(), own + largest) << "until someone who has the turn says so";
    scratch->shrink(stream.get());
    EXPECT_EQ(there(), own);
    for (const auto& e : all) {
      const Array x =
          op::draw_array(rng, Dtype::f32, ir::static_dims(e->program().inputs()[0].type.dims), -1, 1);
      feed(*e, std::vector{x}, true);
      EXPECT_EQ(outputs_of(*e, e->run()), alone(programs[e == all[0] ? 0 : 2], x));
    }
    EXPECT_EQ(there(), own + arenas[2]);
    all.clear();
    EXPECT_EQ(there(), 0);
  }
  EXPECT_EQ(driver->leaked(), "");
}

TEST(ExecutorMemory, WhatTheDeviceHasLostIsTold) {
  const auto driver = std::make_shared<SimDriver>(SimOptions{.taken_bytes = 1 << 20});
  const auto device = std::shared_ptr<target::Device>(make_sim_device(driver));
  EXPECT_EQ(device->taken_bytes(), 0) << "others had theirs before";
  const run::DeviceMemory memory = run::device_memory(*device, 1024);
  EXPECT_EQ(device->taken_bytes(), 1024);
  driver->take({.device = 3 << 20});
  EXPECT_EQ(device->taken_bytes(), 1024 + (2 << 20));
}

/// Memory of the device in place of a slot, and one state of two executors.
TEST(ExecutorMemory, DeviceMemoryAndStatesAreShared) {
  const Value x = ir::new_input("x", {Dtype::f32, {8}}), s = ir::new_input("s", {Dtype::f32, {8}});
  Graph g = graph_of({x, s}, {op::add(s, x)});
  g.state.push_back({"s", "y0"});
  const auto device = new_device();
  const auto program = loaded(g, device);
  run::DeviceMemory memory = run::device_memory(*device, 512);
  const std::vector<float> ones(8, 1), twos(8, 2);
  run::upload_and_wait(*device, memory.get(), ones.data(), 32);
  run::upload_and_wait(*device, memory.get() + 256, twos.data(), 32);
  run::DeviceExecutor a(program, {.own_state = false}), b(program, {.own_state = false});
  expect_user_error([&] { a.submit(); }, {"state s", "not bound"});
  for (run::DeviceExecutor* e : {&a, &b}) {
    e->bind_input(0, memory.get());
    e->bind_state("s", memory.get() + 256);
    EXPECT_EQ(e->input(0), nullptr);
    e->run();
  }
  std::vector<float> got(8);
  a.read_state("s", got.data());
  EXPECT_EQ(got, std::vector<float>(8, 4));

  const int64_t runs = a.runs();
  a.bind_input(0, memory.get() + 256 - 64);
  EXPECT_NO_THROW(a.run());
  a.bind_state("s", memory.get() + 256 - 64);
  expect_user_error([&] { a.submit(); }, {"state s and input x", "share memory"});
  EXPECT_EQ(a.runs(), runs + 1) << "it was not begun";
}

}  // namespace
}  // namespace espalier
