// Our declarations against the vendor's headers, each where it is installed; there is nothing to build where none is.
#include <type_traits>

#include "target/cuda/driver/tables/compute.h"
#include "target/cuda/driver/tables/cu.h"
#include "target/cuda/driver/tables/lt.h"
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
static_assert(cu_error_invalid_value == CUDA_ERROR_INVALID_VALUE &&
              cu_error_out_of_memory == CUDA_ERROR_OUT_OF_MEMORY &&
              cu_error_not_initialized == CUDA_ERROR_NOT_INITIALIZED &&
              cu_error_device_unavailable == CUDA_ERROR_DEVICE_UNAVAILABLE &&
              cu_error_invalid_device == CUDA_ERROR_INVALID_DEVICE &&
              cu_error_invalid_image == CUDA_ERROR_INVALID_IMAGE &&
              cu_error_invalid_context == CUDA_ERROR_INVALID_CONTEXT &&
              cu_error_ecc_uncorrectable == CUDA_ERROR_ECC_UNCORRECTABLE &&
              cu_error_nvlink_uncorrectable == CUDA_ERROR_NVLINK_UNCORRECTABLE &&
              cu_error_contained == 226 &&  // CUDA_ERROR_CONTAINED, in headers since CUDA 12.6
              cu_error_invalid_handle == CUDA_ERROR_INVALID_HANDLE &&
              cu_error_not_found == CUDA_ERROR_NOT_FOUND && cu_error_not_ready == CUDA_ERROR_NOT_READY);
static_assert(cu_error_illegal_address == CUDA_ERROR_ILLEGAL_ADDRESS &&
              cu_error_launch_out_of_resources == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES &&
              cu_error_launch_timeout == CUDA_ERROR_LAUNCH_TIMEOUT &&
              cu_error_context_is_destroyed == CUDA_ERROR_CONTEXT_IS_DESTROYED &&
              cu_error_assert == CUDA_ERROR_ASSERT &&
              cu_error_hardware_stack == CUDA_ERROR_HARDWARE_STACK_ERROR &&
              cu_error_launch_failed == CUDA_ERROR_LAUNCH_FAILED && cu_error_unknown == CUDA_ERROR_UNKNOWN);
static_assert(cu_error_capture_unsupported == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED &&
              cu_error_capture_invalidated == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
static_assert(static_cast<int>(CuCaptureMode::thread_local_) == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
static_assert(cu_stream_non_blocking == CU_STREAM_NON_BLOCKING &&
              cu_event_disable_timing == CU_EVENT_DISABLE_TIMING);
static_assert(static_cast<int>(CuFunctionAttribute::max_threads_per_block) ==
              CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
static_assert(sizeof(CuAddress) == sizeof(CUdeviceptr));
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
static_assert(same_call<decltype(CuApi::DevicePrimaryCtxRetain), decltype(cuDevicePrimaryCtxRetain)>);
static_assert(same_call<decltype(CuApi::DevicePrimaryCtxRelease), decltype(cuDevicePrimaryCtxRelease)>);
static_assert(same_call<decltype(CuApi::CtxSetCurrent), decltype(cuCtxSetCurrent)>);
static_assert(same_call<decltype(CuApi::MemGetInfo), decltype(cuMemGetInfo)>);
static_assert(same_call<decltype(CuApi::MemAlloc), decltype(cuMemAlloc)>);
static_assert(same_call<decltype(CuApi::MemFree), decltype(cuMemFree)>);
static_assert(same_call<decltype(CuApi::MemAllocHost), decltype(cuMemAllocHost)>);
static_assert(same_call<decltype(CuApi::MemFreeHost), decltype(cuMemFreeHost)>);
static_assert(same_call<decltype(CuApi::StreamCreate), decltype(cuStreamCreate)>);
static_assert(same_call<decltype(CuApi::StreamDestroy), decltype(cuStreamDestroy)>);
static_assert(same_call<decltype(CuApi::StreamGetCtx), decltype(cuStreamGetCtx)>);
static_assert(same_call<decltype(CuApi::StreamSynchronize), decltype(cuStreamSynchronize)>);
static_assert(same_call<decltype(CuApi::StreamWaitEvent), decltype(cuStreamWaitEvent)>);
static_assert(same_call<decltype(CuApi::EventCreate), decltype(cuEventCreate)>);
static_assert(same_call<decltype(CuApi::EventDestroy), decltype(cuEventDestroy)>);
static_assert(same_call<decltype(CuApi::EventRecord), decltype(cuEventRecord)>);
static_assert(same_call<decltype(CuApi::EventSynchronize), decltype(cuEventSynchronize)>);
static_assert(same_call<decltype(CuApi::EventQuery), decltype(cuEventQuery)>);
static_assert(same_call<decltype(CuApi::EventElapsedTime), decltype(cuEventElapsedTime)>);
static_assert(same_call<decltype(CuApi::MemcpyHtoDAsync), decltype(cuMemcpyHtoDAsync)>);
static_assert(same_call<decltype(CuApi::MemcpyDtoHAsync), decltype(cuMemcpyDtoHAsync)>);
static_assert(same_call<decltype(CuApi::MemcpyDtoDAsync), decltype(cuMemcpyDtoDAsync)>);
static_assert(same_call<decltype(CuApi::MemsetD8Async), decltype(cuMemsetD8Async)>);
static_assert(same_call<decltype(CuApi::ModuleLoadData), decltype(cuModuleLoadData)>);
static_assert(same_call<decltype(CuApi::ModuleUnload), decltype(cuModuleUnload)>);
static_assert(same_call<decltype(CuApi::ModuleGetFunction), decltype(cuModuleGetFunction)>);
static_assert(same_call<decltype(CuApi::FuncGetAttribute), decltype(cuFuncGetAttribute)>);
static_assert(same_call<decltype(CuApi::LaunchKernel), decltype(cuLaunchKernel)>);
static_assert(same_call<decltype(CuApi::StreamBeginCapture), decltype(cuStreamBeginCapture)>);
static_assert(same_call<decltype(CuApi::StreamEndCapture), decltype(cuStreamEndCapture)>);
static_assert(same_call<decltype(CuApi::GraphInstantiate), decltype(cuGraphInstantiateWithFlags)>);
static_assert(same_call<decltype(CuApi::GraphDestroy), decltype(cuGraphDestroy)>);
static_assert(same_call<decltype(CuApi::GraphLaunch), decltype(cuGraphLaunch)>);
static_assert(same_call<decltype(CuApi::GraphExecDestroy), decltype(cuGraphExecDestroy)>);
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
static_assert(same_call<decltype(NvrtcApi::GetNumSupportedArchs), decltype(nvrtcGetNumSupportedArchs)>);
static_assert(same_call<decltype(NvrtcApi::GetSupportedArchs), decltype(nvrtcGetSupportedArchs)>);
static_assert(same_call<decltype(NvrtcApi::CreateProgram), decltype(nvrtcCreateProgram)>);
static_assert(same_call<decltype(NvrtcApi::DestroyProgram), decltype(nvrtcDestroyProgram)>);
static_assert(same_call<decltype(NvrtcApi::CompileProgram), decltype(nvrtcCompileProgram)>);
static_assert(same_call<decltype(NvrtcApi::GetProgramLogSize), decltype(nvrtcGetProgramLogSize)>);
static_assert(same_call<decltype(NvrtcApi::GetProgramLog), decltype(nvrtcGetProgramLog)>);
static_assert(same_call<decltype(NvrtcApi::GetCUBINSize), decltype(nvrtcGetCUBINSize)>);
static_assert(same_call<decltype(NvrtcApi::GetCUBIN), decltype(nvrtcGetCUBIN)>);
static_assert(same_call<decltype(NvrtcApi::GetPTXSize), decltype(nvrtcGetPTXSize)>);
static_assert(same_call<decltype(NvrtcApi::GetPTX), decltype(nvrtcGetPTX)>);
#endif
#if __has_include(<cublasLt.h>)
template <class Ours, class Theirs>
constexpr bool same_number(Ours ours, Theirs theirs) {
  return static_cast<int64_t>(ours) == static_cast<int64_t>(theirs);
}
static_assert(lt_success == CUBLAS_STATUS_SUCCESS && lt_not_initialized == CUBLAS_STATUS_NOT_INITIALIZED &&
              lt_invalid_value == CUBLAS_STATUS_INVALID_VALUE &&
              lt_not_supported == CUBLAS_STATUS_NOT_SUPPORTED);
static_assert(same_number(LtType::r_32f, CUDA_R_32F) && same_number(LtType::r_64f, CUDA_R_64F) &&
              same_number(LtType::r_16f, CUDA_R_16F) && same_number(LtType::r_8i, CUDA_R_8I) &&
              same_number(LtType::r_32i, CUDA_R_32I) && same_number(LtType::r_16bf, CUDA_R_16BF));
static_assert(same_number(LtCompute::f32, CUBLAS_COMPUTE_32F) &&
              same_number(LtCompute::f64, CUBLAS_COMPUTE_64F) &&
              same_number(LtCompute::i32, CUBLAS_COMPUTE_32I) &&
              same_number(LtCompute::f32_fast_tf32, CUBLAS_COMPUTE_32F_FAST_TF32));
static_assert(same_number(LtOperation::none, CUBLAS_OP_N) &&
              same_number(LtOperation::transpose, CUBLAS_OP_T));
static_assert(same_number(LtDescAttribute::transpose_a, CUBLASLT_MATMUL_DESC_TRANSA) &&
              same_number(LtDescAttribute::transpose_b, CUBLASLT_MATMUL_DESC_TRANSB) &&
              same_number(LtDescAttribute::epilogue, CUBLASLT_MATMUL_DESC_EPILOGUE) &&
              same_number(LtDescAttribute::bias_pointer, CUBLASLT_MATMUL_DESC_BIAS_POINTER));
static_assert(same_number(LtLayoutAttribute::batch_count, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) &&
              same_number(LtLayoutAttribute::strided_batch_offset,
                          CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET));
static_assert(
    same_number(LtPreferenceAttribute::max_workspace_bytes, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) &&
    same_number(LtPreferenceAttribute::reduction_scheme_mask, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) &&
    same_number(LtPreferenceAttribute::min_alignment_a, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES) &&
    same_number(LtPreferenceAttribute::min_alignment_b, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES) &&
    same_number(LtPreferenceAttribute::min_alignment_c, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES) &&
    same_number(LtPreferenceAttribute::min_alignment_d, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES));
static_assert(same_number(LtEpilogue::none, CUBLASLT_EPILOGUE_DEFAULT) &&
              same_number(LtEpilogue::relu, CUBLASLT_EPILOGUE_RELU) &&
              same_number(LtEpilogue::bias, CUBLASLT_EPILOGUE_BIAS) &&
              same_number(LtEpilogue::relu_bias, CUBLASLT_EPILOGUE_RELU_BIAS) &&
              same_number(LtEpilogue::gelu, CUBLASLT_EPILOGUE_GELU) &&
              same_number(LtEpilogue::gelu_bias, CUBLASLT_EPILOGUE_GELU_BIAS));
static_assert(lt_reduction_in_compute_type == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
static_assert(sizeof(LtAlgo) == sizeof(cublasLtMatmulAlgo_t) &&
              sizeof(LtHeuristic) == sizeof(cublasLtMatmulHeuristicResult_t) &&
              offsetof(LtHeuristic, workspace_bytes) ==
                  offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize) &&
              offsetof(LtHeuristic, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));
static_assert(same_call<decltype(LtApi::GetVersion), decltype(cublasLtGetVersion)>);
static_assert(same_call<decltype(LtApi::GetStatusString), decltype(cublasLtGetStatusString)>);
static_assert(same_call<decltype(LtApi::Create), decltype(cublasLtCreate)>);
static_assert(same_call<decltype(LtApi::Destroy), decltype(cublasLtDestroy)>);
static_assert(same_call<decltype(LtApi::MatmulDescCreate), decltype(cublasLtMatmulDescCreate)>);
static_assert(same_call<decltype(LtApi::MatmulDescDestroy), decltype(cublasLtMatmulDescDestroy)>);
static_assert(same_call<decltype(LtApi::MatmulDescSetAttribute), decltype(cublasLtMatmulDescSetAttribute)>);
static_assert(same_call<decltype(LtApi::MatrixLayoutCreate), decltype(cublasLtMatrixLayoutCreate)>);
static_assert(same_call<decltype(LtApi::MatrixLayoutDestroy), decltype(cublasLtMatrixLayoutDestroy)>);
static_assert(
    same_call<decltype(LtApi::MatrixLayoutSetAttribute), decltype(cublasLtMatrixLayoutSetAttribute)>);
static_assert(same_call<decltype(LtApi::MatmulPreferenceCreate), decltype(cublasLtMatmulPreferenceCreate)>);
static_assert(same_call<decltype(LtApi::MatmulPreferenceDestroy), decltype(cublasLtMatmulPreferenceDestroy)>);
static_assert(
    same_call<decltype(LtApi::MatmulPreferenceSetAttribute), decltype(cublasLtMatmulPreferenceSetAttribute)>);
static_assert(same_call<decltype(LtApi::MatmulAlgoGetHeuristic), decltype(cublasLtMatmulAlgoGetHeuristic)>);
static_assert(same_call<decltype(LtApi::Matmul), decltype(cublasLtMatmul)>);
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
