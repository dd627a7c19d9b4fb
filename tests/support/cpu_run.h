#pragma once
// Running a graph on the CPU target, with everything that could hide an error taken away.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "run/executor.h"
#include "support/arrays.h"
#include "target/cpu/cpu_target.h"

namespace espalier::test {

/// The outputs of `graph` compiled for the CPU and run twice, the second time over poisoned memory: equal bits both times.
inline std::vector<ir::Array> run_on_cpu(const ir::Graph& graph, std::span<const ir::Array> inputs,
                                         run::CompileOptions options = {}) {
  options.target = &target::cpu::cpu_target();
  run::Executor executor(run::Program::compile(graph, options));
  const run::Program& program = executor.program();
  std::vector<ir::Array> operands;
  for (size_t i = 0; i < inputs.size(); ++i) {
    operands.push_back(guarded(inputs[i]));
    executor.bind_input(i, operands.back().data());
  }
  std::vector<std::unique_ptr<GuardedBuffer>> buffers;
  for (size_t o = 0; o < program.outputs().size(); ++o) {
    buffers.push_back(std::make_unique<GuardedBuffer>(static_cast<size_t>(program.outputs()[o].bytes())));
    executor.bind_output(o, buffers.back()->data());
  }
  std::vector<ir::Array> results[2];
  for (std::vector<ir::Array>& result : results) {
    executor.poison();
    executor.run();
    for (size_t o = 0; o < program.outputs().size(); ++o) {
      const ir::Type& t = program.outputs()[o].type;
      result.emplace_back(t.dtype, ir::static_dims(t.dims));
      std::memcpy(result.back().write(), buffers[o]->data(), buffers[o]->bytes());
      EXPECT_TRUE(buffers[o]->tail_is_clean()) << "output " << o << " is written past its end";
    }
  }
  for (size_t o = 0; o < results[0].size(); ++o)
    EXPECT_EQ(results[0][o], results[1][o]) << "the runs differ, output " << o;
  for (size_t i = 0; i < inputs.size(); ++i)
    EXPECT_EQ(operands[i], inputs[i]) << "input " << i << " was written to";
  return results[0];
}

}  // namespace espalier::test
