#pragma once
// The CUDA driver API (libcuda.so.1), as far as it is used. Names and values are NVIDIA's, written down from its documentation;
// vendor_check.cpp holds them against the vendor's header where that is installed.
#include <cstddef>
#include <cstdint>

#include "target/cuda/driver/tables/entry.h"

namespace espalier::target::cuda::driver {

using CuResult = int;  // CUresult: 0 is success
using CuDevice = int;  // CUdevice
inline constexpr CuResult cu_success = 0, cu_error_no_device = 100;

/// CUuuid.
struct CuUuid {
  unsigned char bytes[16];
};

/// CUdevice_attribute. Clocks are in kHz, sizes in bytes, the bus in bits.
enum class CuAttribute : int {
  shared_per_block = 8,
  clock_rate = 13,
  multiprocessors = 16,
  integrated = 18,
  compute_mode = 20,
  ecc_enabled = 32,
  memory_clock_rate = 36,
  memory_bus_width = 37,
  l2_size = 38,
  threads_per_multiprocessor = 39,
  capability_major = 75,
  capability_minor = 76,
  shared_per_multiprocessor = 81,
  registers_per_multiprocessor = 82,
  shared_per_block_opt_in = 97,
};

/// The functions, as CUDA 12.0 has them.
struct CuApi {
  CuResult (*Init)(unsigned flags);
  CuResult (*DriverGetVersion)(int* version);
  CuResult (*GetErrorName)(CuResult error, const char** name);
  CuResult (*GetErrorString)(CuResult error, const char** text);
  CuResult (*DeviceGetCount)(int* count);
  CuResult (*DeviceGet)(CuDevice* device, int index);
  CuResult (*DeviceGetName)(char* name, int size, CuDevice device);
  CuResult (*DeviceGetUuid)(CuUuid* uuid, CuDevice device);
  CuResult (*DeviceGetPCIBusId)(char* id, int size, CuDevice device);
  CuResult (*DeviceTotalMem)(size_t* bytes, CuDevice device);
  CuResult (*DeviceGetAttribute)(int* value, CuAttribute attribute, CuDevice device);
  CuResult (*DeviceCanAccessPeer)(int* can, CuDevice device, CuDevice peer);
};

/// The oldest driver that is used, as cuDriverGetVersion() counts: 1000 major + 10 minor.
inline constexpr int cu_oldest_driver = 12000;

inline constexpr std::tuple cu_entries{
    entry("cuInit", &CuApi::Init),
    entry("cuDriverGetVersion", &CuApi::DriverGetVersion),
    entry("cuGetErrorName", &CuApi::GetErrorName),
    entry("cuGetErrorString", &CuApi::GetErrorString),
    entry("cuDeviceGetCount", &CuApi::DeviceGetCount),
    entry("cuDeviceGet", &CuApi::DeviceGet),
    entry("cuDeviceGetName", &CuApi::DeviceGetName),
    entry("cuDeviceGetUuid", &CuApi::DeviceGetUuid, Need::optional),
    entry("cuDeviceGetPCIBusId", &CuApi::DeviceGetPCIBusId, Need::optional),
    entry("cuDeviceTotalMem", &CuApi::DeviceTotalMem),
    entry("cuDeviceGetAttribute", &CuApi::DeviceGetAttribute),
    entry("cuDeviceCanAccessPeer", &CuApi::DeviceCanAccessPeer, Need::optional),
};

/// "cuGetProcAddress_v2" to dlsym, there since CUDA 12: the function of that name as `version` had it.
using CuGetProcAddress = CuResult(const char* name, void** function, int version, uint64_t flags,
                                  int* status);

}  // namespace espalier::target::cuda::driver
