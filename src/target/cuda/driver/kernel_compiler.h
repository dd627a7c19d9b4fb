#pragma once
// Who turns the text of kernels into what a driver loads.
#include <span>
#include <string>
#include <vector>

#include "target/call.h"
#include "target/device.h"

namespace espalier::target::cuda::driver {

/// What cuModuleLoadData() takes, and the kernels in it.
struct KernelImage {
  std::string bytes;
  std::vector<std::string> kernels;
  bool found = false;     ///< in the cache: nothing was compiled
  bool prebuilt = false;  ///< in a folder of images: nothing was compiled either
};

/// There is no compiler here, or none that knows the device.
class NoCompiler : public DeviceError {
 public:
  explicit NoCompiler(ErrorFields fields) : DeviceError(std::move(fields), false) {}
};

class KernelCompiler {
 public:
  virtual ~KernelCompiler() = default;
  /// Images that together hold `sources`, of different names, for a device of that compute capability (10 major + minor). Safe from any
  /// thread. DeviceError with the compiler's words where it refuses, NoCompiler where there is none.
  virtual std::vector<KernelImage> compile(std::span<const KernelSource> sources, int capability) = 0;
};

}  // namespace espalier::target::cuda::driver
