#pragma once
// Every GPU that the driver shows, without a context on any: asking costs no memory of the device.
#include <string>
#include <vector>

#include "target/cuda/driver/tables/cu.h"
#include "target/cuda/driver/tables/nvml.h"
#include "target/device_info.h"

namespace espalier::target::cuda::driver {

struct DeviceList {
  std::vector<DeviceInfo> devices;
  std::string problem;  ///< why there are none; empty where there are some
};

/// Ask the driver, and NVML (null: absent) about the same devices, matched by UUID. Calls cuInit(). A call that fails leaves its field
/// unknown and a note with the device.
DeviceList list_devices(const CuApi& cu, const NvmlApi* nvml);

/// One of them; cuInit() has been called.
DeviceInfo describe_device(const CuApi& cu, const NvmlApi* nvml, int index);

/// An error of the driver: "CUDA_ERROR_OUT_OF_MEMORY (2): out of memory".
std::string error_text(const CuApi& cu, CuResult error);

}  // namespace espalier::target::cuda::driver
