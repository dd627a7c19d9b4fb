#pragma once
// cuDNN (libcudnn.so.9): convolutions, norms and attention. Operations are described by its backend API as a graph of descriptors with
// attributes. Names and values are NVIDIA's, written down from its documentation; vendor_check.cpp holds them against the vendor's
// header where that is installed.
#include <cstddef>
#include <cstdint>

#include "target/cuda/driver/tables/entry.h"

namespace espalier::target::cuda::driver {

using DnnStatus = int;                              // cudnnStatus_t: 0 is success
using DnnHandle = struct DnnHandleOpaque*;          // cudnnHandle_t
using DnnDescriptor = struct DnnDescriptorOpaque*;  // cudnnBackendDescriptor_t
inline constexpr DnnStatus dnn_success = 0;

/// cudnnBackendDescriptorType_t.
enum class DnnKind : int {
  pointwise = 0,
  convolution = 1,
  engine = 2,
  engine_config = 3,
  heuristics = 4,
  plan = 5,
  conv_forward = 10,
  conv_weight_grad = 11,
  conv_data_grad = 12,
  pointwise_operation = 13,
  graph = 15,
  variant_pack = 16,
  tensor = 17,
  device = 38,  ///< since 9.8
};

/// cudnnBackendAttributeName_t.
enum class DnnAttribute : int {
  pointwise_mode = 0,
  pointwise_precision = 1,
  pointwise_nan = 2,
  convolution_compute = 100,
  convolution_mode = 101,
  convolution_dilation = 102,
  convolution_stride = 103,
  convolution_pad_high = 104,
  convolution_pad_low = 105,
  convolution_spatial = 106,
  heuristics_mode = 200,
  heuristics_graph = 201,
  heuristics_results = 202,
  heuristics_device = 204,
  config_engine = 300,
  plan_handle = 400,
  plan_config = 401,
  plan_workspace = 402,
  plan_json = 405,
  plan_device = 407,
  forward_alpha = 700,
  forward_beta = 701,
  forward_convolution = 702,
  forward_w = 703,
  forward_x = 704,
  forward_y = 705,
  data_grad_alpha = 706,
  data_grad_beta = 707,
  data_grad_convolution = 708,
  data_grad_w = 709,
  data_grad_dx = 710,
  data_grad_dy = 711,
  weight_grad_alpha = 712,
  weight_grad_beta = 713,
  weight_grad_convolution = 714,
  weight_grad_dw = 715,
  weight_grad_x = 716,
  weight_grad_dy = 717,
  pointwise_descriptor = 750,
  pointwise_x = 751,
  pointwise_b = 752,
  pointwise_y = 753,
  graph_handle = 800,
  graph_operations = 801,
  tensor_alignment = 900,
  tensor_dtype = 901,
  tensor_dims = 902,
  tensor_strides = 903,
  tensor_id = 906,
  tensor_virtual = 907,
  pack_ids = 1000,
  pack_pointers = 1001,
  pack_workspace = 1003,
  engine_index = 1301,
  engine_numerical_notes = 1303,
  engine_behaviour_notes = 1305,
  device_handle = 2701,
  device_json = 2702,
};

/// cudnnBackendAttributeType_t.
enum class DnnType : int {
  handle = 0,
  dtype = 1,
  boolean = 2,
  int64 = 3,
  float32 = 4,
  float64 = 5,
  pointer = 6,
  convolution_mode = 7,
  heuristics_mode = 8,
  nan_propagation = 10,
  numerical_note = 11,
  pointwise_mode = 14,
  descriptor = 15,
  behaviour_note = 19,
  int32 = 23,
  character = 24,
};

enum class DnnDtype : int { f32 = 0, f64 = 1, f16 = 2, i8 = 3, i32 = 4, bf16 = 9 };  // cudnnDataType_t
enum class DnnPointwise : int { add = 0, mul = 1, relu = 100, tanh = 101, sigmoid = 102 };
enum class DnnHeuristics : int { fallback = 2, best = 3 };  // cudnnBackendHeurMode_t
inline constexpr int dnn_cross_correlation = 1;             // cudnnConvolutionMode_t
inline constexpr int dnn_propagate_nan = 1;                 // cudnnNanPropagation_t

/// cudnnBackendNumericalNote_t: what an engine does to numbers.
enum class DnnNote : int {
  tensor_core = 0,
  down_convert_inputs = 1,
  reduced_precision_reduction = 2,
  fft = 3,
  nondeterministic = 4,
  winograd = 5,
  winograd_4x4 = 6,
  winograd_6x6 = 7,
  winograd_13x13 = 8,
  strict_nan = 9,
};
inline constexpr int dnn_notes_most = 32;

/// cudnnBackendBehaviorNote_t: what an engine asks of its caller; others ask for nothing that a plan would have to give.
enum class DnnBehaviour : int { compiles = 0, reordered_filter = 1, reordered_bias = 2 };

struct DnnApi {
  size_t (*GetVersion)();        ///< 10000 major + 100 minor + patch
  size_t (*GetCudartVersion)();  ///< the CUDA it was built for, as the driver counts
  const char* (*GetErrorString)(DnnStatus status);
  void (*GetLastErrorString)(char* message, size_t size);
  DnnStatus (*Create)(DnnHandle* handle);
  DnnStatus (*Destroy)(DnnHandle handle);
  DnnStatus (*SetStream)(DnnHandle handle, void* stream);
  DnnStatus (*BackendCreateDescriptor)(DnnKind kind, DnnDescriptor* descriptor);
  DnnStatus (*BackendDestroyDescriptor)(DnnDescriptor descriptor);
  DnnStatus (*BackendFinalize)(DnnDescriptor descriptor);
  DnnStatus (*BackendSetAttribute)(DnnDescriptor descriptor, DnnAttribute name, DnnType type, int64_t count,
                                   const void* values);
  DnnStatus (*BackendGetAttribute)(DnnDescriptor descriptor, DnnAttribute name, DnnType type, int64_t room,
                                   int64_t* count, void* values);
  DnnStatus (*BackendExecute)(DnnHandle handle, DnnDescriptor plan, DnnDescriptor pack);
};

inline constexpr std::tuple dnn_entries{
    entry("cudnnGetVersion", &DnnApi::GetVersion),
    entry("cudnnGetCudartVersion", &DnnApi::GetCudartVersion),
    entry("cudnnGetErrorString", &DnnApi::GetErrorString),
    entry("cudnnGetLastErrorString", &DnnApi::GetLastErrorString),
    entry("cudnnCreate", &DnnApi::Create),
    entry("cudnnDestroy", &DnnApi::Destroy),
    entry("cudnnSetStream", &DnnApi::SetStream),
    entry("cudnnBackendCreateDescriptor", &DnnApi::BackendCreateDescriptor),
    entry("cudnnBackendDestroyDescriptor", &DnnApi::BackendDestroyDescriptor),
    entry("cudnnBackendFinalize", &DnnApi::BackendFinalize),
    entry("cudnnBackendSetAttribute", &DnnApi::BackendSetAttribute),
    entry("cudnnBackendGetAttribute", &DnnApi::BackendGetAttribute),
    entry("cudnnBackendExecute", &DnnApi::BackendExecute),
};

}  // namespace espalier::target::cuda::driver
