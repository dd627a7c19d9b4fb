// The profiler of programs on a device: what is timed, by which events, and what becomes of the times.
#include "run/device_profiler.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "op/contraction.h"
#include "op/control.h"
#include "op/elementwise.h"
#include "op/reduction.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier {
namespace {

using ir::Dtype;
using ir::Graph;
using ir::Value;
using target::cuda::sim::make_sim_device;
using target::cuda::sim::SimDriver;
using testing::HasSubstr;

std::shared_ptr<const run::DeviceProgram> loaded(const std::vector<Value>& inputs,
                                                 const std::vector<Value>& outputs,
                                                 std::shared_ptr<target::Device> device) {
  Graph g{.name = "g", .level = ir::Level::tensor, .inputs = inputs, .outputs = {}, .state = {}, .info = {}};
  for (size_t i = 0; i < outputs.size(); ++i) g.outputs.push_back({"y" + std::to_string(i), outputs[i]});
  run::CompileOptions options;
  options.target = &target::cuda::cuda_target(90);
  return std::make_shared<run::DeviceProgram>(run::Program::compile(g, options), std::move(device));
}

/// A product, then a softmax's sum: two records of different kinds at least.
std::shared_ptr<const run::DeviceProgram> small_program(std::shared_ptr<target::Device> device) {
  const Value x = ir::new_input("x", {Dtype::f32, {32, 64}}), w = ir::new_input("w", {Dtype::f32, {64, 16}});
  return loaded({x, w}, {op::reduce_sum(op::exp(op::matmul(x, w)), {1})}, std::move(device));
}

void feed(run::DeviceExecutor& e) {
  for (size_t i = 0; i < e.program().inputs().size(); ++i) {
    auto* to = static_cast<float*>(e.input(i));
    for (int64_t k = 0; k < e.program().inputs()[i].bytes() / 4; ++k)
      to[k] = 0.01f * static_cast<float>(k % 7);
  }
}

TEST(DeviceProfiler, TimesEveryRecordAndCopy) {
  const auto program = small_program(make_sim_device());
  run::DeviceExecutor e(program);
  const run::Profile p = run::profile(e, 3, feed);
  ASSERT_EQ(p.steps.size(), program->calls().size());
  ASSERT_GE(p.steps.size(), 2u);
  int products = 0;
  double shares = 0;
  for (size_t i = 0; i < p.steps.size(); ++i) {
    EXPECT_EQ(p.steps[i].bytes, program->calls()[i].cost.bytes);
    EXPECT_EQ(p.steps[i].flops, program->calls()[i].cost.flops);
    EXPECT_GT(p.steps[i].median_ns, 0);
    EXPECT_EQ(p.steps[i].what.find(" :"), std::string::npos);
    products += p.steps[i].what.starts_with("gemm 16 x 32 x 64");
    shares += p.steps[i].share;
  }
  EXPECT_EQ(products, 1) << run::table_text(p);
  EXPECT_NEAR(shares, 1, 1e-9);
  ASSERT_TRUE(p.device);
  EXPECT_EQ(p.device->in_bytes, 4 * (32 * 64 + 64 * 16));
  EXPECT_GT(p.device->in_ns, 0);
  EXPECT_GT(p.device->out_ns, 0);
  EXPECT_GT(p.device->run_ns, 0);
  EXPECT_GT(p.device->copied_ns, 0);
  EXPECT_LE(p.device->hidden_ns, p.device->copied_ns);
  EXPECT_THAT(run::table_text(p), HasSubstr("copies in"));
  EXPECT_THAT(run::table_text(p, 1), HasSubstr("more records"));
  const auto json = nlohmann::json::parse(run::json_text(p));
  EXPECT_EQ(json["steps"].size(), p.steps.size());
  EXPECT_EQ(json["copies"]["in_bytes"], p.device->in_bytes);
}

TEST(DeviceProfiler, LeavesTheExecutorAsItWas) {
  run::DeviceExecutor e(small_program(make_sim_device()));
  feed(e);
  run::Ticket t = e.run();
  const auto result = [&] {
    const auto* at = static_cast<const float*>(e.output(t, 0));
    return std::vector<float>(at, at + 32);
  };
  const std::vector<float> first = result();
  (void)run::profile(e, 2, feed);
  feed(e);
  const int64_t replays = e.replays();
  t = e.run();
  EXPECT_EQ(e.replays(), replays + 1) << "graphs go on";
  EXPECT_EQ(result(), first);
}

TEST(DeviceProfiler, GivesItsEventsBack) {
  const auto driver = std::make_shared<SimDriver>();
  run::DeviceExecutor e(small_program(make_sim_device(driver)));
  const auto before = driver->live().events;
  (void)run::profile(e, 2, feed);
  EXPECT_EQ(driver->live().events, before);
  driver->fail({.call = 30, .error = target::cuda::driver::cu_error_out_of_memory});
  EXPECT_THROW((void)run::profile(e, 2, feed), target::DeviceError);
  EXPECT_EQ(driver->live().events, before);
  driver->fail({});
  feed(e);
  e.run();
}

TEST(DeviceProfiler, TraceIsWhatChromeReads) {
  run::DeviceExecutor e(small_program(make_sim_device()));
  const run::Profile p = run::profile(e, 3, feed);
  const auto trace = nlohmann::json::parse(run::chrome_trace(p));
  std::map<std::pair<int, int>, double> ends;  // of each scene and lane
  std::set<std::string> names;
  size_t records = 0;
  for (const auto& event : trace["traceEvents"]) {
    if (event["ph"] == "M") {
      names.insert(event["args"]["name"]);
      continue;
    }
    ASSERT_EQ(event["ph"], "X");
    const double begin = event["ts"], us = event["dur"];
    EXPECT_GE(begin, 0);
    EXPECT_GE(us, 0);
    double& end = ends[{event["pid"], event["tid"]}];
    EXPECT_GE(begin, end - 0.002) << "pieces of a stream overlap";
    end = begin + us;
    records += event["args"].contains("kernel");
  }
  EXPECT_EQ(records, p.steps.size());
  EXPECT_EQ(ends.size(), 6u) << "three streams in two scenes";
  EXPECT_TRUE(names.contains("copies in") && names.contains("computing") && names.contains("copies out"));
}

TEST(DeviceProfiler, ALoopsRecordIsSummedOverItsTurns) {
  const Value x = ir::new_input("x", {Dtype::f32, {8}});
  const ir::GraphRef body = op::body_graph("turn", std::vector{x.type()}, [](const std::vector<Value>& in) {
    return std::vector<Value>{op::sin(in[0])};
  });
  const auto out = op::scan({.body = body, .carries = 1, .slices = 0, .length = 5}, {x});
  const auto program = loaded({x}, {out[0]}, make_sim_device());
  run::DeviceExecutor e(program);
  const run::Profile p = run::profile(e, 1, feed);
  ASSERT_EQ(p.steps.size(), program->calls().size());
  std::map<int, int> turns;
  for (const run::Span& s : p.spans)
    if (s.scene == 0 && s.row >= 0) ++turns[s.row];
  int most = 0;
  for (const auto& [row, n] : turns) {
    EXPECT_EQ(p.steps[static_cast<size_t>(row)].step, 0u);
    most = std::max(most, n);
  }
  EXPECT_EQ(most, 5);
}

TEST(DeviceProfiler, CopiesBesideTheComputingOfOtherRuns) {
  using enum run::Lane;
  const std::vector<run::TimedPiece> pieces{
      {.lane = copies_in, .ticket = 0, .begin_ms = 0, .end_ms = 2},  // nothing beside it
      {.lane = computing, .ticket = 0, .begin_ms = 2, .end_ms = 10},
      {.lane = copies_in, .ticket = 1, .begin_ms = 3, .end_ms = 5},  // all of it
      {.lane = computing, .ticket = 1, .begin_ms = 10, .end_ms = 18},
      {.lane = copies_out, .ticket = 0, .begin_ms = 9, .end_ms = 11},   // half: its own run is no other
      {.lane = copies_out, .ticket = 1, .begin_ms = 18, .end_ms = 19},  // none
  };
  const run::CopyOverlap o = run::copies_beside_computing(pieces);
  EXPECT_DOUBLE_EQ(o.copied_ms, 7);
  EXPECT_DOUBLE_EQ(o.hidden_ms, 3);
}

TEST(DeviceProfiler, CeilingsFollowFromTheDriversFigures) {
  target::DeviceInfo info{.name = "some GPU", .capability = 90, .multiprocessors = 132, .clock_mhz = 1980};
  info.memory_clock_mhz = 3201;
  info.memory_bus_bits = 6144;
  run::Ceilings c = run::device_ceilings(info);
  EXPECT_NEAR(c.read_bytes, 4.917e12, 1e9);
  EXPECT_NEAR(c.f32_flops, 66.9e12, 1e11);
  EXPECT_NEAR(c.matrix_flops(Dtype::bf16), 1070.5e12, 1e12);
  EXPECT_EQ(c.matrix_flops(Dtype::f16), c.bf16_flops);
  EXPECT_EQ(c.matrix_flops(Dtype::f64), c.f32_flops);
  EXPECT_THAT(c.text(), HasSubstr("some GPU"));
  info.capability = 77;
  c = run::device_ceilings(info);
  EXPECT_EQ(c.f32_flops, 0);
  EXPECT_EQ(run::limit_ns({.bytes = 0, .flops = 100, .matrix = true}, c), 0) << "not known";
}

}  // namespace
}  // namespace espalier
