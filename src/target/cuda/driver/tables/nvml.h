#pragma once
// NVML (libnvidia-ml.so.1), the driver's library of sensors, as far as it is used. Values are those of its documented interface.
#include "target/cuda/driver/tables/entry.h"

namespace espalier::target::cuda::driver {

using NvmlReturn = int;  // nvmlReturn_t: 0 is success
inline constexpr NvmlReturn nvml_success = 0, nvml_error_not_supported = 3;
using NvmlDevice = struct NvmlDeviceOpaque*;  // nvmlDevice_t

/// nvmlMemory_t, in bytes; what the driver keeps for itself counts as used.
struct NvmlMemory {
  unsigned long long total, free, used;
};

/// nvmlUtilization_t, in percent of the last sample's time.
struct NvmlUtilization {
  unsigned gpu, memory;
};

enum class NvmlClock : int { sm = 1, memory = 2 };  // nvmlClockType_t
enum class NvmlSensor : int { gpu = 0 };            // nvmlTemperatureSensors_t

/// Clocks are in MHz, powers in mW, temperatures in degrees Celsius.
struct NvmlApi {
  NvmlReturn (*Init)();
  const char* (*ErrorString)(NvmlReturn error);
  NvmlReturn (*SystemGetDriverVersion)(char* version, unsigned size);
  NvmlReturn (*SystemGetNVMLVersion)(char* version, unsigned size);
  NvmlReturn (*DeviceGetHandleByUUID)(const char* uuid, NvmlDevice* device);
  NvmlReturn (*DeviceGetMemoryInfo)(NvmlDevice device, NvmlMemory* memory);
  NvmlReturn (*DeviceGetUtilizationRates)(NvmlDevice device, NvmlUtilization* utilization);
  NvmlReturn (*DeviceGetPowerUsage)(NvmlDevice device, unsigned* power);
  NvmlReturn (*DeviceGetEnforcedPowerLimit)(NvmlDevice device, unsigned* limit);
  NvmlReturn (*DeviceGetTemperature)(NvmlDevice device, NvmlSensor sensor, unsigned* temperature);
  NvmlReturn (*DeviceGetClockInfo)(NvmlDevice device, NvmlClock type, unsigned* clock);
  NvmlReturn (*DeviceGetMigMode)(NvmlDevice device, unsigned* current, unsigned* pending);
};

inline constexpr std::tuple nvml_entries{
    entry("nvmlInit_v2", &NvmlApi::Init),
    entry("nvmlErrorString", &NvmlApi::ErrorString),
    entry("nvmlSystemGetDriverVersion", &NvmlApi::SystemGetDriverVersion, Need::optional),
    entry("nvmlSystemGetNVMLVersion", &NvmlApi::SystemGetNVMLVersion, Need::optional),
    entry("nvmlDeviceGetHandleByUUID", &NvmlApi::DeviceGetHandleByUUID),
    entry("nvmlDeviceGetMemoryInfo", &NvmlApi::DeviceGetMemoryInfo, Need::optional),
    entry("nvmlDeviceGetUtilizationRates", &NvmlApi::DeviceGetUtilizationRates, Need::optional),
    entry("nvmlDeviceGetPowerUsage", &NvmlApi::DeviceGetPowerUsage, Need::optional),
    entry("nvmlDeviceGetEnforcedPowerLimit", &NvmlApi::DeviceGetEnforcedPowerLimit, Need::optional),
    entry("nvmlDeviceGetTemperature", &NvmlApi::DeviceGetTemperature, Need::optional),
    entry("nvmlDeviceGetClockInfo", &NvmlApi::DeviceGetClockInfo, Need::optional),
    entry("nvmlDeviceGetMigMode", &NvmlApi::DeviceGetMigMode, Need::optional),
};

}  // namespace espalier::target::cuda::driver
