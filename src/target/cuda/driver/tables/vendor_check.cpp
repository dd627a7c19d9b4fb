// Our declarations against the vendor's headers, each where it is installed; there is nothing to build where none is.
#include <type_traits>

#include "target/cuda/driver/tables/compute.h"
#include "target/cuda/driver/tables/cu.h"
#include "target/cuda/driver/tables/nvml.h"

#if __has_include(<cuda.h>)
#include <cuda.h>
#endif
#if __has_include(<nvml.h>)
#include <nvml.h>
#endif
#if __has_include(<nvrtc.h>)
#include <nvrtc.h>
#endif
#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#endif
#if __has_include(<cudnn.h>)
#include <cudnn.h>
#endif
#if __has_include(<nccl.h>)
#include <nccl.h>
#endif

namespace espalier::target::cuda::driver {
namespace {

/// Are two parameters or results passed the same way? Enums are passed as the integers they stand for.
template <class Ours, class Theirs>
constexpr bool same_kind =
    sizeof(Ours) == sizeof(Theirs) && alignof(Ours) == alignof(Theirs) &&
    std::is_pointer_v<Ours> == std::is_pointer_v<Theirs>&& std::is_floating_point_v<Ours> ==
        std::is_floating_point_v<Theirs>&& std::is_class_v<Ours> == std::is_class_v<Theirs>;

/// Has `Theirs`, a function, the result and the parameters of `Ours`, a pointer to one or a member that is?
template <class Ours, class Theirs>
constexpr bool same_call = false;
template <class R, class... A, class S, class... B>
constexpr bool same_call<R (*)(A...), S(B...)> = [] {
  if constexpr (sizeof...(A) != sizeof...(B)) return false;
  else return same_kind<R, S> && (same_kind<A, B> && ...);
}();
static_assert(same_call<int (*)(int*, unsigned), unsigned(char*, int)>);
static_assert(!same_call<int (*)(int*, unsigned), int(int*, size_t)>);
static_assert(!same_call<int (*)(int*), int(int*, int)>);

#if __has_include(<cuda.h>)
static_assert(CUDA_VERSION >= cu_oldest_driver);
static_assert(cu_success == CUDA_SUCCESS && cu_error_no_device == CUDA_ERROR_NO_DEVICE);
static_assert(sizeof(CuUuid) == sizeof(CUuuid));
constexpr bool same(CuAttribute ours, CUdevice_attribute theirs) { return static_cast<int>(ours) == theirs; }
static_assert(same(CuAttribute::shared_per_block, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK));
static_assert(same(CuAttribute::clock_rate, CU_DEVICE_ATTRIBUTE_CLOCK_RATE));
static_assert(same(CuAttribute::multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT));
static_assert(same(CuAttribute::integrated, CU_DEVICE_ATTRIBUTE_INTEGRATED));
static_assert(same(CuAttribute::compute_mode, CU_DEVICE_ATTRIBUTE_COMPUTE_MODE));
static_assert(same(CuAttribute::ecc_enabled, CU_DEVICE_ATTRIBUTE_ECC_ENABLED));
static_assert(same(CuAttribute::memory_clock_rate, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE));
static_assert(same(CuAttribute::memory_bus_width, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH));
static_assert(same(CuAttribute::l2_size, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE));
static_assert(same(CuAttribute::threads_per_multiprocessor,
                   CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR));
static_assert(same(CuAttribute::capability_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR));
static_assert(same(CuAttribute::capability_minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
static_assert(same(CuAttribute::shared_per_multiprocessor,
                   CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR));
static_assert(same(CuAttribute::registers_per_multiprocessor,
                   CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR));
static_assert(same(CuAttribute::shared_per_block_opt_in,
                   CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN));
static_assert(CU_COMPUTEMODE_DEFAULT == 0 && CU_COMPUTEMODE_PROHIBITED == 2 &&
              CU_COMPUTEMODE_EXCLUSIVE_PROCESS == 3);  // as device_list.cpp names them
static_assert(same_call<decltype(CuApi::Init), decltype(cuInit)>);
static_assert(same_call<decltype(CuApi::DriverGetVersion), decltype(cuDriverGetVersion)>);
static_assert(same_call<decltype(CuApi::GetErrorName), decltype(cuGetErrorName)>);
static_assert(same_call<decltype(CuApi::GetErrorString), decltype(cuGetErrorString)>);
static_assert(same_call<decltype(CuApi::DeviceGetCount), decltype(cuDeviceGetCount)>);
static_assert(same_call<decltype(CuApi::DeviceGet), decltype(cuDeviceGet)>);
static_assert(same_call<decltype(CuApi::DeviceGetName), decltype(cuDeviceGetName)>);
static_assert(same_call<decltype(CuApi::DeviceGetUuid), decltype(cuDeviceGetUuid_v2)>);
static_assert(same_call<decltype(CuApi::DeviceGetPCIBusId), decltype(cuDeviceGetPCIBusId)>);
static_assert(same_call<decltype(CuApi::DeviceTotalMem), decltype(cuDeviceTotalMem)>);
static_assert(same_call<decltype(CuApi::DeviceGetAttribute), decltype(cuDeviceGetAttribute)>);
static_assert(same_call<decltype(CuApi::DeviceCanAccessPeer), decltype(cuDeviceCanAccessPeer)>);
static_assert(same_call<CuGetProcAddress*, decltype(cuGetProcAddress)>);
#endif

#if __has_include(<nvml.h>)
static_assert(nvml_success == NVML_SUCCESS && nvml_error_not_supported == NVML_ERROR_NOT_SUPPORTED);
static_assert(sizeof(NvmlMemory) == sizeof(nvmlMemory_t) &&
              sizeof(NvmlUtilization) == sizeof(nvmlUtilization_t));
static_assert(static_cast<int>(NvmlClock::sm) == NVML_CLOCK_SM &&
              static_cast<int>(NvmlClock::memory) == NVML_CLOCK_MEM);
static_assert(static_cast<int>(NvmlSensor::gpu) == NVML_TEMPERATURE_GPU);
static_assert(same_call<decltype(NvmlApi::Init), decltype(nvmlInit_v2)>);
static_assert(same_call<decltype(NvmlApi::DeviceGetHandleByUUID), decltype(nvmlDeviceGetHandleByUUID)>);
static_assert(same_call<decltype(NvmlApi::DeviceGetMemoryInfo), decltype(nvmlDeviceGetMemoryInfo)>);
static_assert(
    same_call<decltype(NvmlApi::DeviceGetUtilizationRates), decltype(nvmlDeviceGetUtilizationRates)>);
static_assert(same_call<decltype(NvmlApi::DeviceGetPowerUsage), decltype(nvmlDeviceGetPowerUsage)>);
static_assert(same_call<decltype(NvmlApi::DeviceGetTemperature), decltype(nvmlDeviceGetTemperature)>);
static_assert(same_call<decltype(NvmlApi::DeviceGetClockInfo), decltype(nvmlDeviceGetClockInfo)>);
static_assert(same_call<decltype(NvmlApi::DeviceGetMigMode), decltype(nvmlDeviceGetMigMode)>);
#endif

#if __has_include(<nvrtc.h>)
static_assert(same_call<decltype(NvrtcApi::Version), decltype(nvrtcVersion)>);
#endif
#if __has_include(<cublasLt.h>)
static_assert(same_call<decltype(LtApi::GetVersion), decltype(cublasLtGetVersion)>);
#endif
#if __has_include(<cudnn.h>)
static_assert(same_call<decltype(DnnApi::GetVersion), decltype(cudnnGetVersion)>);
static_assert(same_call<decltype(DnnApi::GetCudartVersion), decltype(cudnnGetCudartVersion)>);
#endif
#if __has_include(<nccl.h>)
static_assert(same_call<decltype(NcclApi::GetVersion), decltype(ncclGetVersion)>);
#endif

}  // namespace
}  // namespace espalier::target::cuda::driver
