// Sensors without a GPU: as much of libnvidia-ml.so.1 as listing devices needs. With FAKE_BARE it has only what must be there.
#include <cstdio>
#include <cstring>

#include "settings.h"

namespace {

constexpr int not_supported = 3, not_found = 6;

struct Device {
  int index;
  bool slice;
};
Device devices[16];

template <class F>
int answer(const char* name, const F& f) {
  if (const int error = fake::error_of(name)) return error;
  f();
  return 0;
}

}  // namespace

extern "C" {

int nvmlInit_v2() { return fake::error_of("nvmlInit"); }

const char* nvmlErrorString(int error) {
  switch (error) {
    case not_supported: return "Not Supported";
    case not_found: return "Not Found";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
  }
}

/// The last number of the UUID is 16 index + 15. Device 0 is a slice where mig=1.
int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  if (const int error = fake::error_of("nvmlDeviceGetHandleByUUID")) return error;
  const int index = std::stoi(std::string(uuid).substr(std::strlen(uuid) - 2), nullptr, 16) / 16;
  const bool slice = index == 0 && fake::number("mig", 0) == 1;
  if (std::strncmp(uuid, slice ? "MIG-" : "GPU-", 4) != 0) return not_found;
  devices[index] = {index, slice};
  *device = &devices[index];
  return 0;
}

#ifndef FAKE_BARE
int nvmlSystemGetDriverVersion(char* version, unsigned size) {
  return answer("nvmlSystemGetDriverVersion", [&] { std::snprintf(version, size, "580.65.06"); });
}

int nvmlSystemGetNVMLVersion(char* version, unsigned size) {
  return answer("nvmlSystemGetNVMLVersion", [&] { std::snprintf(version, size, "13.580.65.06"); });
}

int nvmlDeviceGetMemoryInfo(void*, unsigned long long* total_free_used) {
  return answer("nvmlDeviceGetMemoryInfo", [&] {
    total_free_used[0] = 150'000'000'000;
    total_free_used[1] = 149'000'000'000;
    total_free_used[2] = 1'000'000'000;
  });
}

int nvmlDeviceGetUtilizationRates(void* device, unsigned* gpu_memory) {
  if (static_cast<Device*>(device)->slice) return not_supported;
  return answer("nvmlDeviceGetUtilizationRates", [&] { gpu_memory[0] = 37, gpu_memory[1] = 12; });
}

int nvmlDeviceGetPowerUsage(void*, unsigned* power) {
  return answer("nvmlDeviceGetPowerUsage", [&] { *power = 123456; });
}

int nvmlDeviceGetEnforcedPowerLimit(void*, unsigned* limit) {
  return answer("nvmlDeviceGetEnforcedPowerLimit", [&] { *limit = 700000; });
}

int nvmlDeviceGetTemperature(void* device, int, unsigned* temperature) {
  return answer("nvmlDeviceGetTemperature", [&] { *temperature = 40 + static_cast<Device*>(device)->index; });
}

int nvmlDeviceGetClockInfo(void*, int type, unsigned* clock) {
  return answer("nvmlDeviceGetClockInfo", [&] { *clock = type == 1 ? 345 : 3201; });
}

int nvmlDeviceGetMigMode(void*, unsigned* current, unsigned* pending) {
  return answer("nvmlDeviceGetMigMode", [&] { *current = *pending = 0; });
}
#endif

}  // extern "C"
