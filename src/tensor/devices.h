#pragma once
// What this machine can run on. Safe from any thread.
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ir/dtype.h"
#include "target/device_info.h"
#include "tensor/device.h"

namespace espalier {

struct DeviceDescription {
  Device device;                          ///< what CompileOptions take
  std::string what;                       ///< one line for people
  int threads = 0;                        ///< of the host that a compiled function runs on; 0 for a GPU
  ir::Dtype fastest{};                    ///< the fastest precision of matrix work: f32 or bf16
  std::optional<target::DeviceInfo> gpu;  ///< what is known of a GPU, asked at this call
};

/// The devices of this machine and build: the default one first, the GPUs last.
ESPALIER_API std::vector<DeviceDescription> devices();

/// A device by a name that may leave the choice open.
struct ChosenDevice {
  Device device;
  std::string why;                   ///< one line for people; "" where the name left no choice
  std::shared_ptr<const void> open;  ///< keeps a GPU that was looked at open until it is used
};
/// "auto": the first GPU that can be had and planned for, else the processor. Any other name: Device::named() of it.
ESPALIER_API ChosenDevice choose_device(std::string_view name);

/// Why devices() lists no GPU, in one line; empty where it lists one.
ESPALIER_API std::string why_no_gpu();

}  // namespace espalier
