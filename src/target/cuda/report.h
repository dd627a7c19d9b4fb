#pragma once
// What this machine has for the CUDA target: plain data, filled by the plugin.
#include <string>
#include <vector>

#include "base/dynamic_library.h"
#include "target/device_info.h"

namespace espalier::target::cuda {

/// One of NVIDIA's libraries.
struct LibraryReport {
  std::string name;     ///< "driver", "nvml", "nvrtc", "cublaslt", "cudnn", "nccl"
  std::string purpose;  ///< what it is needed for
  bool found = false;
  std::string version;                   ///< "13.0"; empty where it is not found
  std::filesystem::path path;            ///< of the file that is used
  std::string reason;                    ///< why it is absent, in one line; empty where it is found
  std::vector<LibraryAttempt> attempts;  ///< what was tried before, or in vain
};

/// How much to ask: the libraries that compute take a tenth of a second to load.
enum class Ask { devices, everything };

struct CudaReport {
  std::string problem;         ///< why there is no GPU; empty where there is one
  std::string driver_release;  ///< the driver's own number, as "580.65.06"; empty where NVML does not tell
  std::vector<DeviceInfo> devices;
  std::vector<LibraryReport> libraries;  ///< none for Ask::devices
};

}  // namespace espalier::target::cuda
