#pragma once
// The CUDA driver API (libcuda.so.1), as far as it is used. Names and values are NVIDIA's, written down from its documentation;
// vendor_check.cpp holds them against the vendor's header where that is installed.
#include <cstddef>
#include <cstdint>
#include <string>

#include "target/cuda/driver/tables/entry.h"

namespace espalier::target::cuda::driver {

using CuResult = int;                           // CUresult: 0 is success
using CuDevice = int;                           // CUdevice
using CuAddress = unsigned long long;           // CUdeviceptr
using CuContext = struct CuContextOpaque*;      // CUcontext
using CuStream = struct CuStreamOpaque*;        // CUstream
using CuEvent = struct CuEventOpaque*;          // CUevent
using CuModule = struct CuModuleOpaque*;        // CUmodule
using CuFunction = struct CuFunctionOpaque*;    // CUfunction
using CuGraph = struct CuGraphOpaque*;          // CUgraph
using CuGraphExec = struct CuGraphExecOpaque*;  // CUgraphExec

inline constexpr CuResult cu_success = 0, cu_error_invalid_value = 1, cu_error_out_of_memory = 2,
                          cu_error_not_initialized = 3, cu_error_device_unavailable = 46,
                          cu_error_no_device = 100, cu_error_invalid_device = 101,
                          cu_error_invalid_image = 200, cu_error_invalid_context = 201,
                          cu_error_ecc_uncorrectable = 214, cu_error_nvlink_uncorrectable = 220,
                          cu_error_contained = 226, cu_error_invalid_handle = 400, cu_error_not_found = 500,
                          cu_error_not_ready = 600, cu_error_illegal_address = 700,
                          cu_error_launch_out_of_resources = 701, cu_error_launch_timeout = 702,
                          cu_error_context_is_destroyed = 709, cu_error_assert = 710,
                          cu_error_hardware_stack = 714, cu_error_launch_failed = 719,
                          cu_error_tensor_memory_leak = 721, cu_error_mps_client_terminated = 810,
                          cu_error_capture_unsupported = 900, cu_error_capture_invalidated = 901,
                          cu_error_external_device = 911, cu_error_unknown = 999;

/// CUstream_flags, CUevent_flags.
inline constexpr unsigned cu_stream_non_blocking = 1, cu_event_disable_timing = 2;

/// CUstreamCaptureMode: what this thread does meanwhile is looked at.
enum class CuCaptureMode : int { thread_local_ = 1 };

/// CUfunction_attribute.
enum class CuFunctionAttribute : int { max_threads_per_block = 0, max_dynamic_shared_bytes = 8 };

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

/// The functions, as CUDA 12.0 has them. cuGetProcAddress() picks the version of each by its plain name. None is newer than the oldest driver
/// that is used. Those marked optional below are what a program runs without: a driver that stands in for NVIDIA's may lack them.
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

  CuResult (*DevicePrimaryCtxRetain)(CuContext* context, CuDevice device);
  CuResult (*DevicePrimaryCtxRelease)(CuDevice device);
  CuResult (*CtxPushCurrent)(CuContext context);
  CuResult (*CtxPopCurrent)(CuContext* context);

  CuResult (*MemGetInfo)(size_t* free, size_t* total);
  CuResult (*MemAlloc)(CuAddress* address, size_t bytes);
  CuResult (*MemFree)(CuAddress address);
  CuResult (*MemAllocHost)(void** data, size_t bytes);
  CuResult (*MemFreeHost)(void* data);

  CuResult (*StreamCreate)(CuStream* stream, unsigned flags);
  CuResult (*StreamDestroy)(CuStream stream);
  CuResult (*StreamGetCtx)(CuStream stream, CuContext* context);
  CuResult (*StreamSynchronize)(CuStream stream);
  CuResult (*StreamWaitEvent)(CuStream stream, CuEvent event, unsigned flags);
  CuResult (*EventCreate)(CuEvent* event, unsigned flags);
  CuResult (*EventDestroy)(CuEvent event);
  CuResult (*EventRecord)(CuEvent event, CuStream stream);
  CuResult (*EventSynchronize)(CuEvent event);
  CuResult (*EventQuery)(CuEvent event);
  CuResult (*EventElapsedTime)(float* ms, CuEvent from, CuEvent to);

  CuResult (*MemcpyHtoDAsync)(CuAddress to, const void* from, size_t bytes, CuStream stream);
  CuResult (*MemcpyDtoHAsync)(void* to, CuAddress from, size_t bytes, CuStream stream);
  CuResult (*MemcpyDtoDAsync)(CuAddress to, CuAddress from, size_t bytes, CuStream stream);
  CuResult (*MemsetD8Async)(CuAddress to, unsigned char byte, size_t bytes, CuStream stream);

  CuResult (*ModuleLoadData)(CuModule* module, const void* image);
  CuResult (*ModuleUnload)(CuModule module);
  CuResult (*ModuleGetFunction)(CuFunction* function, CuModule module, const char* name);
  CuResult (*FuncGetAttribute)(int* value, CuFunctionAttribute attribute, CuFunction function);
  CuResult (*FuncSetAttribute)(CuFunction function, CuFunctionAttribute attribute, int value);
  CuResult (*LaunchKernel)(CuFunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                           unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                           CuStream stream, void** parameters, void** extra);

  CuResult (*StreamBeginCapture)(CuStream stream, CuCaptureMode mode);
  CuResult (*StreamEndCapture)(CuStream stream, CuGraph* graph);
  CuResult (*GraphInstantiate)(CuGraphExec* ready, CuGraph graph, unsigned long long flags);
  CuResult (*GraphDestroy)(CuGraph graph);
  CuResult (*GraphLaunch)(CuGraphExec ready, CuStream stream);
  CuResult (*GraphExecDestroy)(CuGraphExec ready);
};

/// The oldest driver that is used, as cuDriverGetVersion() counts: 1000 major + 10 minor.
inline constexpr int cu_oldest_driver = 12000;
/// 12040 is "12.4".
std::string cuda_version(int version);

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
    entry("cuDevicePrimaryCtxRetain", &CuApi::DevicePrimaryCtxRetain),
    entry("cuDevicePrimaryCtxRelease", &CuApi::DevicePrimaryCtxRelease),
    entry("cuCtxPushCurrent", &CuApi::CtxPushCurrent),
    entry("cuCtxPopCurrent", &CuApi::CtxPopCurrent),
    entry("cuMemGetInfo", &CuApi::MemGetInfo),
    entry("cuMemAlloc", &CuApi::MemAlloc),
    entry("cuMemFree", &CuApi::MemFree),
    entry("cuMemAllocHost", &CuApi::MemAllocHost),
    entry("cuMemFreeHost", &CuApi::MemFreeHost),
    entry("cuStreamCreate", &CuApi::StreamCreate),
    entry("cuStreamDestroy", &CuApi::StreamDestroy),
    entry("cuStreamGetCtx", &CuApi::StreamGetCtx, Need::optional),  // asked of a caller's stream
    entry("cuStreamSynchronize", &CuApi::StreamSynchronize),
    entry("cuStreamWaitEvent", &CuApi::StreamWaitEvent),
    entry("cuEventCreate", &CuApi::EventCreate),
    entry("cuEventDestroy", &CuApi::EventDestroy),
    entry("cuEventRecord", &CuApi::EventRecord),
    entry("cuEventSynchronize", &CuApi::EventSynchronize),
    entry("cuEventQuery", &CuApi::EventQuery, Need::optional),  // whether a run is over, without waiting
    entry("cuEventElapsedTime", &CuApi::EventElapsedTime, Need::optional),  // profiles
    entry("cuMemcpyHtoDAsync", &CuApi::MemcpyHtoDAsync),
    entry("cuMemcpyDtoHAsync", &CuApi::MemcpyDtoHAsync),
    entry("cuMemcpyDtoDAsync", &CuApi::MemcpyDtoDAsync),
    entry("cuMemsetD8Async", &CuApi::MemsetD8Async),
    entry("cuModuleLoadData", &CuApi::ModuleLoadData),
    entry("cuModuleUnload", &CuApi::ModuleUnload),
    entry("cuModuleGetFunction", &CuApi::ModuleGetFunction),
    entry("cuFuncGetAttribute", &CuApi::FuncGetAttribute),
    entry("cuFuncSetAttribute", &CuApi::FuncSetAttribute),
    entry("cuLaunchKernel", &CuApi::LaunchKernel),
    // Without any of these a run's records are launched one by one.
    entry("cuStreamBeginCapture", &CuApi::StreamBeginCapture, Need::optional),
    entry("cuStreamEndCapture", &CuApi::StreamEndCapture, Need::optional),
    entry("cuGraphInstantiateWithFlags", &CuApi::GraphInstantiate, Need::optional),
    entry("cuGraphDestroy", &CuApi::GraphDestroy, Need::optional),
    entry("cuGraphLaunch", &CuApi::GraphLaunch, Need::optional),
    entry("cuGraphExecDestroy", &CuApi::GraphExecDestroy, Need::optional),
};

/// "cuGetProcAddress_v2" to dlsym, there since CUDA 12: the function of that name as `version` had it.
using CuGetProcAddress = CuResult(const char* name, void** function, int version, uint64_t flags,
                                  int* status);

/// Fill the table of a driver of this version with what `address_of(name)` gives. Why it does not serve, or "".
template <class AddressOf>
std::string fill_driver(CuApi& api, int version, const AddressOf& address_of) {
  if (version < cu_oldest_driver)
    return "driver too old, found " + cuda_version(version) + ", needs " + cuda_version(cu_oldest_driver);
  std::string lacks = fill(api, cu_entries, address_of);
  return lacks.empty() ? "" : "the driver for CUDA " + cuda_version(version) + " does not serve: " + lacks;
}

/// The special streams of every context: the default stream by its other name, and the one that is another on each thread.
inline const CuStream cu_stream_legacy = reinterpret_cast<CuStream>(1),
                      cu_stream_per_thread = reinterpret_cast<CuStream>(2);

}  // namespace espalier::target::cuda::driver
