#include "target/cuda/driver/device_list.h"

#include <fmt/format.h>

#include <iterator>
#include <string_view>

namespace espalier::target::cuda::driver {

namespace {

/// Calls that may fail: what did not answer is a note.
template <class Error, class ErrorText>
struct Asker {
  std::vector<std::string>& notes;
  ErrorText error_text;

  /// Call a function of a table, null where it is lacking. Did it answer?
  template <class Function, class... Args>
  bool operator()(const std::string& name, Function* function, Args... args) {
    if (!function) {
      notes.push_back(name + ": this driver lacks it");
      return false;
    }
    const Error error = function(args...);
    if (error != 0) notes.push_back(name + ": " + error_text(error));
    return error == 0;
  }
};

struct AttributeField {
  CuAttribute attribute;
  const char* name;
  std::optional<int64_t> DeviceInfo::*field;
  int64_t divisor = 1;
};

constexpr AttributeField number_attributes[] = {
    {CuAttribute::multiprocessors, "multiprocessors", &DeviceInfo::multiprocessors},
    {CuAttribute::clock_rate, "clock rate", &DeviceInfo::clock_mhz, 1000},
    {CuAttribute::threads_per_multiprocessor, "threads", &DeviceInfo::threads_per_multiprocessor},
    {CuAttribute::registers_per_multiprocessor, "registers", &DeviceInfo::registers_per_multiprocessor},
    {CuAttribute::memory_clock_rate, "memory clock rate", &DeviceInfo::memory_clock_mhz, 1000},
    {CuAttribute::memory_bus_width, "memory bus width", &DeviceInfo::memory_bus_bits},
    {CuAttribute::l2_size, "L2 size", &DeviceInfo::l2_bytes},
    {CuAttribute::shared_per_block, "shared memory", &DeviceInfo::shared_per_block},
    {CuAttribute::shared_per_block_opt_in, "shared memory opt-in", &DeviceInfo::shared_per_block_opt_in},
    {CuAttribute::shared_per_multiprocessor, "shared memory of a multiprocessor",
     &DeviceInfo::shared_per_multiprocessor},
};

std::string compute_mode(int mode) {
  switch (mode) {
    case 0: return "default";
    case 2: return "prohibited";
    case 3: return "exclusive process";
    default: return fmt::format("unknown ({})", mode);
  }
}

/// 16 bytes as 8-4-4-4-12 digits.
std::string uuid_text(const CuUuid& uuid) {
  std::string out;
  for (int i = 0; i < 16; ++i)
    out += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid.bytes[i]);
  return out;
}

template <class Ask>
void ask_attributes(Ask& ask, const CuApi& cu, CuDevice device, DeviceInfo& info) {
  const auto attribute = [&](CuAttribute which, const char* name) -> std::optional<int> {
    int value = 0;
    if (!ask(fmt::format("cuDeviceGetAttribute({})", name), cu.DeviceGetAttribute, &value, which, device))
      return std::nullopt;
    return value;
  };
  for (const AttributeField& a : number_attributes)
    if (const auto value = attribute(a.attribute, a.name)) info.*a.field = *value / a.divisor;
  const auto major = attribute(CuAttribute::capability_major, "capability");
  const auto minor = attribute(CuAttribute::capability_minor, "capability");
  if (major && minor) info.capability = 10 * *major + *minor;
  if (const auto on = attribute(CuAttribute::ecc_enabled, "ECC")) info.ecc = *on != 0;
  if (const auto is = attribute(CuAttribute::integrated, "integrated")) info.integrated = *is != 0;
  if (const auto mode = attribute(CuAttribute::compute_mode, "compute mode"))
    info.compute_mode = compute_mode(*mode);
}

template <class Ask>
void ask_driver(Ask& ask, const CuApi& cu, CuDevice device, DeviceInfo& info) {
  char text[256] = "";
  if (ask("cuDeviceGetName", cu.DeviceGetName, text, static_cast<int>(sizeof text), device)) info.name = text;
  CuUuid uuid{};
  if (ask("cuDeviceGetUuid", cu.DeviceGetUuid, &uuid, device)) info.uuid = "GPU-" + uuid_text(uuid);
  if (ask("cuDeviceGetPCIBusId", cu.DeviceGetPCIBusId, text, static_cast<int>(sizeof text), device))
    info.bus_id = text;
  size_t bytes = 0;
  if (ask("cuDeviceTotalMem", cu.DeviceTotalMem, &bytes, device))
    info.memory_bytes = static_cast<int64_t>(bytes);
  ask_attributes(ask, cu, device, info);
}

/// NVML's handle of the device. A slice of a MIG device has the same bytes behind another word; its UUID is then put right.
template <class Ask>
NvmlDevice handle_of(Ask& ask, const NvmlApi& nvml, DeviceInfo& info) {
  NvmlDevice device = nullptr;
  const std::string slice = "MIG-" + info.uuid->substr(4);
  if (nvml.DeviceGetHandleByUUID(info.uuid->c_str(), &device) == nvml_success) return device;
  if (nvml.DeviceGetHandleByUUID(slice.c_str(), &device) == nvml_success) {
    info.uuid = slice;
    return device;
  }
  return ask("nvmlDeviceGetHandleByUUID", nvml.DeviceGetHandleByUUID, info.uuid->c_str(), &device) ? device
                                                                                                   : nullptr;
}

template <class Ask>
void ask_sensors(Ask& ask, const NvmlApi& nvml, DeviceInfo& info) {
  const NvmlDevice device = handle_of(ask, nvml, info);
  if (!device) return;
  NvmlMemory memory{};
  if (ask("nvmlDeviceGetMemoryInfo", nvml.DeviceGetMemoryInfo, device, &memory))
    info.memory_free_bytes = static_cast<int64_t>(memory.free);
  NvmlUtilization utilization{};
  if (ask("nvmlDeviceGetUtilizationRates", nvml.DeviceGetUtilizationRates, device, &utilization)) {
    info.utilisation_percent = utilization.gpu;
    info.memory_utilisation_percent = utilization.memory;
  }
  unsigned value = 0, pending = 0;
  if (ask("nvmlDeviceGetPowerUsage", nvml.DeviceGetPowerUsage, device, &value))
    info.power_watts = value / 1000.0;
  if (ask("nvmlDeviceGetEnforcedPowerLimit", nvml.DeviceGetEnforcedPowerLimit, device, &value))
    info.power_limit_watts = value / 1000.0;
  if (ask("nvmlDeviceGetTemperature", nvml.DeviceGetTemperature, device, NvmlSensor::gpu, &value))
    info.temperature_celsius = value;
  if (ask("nvmlDeviceGetClockInfo(SM)", nvml.DeviceGetClockInfo, device, NvmlClock::sm, &value))
    info.clock_now_mhz = value;
  if (ask("nvmlDeviceGetClockInfo(memory)", nvml.DeviceGetClockInfo, device, NvmlClock::memory, &value))
    info.memory_clock_now_mhz = value;
  if (info.uuid->starts_with("MIG-")) info.mig = true;
  else if (ask("nvmlDeviceGetMigMode", nvml.DeviceGetMigMode, device, &value, &pending))
    info.mig = value != 0;
}

DeviceInfo describe(const CuApi& cu, const NvmlApi* nvml, int index, int count) {
  DeviceInfo info;
  info.index = index;
  const auto driver_text = [&](CuResult error) { return error_text(cu, error); };
  Asker<CuResult, decltype(driver_text)> ask{info.notes, driver_text};
  CuDevice device = 0;
  if (!ask("cuDeviceGet", cu.DeviceGet, &device, index)) return info;
  ask_driver(ask, cu, device, info);
  std::vector<int> peers;
  bool known = true;
  for (int other = 0; other < count && known; ++other) {
    int can = 0;
    CuDevice peer = 0;
    if (other == index) continue;
    known = ask("cuDeviceGet", cu.DeviceGet, &peer, other) &&
            ask("cuDeviceCanAccessPeer", cu.DeviceCanAccessPeer, &can, device, peer);
    if (known && can) peers.push_back(other);
  }
  if (known) info.peers = std::move(peers);
  if (!nvml || !info.uuid) return info;
  const auto nvml_text = [&](NvmlReturn error) {
    return fmt::format("{} ({})", nvml->ErrorString(error), error);
  };
  Asker<NvmlReturn, decltype(nvml_text)> ask_nvml{info.notes, nvml_text};
  ask_sensors(ask_nvml, *nvml, info);
  return info;
}

}  // namespace

std::string cuda_version(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

DeviceInfo describe_device(const CuApi& cu, const NvmlApi* nvml, int index) {
  int count = 0;
  if (cu.DeviceGetCount(&count) != cu_success) count = index + 1;
  return describe(cu, nvml, index, count);
}

std::string error_text(const CuApi& cu, CuResult error) {
  const char *name = nullptr, *text = nullptr;
  if (cu.GetErrorName(error, &name) != cu_success || !name) name = "an unknown error";
  if (cu.GetErrorString(error, &text) != cu_success || !text) text = "the driver does not say more";
  return fmt::format("{} ({}): {}", name, error, text);
}

DeviceList list_devices(const CuApi& cu, const NvmlApi* nvml) {
  DeviceList out;
  int count = 0;
  const CuResult init = cu.Init(0);
  if (init != cu_success && init != cu_error_no_device) {
    out.problem = "cuInit: " + error_text(cu, init);
    return out;
  }
  if (init == cu_success)
    if (const CuResult error = cu.DeviceGetCount(&count); error != cu_success) {
      out.problem = "cuDeviceGetCount: " + error_text(cu, error);
      return out;
    }
  if (count <= 0)
    out.problem = "the driver shows no GPU to this process (CUDA_VISIBLE_DEVICES may hide some)";
  for (int i = 0; i < count; ++i) out.devices.push_back(describe(cu, nvml, i, count));
  return out;
}

}  // namespace espalier::target::cuda::driver
