#pragma once
// How kernels are compiled for a GPU: plain data, from the library to its plugin.
#include <string>
#include <vector>

namespace espalier::target::cuda {

struct KernelTexts {
  std::string header;                ///< stands before every kernel
  std::vector<std::string> options;  ///< of NVRTC, beside the architecture
};

}  // namespace espalier::target::cuda
