#pragma once
// Kernels that are compiled beforehand, for machines without NVRTC: what is asked for and what came of it. Plain data, between the library and
// its plugin.
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "target/call.h"

namespace espalier::target::cuda {

struct ImageRequest {
  std::map<int, std::vector<KernelSource>> sources;  ///< by architecture: 90 is sm_90
  std::filesystem::path folder;                      ///< made where it is not there; what it has stays
};

struct ImagesMade {
  std::string compiler;        ///< "nvrtc 13.0.88"
  int64_t made = 0, kept = 0;  ///< images: made now, and those that the folder had
  int64_t bytes = 0;           ///< of all that were asked for
};

}  // namespace espalier::target::cuda
