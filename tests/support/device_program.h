#pragma once
// A graph as a program of a device with its executor: planned, fed and read.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "run/device_executor.h"
#include "support/errors.h"
#include "target/cuda/cuda_target.h"

namespace espalier::test {

/// Planned for sm_90, with red zones, or each buffer `apart`.
inline std::shared_ptr<const run::Program> compiled(const ir::Graph& g,
                                                    std::vector<run::InputRange> ranges = {},
                                                    bool apart = false) {
  run::CompileOptions options;
  options.apart = apart;
  options.target = &target::cuda::cuda_target(90);
  options.ranges = std::move(ranges);
  options.red_zone = apart ? 0 : 64;
  return run::Program::compile(g, options);
}

inline std::shared_ptr<const run::DeviceProgram> loaded(const ir::Graph& g,
                                                        std::shared_ptr<target::Device> device,
                                                        bool apart = false) {
  return std::make_shared<run::DeviceProgram>(compiled(g, {}, apart), std::move(device));
}

inline void write(void* to, const ir::Array& a) {
  if (a.bytes() > 0) std::memcpy(to, a.data(), static_cast<size_t>(a.bytes()));
}

inline ir::Array array_of(const run::Port& port, const void* from) {
  ir::Array a(port.type.dtype, ir::static_dims(port.type.dims));
  if (a.bytes() > 0) std::memcpy(a.write(), from, static_cast<size_t>(a.bytes()));
  return a;
}

/// Put the inputs where they belong; states when `first`.
inline void feed(run::DeviceExecutor& e, std::span<const ir::Array> inputs, bool first) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!e.program().is_state_input(i)) write(e.input(i), inputs[i]);
    else if (first) e.write_state(e.program().inputs()[i].name, inputs[i].data());
  }
}

inline std::vector<ir::Array> outputs_of(run::DeviceExecutor& e, run::Ticket ticket) {
  std::vector<ir::Array> all;
  for (size_t o = 0; o < e.program().outputs().size(); ++o) {
    const run::Port& port = e.program().outputs()[o];
    if (!e.program().is_state_output(o)) {
      all.push_back(array_of(port, e.output(ticket, o)));
      continue;
    }
    ir::Array state(port.type.dtype, ir::static_dims(port.type.dims));
    e.read_state(e.program().inputs()[static_cast<size_t>(e.program().state_input(o))].name, state.write());
    all.push_back(state);
  }
  return all;
}

template <class F>
void expect_user_error(const F& f, std::initializer_list<std::string_view> words) {
  const std::string text = test::error_of(f);
  for (const std::string_view w : words) EXPECT_NE(text.find(w), std::string::npos) << w << " in " << text;
}

}  // namespace espalier::test
