// Our declarations against the vendor's headers, each where it is installed; there is nothing to build where none is.
#include <type_traits>

#include "target/cuda/driver/tables/compute.h"
#include "target/cuda/driver/tables/cu.h"
#include "target/cuda/driver/tables/dnn.h"
#include "target/cuda/driver/tables/lt.h"
#include "target/cuda/driver/tables/nvml.h"
#include "target/cuda/driver/tables/nvtx.h"

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
#if __has_include(<nvtx3/nvToolsExt.h>)
#define NVTX_NO_IMPL
#include <nvtx3/nvToolsExt.h>
#endif

namespace espalier::target::cuda::driver {
namespace {

/// Are two parameters or results passed the same way? Enums are passed as the integers they stand for.
template <class Ours, class Theirs>
constexpr bool same_kind =
    sizeof(Ours) == sizeof(Theirs) && alignof(Ours) == alignof(Theirs) &&
    std::is_pointer_v<Ours> == std::is_pointer_v<Theirs>&& std::is_floating_point_v<Ours> ==
        std::is_floating_point_v<Theirs>&& std::is_class_v<Ours> == std::is_class_v<Theirs>;

template <>
constexpr bool same_kind<void, void> = true;

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
static_assert(cu_error_tensor_memory_leak == 721 &&  // CUDA_ERROR_TENSOR_MEMORY_LEAK, in newer headers only
              cu_error_mps_client_terminated == CUDA_ERROR_MPS_CLIENT_TERMINATED &&
              cu_error_external_device == CUDA_ERROR_EXTERNAL_DEVICE);
static_assert(cu_error_capture_unsupported == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED &&
              cu_error_capture_invalidated == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
static_assert(static_cast<int>(CuCaptureMode::thread_local_) == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
static_assert(cu_stream_non_blocking == CU_STREAM_NON_BLOCKING &&
              cu_event_disable_timing == CU_EVENT_DISABLE_TIMING);
static_assert(static_cast<int>(CuFunctionAttribute::max_threads_per_block) ==
              CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
static_assert(sizeof(CuAddress) == sizeof(CUdeviceptr));
constexpr bool same(CuAttribute ours, CUdevice_attribute theirs) { return static_cast<int>(ours) == theirs; }
static_assert(static_cast<int>(CuFunctionAttribute::max_dynamic_shared_bytes) ==
              CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
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
static_assert(same_call<decltype(CuApi::CtxPushCurrent), decltype(cuCtxPushCurrent)>);
static_assert(same_call<decltype(CuApi::CtxPopCurrent), decltype(cuCtxPopCurrent)>);
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
static_assert(same_call<decltype(CuApi::FuncSetAttribute), decltype(cuFuncSetAttribute)>);
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
              same_number(LtDescAttribute::bias_pointer, CUBLASLT_MATMUL_DESC_BIAS_POINTER) &&
              same_number(LtDescAttribute::aux_pointer, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER) &&
              same_number(LtDescAttribute::aux_ld, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD));
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
              same_number(LtEpilogue::gelu_bias, CUBLASLT_EPILOGUE_GELU_BIAS) &&
              same_number(LtEpilogue::gelu_aux, CUBLASLT_EPILOGUE_GELU_AUX) &&
              same_number(LtEpilogue::gelu_aux_bias, CUBLASLT_EPILOGUE_GELU_AUX_BIAS) &&
              same_number(LtEpilogue::relu_aux, CUBLASLT_EPILOGUE_RELU_AUX) &&
              same_number(LtEpilogue::relu_aux_bias, CUBLASLT_EPILOGUE_RELU_AUX_BIAS) &&
              same_number(LtEpilogue::drelu, CUBLASLT_EPILOGUE_DRELU) &&
              same_number(LtEpilogue::sum_a, CUBLASLT_EPILOGUE_BGRADA) &&
              same_number(LtEpilogue::sum_b, CUBLASLT_EPILOGUE_BGRADB));
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
static_assert(same_call<decltype(LtApi::MatmulAlgoCheck), decltype(cublasLtMatmulAlgoCheck)>);
static_assert(same_call<decltype(LtApi::Matmul), decltype(cublasLtMatmul)>);
#endif
#if __has_include(<cudnn.h>)
template <class Ours, class Theirs>
constexpr bool same_value(Ours ours, Theirs theirs) {
  return static_cast<int>(ours) == static_cast<int>(theirs);
}
static_assert(dnn_success == CUDNN_STATUS_SUCCESS && dnn_cross_correlation == CUDNN_CROSS_CORRELATION);
static_assert(same_value(DnnKind::pointwise, CUDNN_BACKEND_POINTWISE_DESCRIPTOR));
static_assert(same_value(DnnKind::convolution, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR));
static_assert(same_value(DnnKind::engine, CUDNN_BACKEND_ENGINE_DESCRIPTOR));
static_assert(same_value(DnnKind::engine_config, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
static_assert(same_value(DnnKind::heuristics, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR));
static_assert(same_value(DnnKind::plan, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR));
static_assert(same_value(DnnKind::conv_forward, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR));
static_assert(same_value(DnnKind::conv_weight_grad,
                         CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR));
static_assert(same_value(DnnKind::conv_data_grad,
                         CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR));
static_assert(same_value(DnnKind::pointwise_operation, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR));
static_assert(same_value(DnnKind::graph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR));
static_assert(same_value(DnnKind::variant_pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR));
static_assert(same_value(DnnKind::tensor, CUDNN_BACKEND_TENSOR_DESCRIPTOR));
static_assert(same_value(DnnAttribute::pointwise_mode, CUDNN_ATTR_POINTWISE_MODE));
static_assert(same_value(DnnAttribute::pointwise_precision, CUDNN_ATTR_POINTWISE_MATH_PREC));
static_assert(same_value(DnnAttribute::pointwise_nan, CUDNN_ATTR_POINTWISE_NAN_PROPAGATION) &&
              same_value(dnn_propagate_nan, CUDNN_PROPAGATE_NAN));
static_assert(same_value(DnnAttribute::convolution_compute, CUDNN_ATTR_CONVOLUTION_COMP_TYPE));
static_assert(same_value(DnnAttribute::convolution_mode, CUDNN_ATTR_CONVOLUTION_CONV_MODE));
static_assert(same_value(DnnAttribute::convolution_dilation, CUDNN_ATTR_CONVOLUTION_DILATIONS));
static_assert(same_value(DnnAttribute::convolution_stride, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES));
static_assert(same_value(DnnAttribute::convolution_pad_high, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS));
static_assert(same_value(DnnAttribute::convolution_pad_low, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS));
static_assert(same_value(DnnAttribute::convolution_spatial, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS));
static_assert(same_value(DnnAttribute::heuristics_mode, CUDNN_ATTR_ENGINEHEUR_MODE));
static_assert(same_value(DnnAttribute::heuristics_graph, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH));
static_assert(same_value(DnnAttribute::heuristics_results, CUDNN_ATTR_ENGINEHEUR_RESULTS));
static_assert(same_value(DnnAttribute::config_engine, CUDNN_ATTR_ENGINECFG_ENGINE));
static_assert(same_value(DnnAttribute::plan_handle, CUDNN_ATTR_EXECUTION_PLAN_HANDLE));
static_assert(same_value(DnnAttribute::plan_config, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG));
static_assert(same_value(DnnAttribute::plan_workspace, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE));
static_assert(same_value(DnnAttribute::plan_json, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION));
static_assert(same_value(DnnAttribute::forward_alpha, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA));
static_assert(same_value(DnnAttribute::forward_beta, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA));
static_assert(same_value(DnnAttribute::forward_convolution,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC));
static_assert(same_value(DnnAttribute::forward_w, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W));
static_assert(same_value(DnnAttribute::forward_x, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X));
static_assert(same_value(DnnAttribute::forward_y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y));
static_assert(same_value(DnnAttribute::data_grad_alpha, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA));
static_assert(same_value(DnnAttribute::data_grad_beta, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA));
static_assert(same_value(DnnAttribute::data_grad_convolution,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC));
static_assert(same_value(DnnAttribute::data_grad_w, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W));
static_assert(same_value(DnnAttribute::data_grad_dx, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX));
static_assert(same_value(DnnAttribute::data_grad_dy, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY));
static_assert(same_value(DnnAttribute::weight_grad_alpha, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA));
static_assert(same_value(DnnAttribute::weight_grad_beta, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA));
static_assert(same_value(DnnAttribute::weight_grad_convolution,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC));
static_assert(same_value(DnnAttribute::weight_grad_dw, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW));
static_assert(same_value(DnnAttribute::weight_grad_x, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X));
static_assert(same_value(DnnAttribute::weight_grad_dy, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY));
static_assert(same_value(DnnAttribute::pointwise_descriptor, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR));
static_assert(same_value(DnnAttribute::pointwise_x, CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
static_assert(same_value(DnnAttribute::pointwise_b, CUDNN_ATTR_OPERATION_POINTWISE_BDESC));
static_assert(same_value(DnnAttribute::pointwise_y, CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
static_assert(same_value(DnnAttribute::graph_handle, CUDNN_ATTR_OPERATIONGRAPH_HANDLE));
static_assert(same_value(DnnAttribute::graph_operations, CUDNN_ATTR_OPERATIONGRAPH_OPS));
static_assert(same_value(DnnAttribute::tensor_alignment, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT));
static_assert(same_value(DnnAttribute::tensor_dtype, CUDNN_ATTR_TENSOR_DATA_TYPE));
static_assert(same_value(DnnAttribute::tensor_dims, CUDNN_ATTR_TENSOR_DIMENSIONS));
static_assert(same_value(DnnAttribute::tensor_strides, CUDNN_ATTR_TENSOR_STRIDES));
static_assert(same_value(DnnAttribute::tensor_id, CUDNN_ATTR_TENSOR_UNIQUE_ID));
static_assert(same_value(DnnAttribute::tensor_virtual, CUDNN_ATTR_TENSOR_IS_VIRTUAL));
static_assert(same_value(DnnAttribute::pack_ids, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS));
static_assert(same_value(DnnAttribute::pack_pointers, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS));
static_assert(same_value(DnnAttribute::pack_workspace, CUDNN_ATTR_VARIANT_PACK_WORKSPACE));
static_assert(same_value(DnnAttribute::engine_index, CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
static_assert(same_value(DnnAttribute::engine_numerical_notes, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE));
static_assert(same_value(DnnAttribute::engine_behaviour_notes, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE));
static_assert(same_value(DnnType::handle, CUDNN_TYPE_HANDLE));
static_assert(same_value(DnnType::dtype, CUDNN_TYPE_DATA_TYPE));
static_assert(same_value(DnnType::boolean, CUDNN_TYPE_BOOLEAN));
static_assert(same_value(DnnType::int64, CUDNN_TYPE_INT64));
static_assert(same_value(DnnType::float32, CUDNN_TYPE_FLOAT));
static_assert(same_value(DnnType::float64, CUDNN_TYPE_DOUBLE));
static_assert(same_value(DnnType::pointer, CUDNN_TYPE_VOID_PTR));
static_assert(same_value(DnnType::convolution_mode, CUDNN_TYPE_CONVOLUTION_MODE));
static_assert(same_value(DnnType::heuristics_mode, CUDNN_TYPE_HEUR_MODE));
static_assert(same_value(DnnType::nan_propagation, CUDNN_TYPE_NAN_PROPOGATION));
static_assert(same_value(DnnType::numerical_note, CUDNN_TYPE_NUMERICAL_NOTE));
static_assert(same_value(DnnType::behaviour_note, CUDNN_TYPE_BEHAVIOR_NOTE));
static_assert(same_value(DnnType::pointwise_mode, CUDNN_TYPE_POINTWISE_MODE));
static_assert(same_value(DnnType::descriptor, CUDNN_TYPE_BACKEND_DESCRIPTOR));
static_assert(same_value(DnnType::int32, CUDNN_TYPE_INT32));
static_assert(same_value(DnnType::character, CUDNN_TYPE_CHAR));
static_assert(same_value(DnnDtype::f32, CUDNN_DATA_FLOAT));
static_assert(same_value(DnnDtype::f64, CUDNN_DATA_DOUBLE));
static_assert(same_value(DnnDtype::f16, CUDNN_DATA_HALF));
static_assert(same_value(DnnDtype::i8, CUDNN_DATA_INT8));
static_assert(same_value(DnnDtype::i32, CUDNN_DATA_INT32));
static_assert(same_value(DnnDtype::bf16, CUDNN_DATA_BFLOAT16));
static_assert(same_value(DnnPointwise::add, CUDNN_POINTWISE_ADD));
static_assert(same_value(DnnPointwise::mul, CUDNN_POINTWISE_MUL));
static_assert(same_value(DnnPointwise::relu, CUDNN_POINTWISE_RELU_FWD));
static_assert(same_value(DnnPointwise::tanh, CUDNN_POINTWISE_TANH_FWD));
static_assert(same_value(DnnPointwise::sigmoid, CUDNN_POINTWISE_SIGMOID_FWD));
static_assert(same_value(DnnHeuristics::fallback, CUDNN_HEUR_MODE_FALLBACK));
static_assert(same_value(DnnHeuristics::best, CUDNN_HEUR_MODE_A));
static_assert(same_value(DnnNote::tensor_core, CUDNN_NUMERICAL_NOTE_TENSOR_CORE));
static_assert(same_value(DnnNote::down_convert_inputs, CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS));
static_assert(same_value(DnnNote::reduced_precision_reduction,
                         CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION));
static_assert(same_value(DnnNote::fft, CUDNN_NUMERICAL_NOTE_FFT));
static_assert(same_value(DnnNote::nondeterministic, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC));
static_assert(same_value(DnnNote::winograd, CUDNN_NUMERICAL_NOTE_WINOGRAD));
static_assert(same_value(DnnNote::winograd_4x4, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4));
static_assert(same_value(DnnNote::winograd_6x6, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6));
static_assert(same_value(DnnNote::winograd_13x13, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13));
static_assert(same_value(DnnBehaviour::compiles, CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION));
static_assert(same_value(DnnBehaviour::reordered_filter,
                         CUDNN_BEHAVIOR_NOTE_REQUIRES_FILTER_INT8x32_REORDER));
static_assert(same_value(DnnBehaviour::reordered_bias, CUDNN_BEHAVIOR_NOTE_REQUIRES_BIAS_INT8x32_REORDER));
#if CUDNN_VERSION >= 90800
static_assert(same_value(DnnKind::device, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR));
static_assert(same_value(DnnAttribute::heuristics_device, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP));
static_assert(same_value(DnnAttribute::plan_device, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP));
static_assert(same_value(DnnAttribute::device_handle, CUDNN_ATTR_DEVICEPROP_HANDLE));
static_assert(same_value(DnnAttribute::device_json, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION));
static_assert(same_value(DnnNote::strict_nan, CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP));
#endif
static_assert(same_call<decltype(DnnApi::GetErrorString), decltype(cudnnGetErrorString)>);
static_assert(same_call<decltype(DnnApi::GetLastErrorString), decltype(cudnnGetLastErrorString)>);
static_assert(same_call<decltype(DnnApi::Create), decltype(cudnnCreate)>);
static_assert(same_call<decltype(DnnApi::Destroy), decltype(cudnnDestroy)>);
static_assert(same_call<decltype(DnnApi::SetStream), decltype(cudnnSetStream)>);
static_assert(same_call<decltype(DnnApi::BackendCreateDescriptor), decltype(cudnnBackendCreateDescriptor)>);
static_assert(same_call<decltype(DnnApi::BackendDestroyDescriptor), decltype(cudnnBackendDestroyDescriptor)>);
static_assert(same_call<decltype(DnnApi::BackendFinalize), decltype(cudnnBackendFinalize)>);
static_assert(same_call<decltype(DnnApi::BackendSetAttribute), decltype(cudnnBackendSetAttribute)>);
static_assert(same_call<decltype(DnnApi::BackendGetAttribute), decltype(cudnnBackendGetAttribute)>);
static_assert(same_call<decltype(DnnApi::BackendExecute), decltype(cudnnBackendExecute)>);
static_assert(same_call<decltype(DnnApi::GetVersion), decltype(cudnnGetVersion)>);
static_assert(same_call<decltype(DnnApi::GetCudartVersion), decltype(cudnnGetCudartVersion)>);
#endif
#if __has_include(<nccl.h>)
static_assert(same_call<decltype(NcclApi::GetVersion), decltype(ncclGetVersion)>);
#endif
#if __has_include(<nvtx3/nvToolsExt.h>)
static_assert(nvtx_version == NVTX_VERSION);
static_assert(nvtx_export_callbacks == NVTX_ETID_CALLBACKS && nvtx_export_version == NVTX_ETID_VERSIONINFO);
static_assert(nvtx_core == NVTX_CB_MODULE_CORE && nvtx_modules == NVTX_CB_MODULE_SIZE);
static_assert(nvtx_module_sizes == std::array<unsigned, nvtx_modules>{
                                       0, NVTX_CBID_CORE_SIZE, NVTX_CBID_CUDA_SIZE, NVTX_CBID_OPENCL_SIZE,
                                       NVTX_CBID_CUDART_SIZE, NVTX_CBID_CORE2_SIZE, NVTX_CBID_SYNC_SIZE});
static_assert(nvtx_range_push == NVTX_CBID_CORE_RangePushA && nvtx_range_pop == NVTX_CBID_CORE_RangePop);
static_assert(same_call<NvtxRangePush*, decltype(nvtxRangePushA)> &&
              same_call<NvtxRangePop*, decltype(nvtxRangePop)>);
static_assert(sizeof(NvtxCallbacks) == sizeof(NvtxExportTableCallbacks) &&
              sizeof(NvtxVersionInfo) == sizeof(NvtxExportTableVersionInfo));
#endif

}  // namespace
}  // namespace espalier::target::cuda::driver
