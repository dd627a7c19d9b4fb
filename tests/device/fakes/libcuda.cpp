// A driver without a GPU: as much of libcuda.so.1 as listing devices needs, with the figures of an H200; the rest is there and refuses.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>

#include "settings.h"

namespace {

constexpr int invalid_value = 1, invalid_device = 101, not_found = 500;

bool valid(int device) { return device >= 0 && device < fake::number("gpus", 1); }

/// Call `f` for a device, unless a test wants this call to fail.
template <class F>
int answer(const char* name, int device, const F& f) {
  if (const int error = fake::error_of(name)) return error;
  if (!valid(device)) return invalid_device;
  f();
  return 0;
}

int init(unsigned) {
  if (const int error = fake::error_of("cuInit")) return error;
  return fake::number("gpus", 1) > 0 ? 0 : 100;
}

int get_error_name(int error, const char** name) {
  *name = error == 100 ? "CUDA_ERROR_NO_DEVICE" : error == 999 ? "CUDA_ERROR_UNKNOWN" : nullptr;
  return *name ? 0 : invalid_value;
}

int get_error_string(int error, const char** text) {
  *text = error == 100 ? "no CUDA-capable device is detected" : error == 999 ? "unknown error" : nullptr;
  return *text ? 0 : invalid_value;
}

int get_count(int* count) {
  if (const int error = fake::error_of("cuDeviceGetCount")) return error;
  *count = fake::number("gpus", 1);
  return 0;
}

int get(int* device, int index) {
  return answer("cuDeviceGet", index, [&] { *device = index; });
}

int get_name(char* name, int size, int device) {
  return answer("cuDeviceGetName", device, [&] { std::snprintf(name, size, "Fake H200 number %d", device); });
}

/// Device i has the bytes i0 i1 i2 ... if.
int get_uuid(unsigned char* uuid, int device) {
  return answer("cuDeviceGetUuid", device, [&] {
    for (int i = 0; i < 16; ++i) uuid[i] = static_cast<unsigned char>(16 * device + i);
  });
}

int get_bus_id(char* id, int size, int device) {
  return answer("cuDeviceGetPCIBusId", device,
                [&] { std::snprintf(id, size, "0000:%02x:00.0", 16 + device); });
}

int total_memory(size_t* bytes, int device) {
  return answer("cuDeviceTotalMem", device, [&] { *bytes = 150'000'000'000; });
}

int get_attribute(int* value, int attribute, int device) {
  static const std::map<int, int> values{{8, 49152},   {13, 1980000},  {16, 132},   {18, 0}, {36, 3201000},
                                         {37, 6144},   {38, 62914560}, {39, 2048},  {75, 9}, {76, 0},
                                         {81, 233472}, {82, 65536},    {97, 232448}};
  if (const int error = fake::error_of("attribute" + std::to_string(attribute))) return error;
  return answer("cuDeviceGetAttribute", device, [&] {
    *value = attribute == 20   ? fake::number("mode", 0)
             : attribute == 32 ? fake::number("ecc", 1)
                               : values.at(attribute);
  });
}

/// The first two devices reach each other.
int can_access_peer(int* can, int device, int peer) {
  return answer("cuDeviceCanAccessPeer", device, [&] { *can = device < 2 && peer < 2; });
}

/// Everything else.
int refuse() { return 801; }  // CUDA_ERROR_NOT_SUPPORTED

}  // namespace

extern "C" {

int cuDriverGetVersion(int* version) {
  if (const int error = fake::error_of("cuDriverGetVersion")) return error;
  *version = fake::number("driver", 13000);
  return 0;
}

int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t, int* status) {
  static const std::map<std::string, void*> functions{
      {"cuInit", reinterpret_cast<void*>(init)},
      {"cuDriverGetVersion", reinterpret_cast<void*>(cuDriverGetVersion)},
      {"cuGetErrorName", reinterpret_cast<void*>(get_error_name)},
      {"cuGetErrorString", reinterpret_cast<void*>(get_error_string)},
      {"cuDeviceGetCount", reinterpret_cast<void*>(get_count)},
      {"cuDeviceGet", reinterpret_cast<void*>(get)},
      {"cuDeviceGetName", reinterpret_cast<void*>(get_name)},
      {"cuDeviceGetUuid", reinterpret_cast<void*>(get_uuid)},
      {"cuDeviceGetPCIBusId", reinterpret_cast<void*>(get_bus_id)},
      {"cuDeviceTotalMem", reinterpret_cast<void*>(total_memory)},
      {"cuDeviceGetAttribute", reinterpret_cast<void*>(get_attribute)},
      {"cuDeviceCanAccessPeer", reinterpret_cast<void*>(can_access_peer)},
  };
  const auto it = functions.find(name);
  const bool found =
      std::strncmp(name, "cu", 2) == 0 && !fake::lacks(name) && version <= fake::number("driver", 13000);
  *function = !found ? nullptr : it != functions.end() ? it->second : reinterpret_cast<void*>(refuse);
  *status = found ? 0 : 1;
  return found ? 0 : not_found;
}

}  // extern "C"
