#pragma once
// Matrix products and what goes along with them: graphs, their records, and programs of them on the simulated device beside the reference.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "op/contraction.h"
#include "op/movement.h"
#include "op/sampling.h"
#include "run/device_executor.h"
#include "support/cuda_calls.h"
#include "support/graph_of.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/match/gemm.h"
#include "target/cuda/sim/sim_driver.h"
#include "target/reference/interpreter.h"

namespace espalier::test {

inline Value along_rows(const Value& v, const Value& like) { return op::broadcast_to(v, like.dims()); }

/// x [..., k] times w [k, n].
inline Value product(const Value& x, const Value& w, Dtype out) {
  return op::dot(x, w, {.contract_a = {x.rank() - 1}, .contract_b = {0}, .out = out});
}

/// Numbers between -1 and 1 for its inputs.
inline std::vector<Array> drawn(const ir::Graph& g, uint64_t seed) {
  ir::SampleRng rng(seed);
  std::vector<Array> out;
  for (const Value& v : g.inputs)
    out.push_back(op::draw_array(rng, v.dtype(), ir::static_dims(v.dims()), -1, 1));
  return out;
}

/// The records of a body. InternalError: there are none, and why.
inline target::cuda::CallList calls(const ir::Graph& g) {
  const auto ask = [](const target::CallRecord::Work&) { return target::LibraryAnswer{.workspace = 256}; };
  auto made = target::cuda::gemm_calls(g, {.ask = ask});
  if (const auto* refused = std::get_if<kernel::Refusal>(&made))
    throw InternalError(refused->reason + ir::print(g));
  return std::get<target::cuda::CallList>(std::move(made));
}

inline std::shared_ptr<const run::Program> compiled(const ir::Graph& g, const target::Target& target,
                                                    pass::Precision precision = pass::Precision::f32,
                                                    bool exact = false) {
  run::CompileOptions options;
  options.target = &target;
  options.precision = precision;
  options.exact = exact;
  return run::Program::compile(g, options);
}

/// Those of all products, sorted.
inline std::vector<std::string> epilogues(const run::Program& p) {
  std::vector<std::string> out;
  for (const run::Step& s : p.steps())
    for (const target::CallRecord& call : s.kernel->calls())
      if (const auto* gemm = std::get_if<target::GemmCall>(&call.work))
        out.emplace_back(target::epilogue_name(gemm->epilogue));
  std::sort(out.begin(), out.end());
  return out;
}

/// The results of one run on `device`, whose memory is poisoned before.
inline std::vector<Array> results_on(const std::shared_ptr<target::Device>& device, const ir::Graph& g,
                                     const std::shared_ptr<const run::Program>& program,
                                     const std::vector<Array>& inputs) {
  run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(program, device));
  for (size_t i = 0; i < inputs.size(); ++i)
    std::memcpy(e.input(i), inputs[i].data(), static_cast<size_t>(inputs[i].bytes()));
  e.poison();
  const run::Ticket ticket = e.run();
  std::vector<Array> out;
  for (size_t o = 0; o < g.outputs.size(); ++o) {
    const ir::Type type = g.outputs[o].value.type();
    out.emplace_back(type.dtype, ir::static_dims(type.dims));
    std::memcpy(out[o].write(), e.output(ticket, o), static_cast<size_t>(out[o].bytes()));
  }
  return out;
}

/// `got` is within `tolerance` of the largest element of each of `want`.
inline void expect_near(const std::vector<Array>& got, const std::vector<Array>& want, double tolerance,
                        const std::string& what) {
  for (size_t o = 0; o < want.size(); ++o) {
    double largest = 0, off = 0;
    for (int64_t i = 0; i < want[o].size(); ++i) {
      largest = std::max(largest, std::fabs(want[o].at(i)));
      off = std::max(off, std::isnan(got[o].at(i)) ? 1e30 : std::fabs(got[o].at(i) - want[o].at(i)));
    }
    EXPECT_LE(off, tolerance * largest) << "result " << o << "\n" << what;
  }
}

/// The graph compiled for the simulated device beside the reference.
inline void expect_values(const ir::Graph& g, pass::Precision precision, double tolerance) {
  const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device();
  const auto program = compiled(g, *target::cuda::cuda_target(device), precision);
  const std::vector<Array> inputs = drawn(g, 7);
  expect_near(results_on(device, g, program, inputs), target::reference::evaluate(g, inputs), tolerance,
              program->text());
}

}  // namespace espalier::test
