#pragma once
// What functions can be compiled for on this machine. Safe from any thread.
#include <string>
#include <vector>

#include "ir/dtype.h"

namespace espalier {

struct Device {
  std::string target;   ///< for CompileOptions::target
  std::string what;     ///< one line for people
  int threads = 1;      ///< that a compiled function runs on
  ir::Dtype fastest{};  ///< the fastest precision of matrix work: f32 or bf16
};

/// The devices of this machine and build, the default one first.
ESPALIER_API std::vector<Device> devices();

}  // namespace espalier
