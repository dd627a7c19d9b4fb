#pragma once
// cuBLASLt (libcublasLt.so): matrix products. vendor_check.cpp holds the declarations against the vendor's header where it is installed.
#include <cstddef>
#include <cstdint>

#include "target/cuda/driver/tables/cu.h"
#include "target/cuda/driver/tables/entry.h"

namespace espalier::target::cuda::driver {

using LtStatus = int;                                         // cublasStatus_t: 0 is success
using LtHandle = struct LtHandleOpaque*;                      // cublasLtHandle_t
using LtMatmulDesc = struct LtMatmulDescOpaque*;              // cublasLtMatmulDesc_t
using LtMatrixLayout = struct LtMatrixLayoutOpaque*;          // cublasLtMatrixLayout_t
using LtMatmulPreference = struct LtMatmulPreferenceOpaque*;  // cublasLtMatmulPreference_t

inline constexpr LtStatus lt_success = 0, lt_not_initialized = 1, lt_invalid_value = 7, lt_not_supported = 15;

/// cudaDataType_t.
enum class LtType : int { r_32f = 0, r_64f = 1, r_16f = 2, r_8i = 3, r_32i = 10, r_16bf = 14 };
/// cublasComputeType_t.
enum class LtCompute : int { f32 = 68, f64 = 70, i32 = 72, f32_fast_tf32 = 77 };
/// cublasOperation_t.
enum class LtOperation : int { none = 0, transpose = 1 };
/// cublasLtMatmulDescAttributes_t.
enum class LtDescAttribute : int {
  transpose_a = 3,
  transpose_b = 4,
  epilogue = 7,
  bias_pointer = 8,
  aux_pointer = 11,
  aux_ld = 12,
};
/// cublasLtMatrixLayoutAttribute_t.
enum class LtLayoutAttribute : int { batch_count = 5, strided_batch_offset = 6 };
/// cublasLtMatmulPreferenceAttributes_t.
enum class LtPreferenceAttribute : int {
  max_workspace_bytes = 1,
  reduction_scheme_mask = 3,
  min_alignment_a = 5,
  min_alignment_b = 6,
  min_alignment_c = 7,
  min_alignment_d = 8,
};
/// cublasLtEpilogue_t.
enum class LtEpilogue : int {
  none = 1,
  relu = 2,
  bias = 4,
  relu_bias = 6,
  gelu = 32,
  gelu_bias = 36,
  gelu_aux = 160,
  gelu_aux_bias = 164,
  relu_aux = 130,
  relu_aux_bias = 134,
  drelu = 136,
  sum_a = 256,  ///< BGRADA: of op(A)'s rows, where the bias pointer says
  sum_b = 512,  ///< BGRADB: of op(B)'s columns
};
/// cublasLtReductionScheme_t: the parts of a long sum may be added in the type of the computation, not in the result's.
inline constexpr uint32_t lt_reduction_in_compute_type = 2;

/// cublasLtMatmulAlgo_t.
struct LtAlgo {
  uint64_t data[8];
};
/// cublasLtMatmulHeuristicResult_t.
struct LtHeuristic {
  LtAlgo algo;
  size_t workspace_bytes;
  LtStatus state;  ///< the other fields mean something where this is lt_success
  float waves;
  int reserved[4];
};

struct LtApi {
  size_t (*GetVersion)();  ///< 10000 major + 100 minor + patch
  const char* (*GetStatusString)(LtStatus status);
  /// For the device of the current context.
  LtStatus (*Create)(LtHandle* handle);
  LtStatus (*Destroy)(LtHandle handle);
  LtStatus (*MatmulDescCreate)(LtMatmulDesc* desc, LtCompute compute, LtType scale);
  LtStatus (*MatmulDescDestroy)(LtMatmulDesc desc);
  LtStatus (*MatmulDescSetAttribute)(LtMatmulDesc desc, LtDescAttribute attribute, const void* value,
                                     size_t bytes);
  LtStatus (*MatrixLayoutCreate)(LtMatrixLayout* layout, LtType type, uint64_t rows, uint64_t columns,
                                 int64_t ld);
  LtStatus (*MatrixLayoutDestroy)(LtMatrixLayout layout);
  LtStatus (*MatrixLayoutSetAttribute)(LtMatrixLayout layout, LtLayoutAttribute attribute, const void* value,
                                       size_t bytes);
  LtStatus (*MatmulPreferenceCreate)(LtMatmulPreference* preference);
  LtStatus (*MatmulPreferenceDestroy)(LtMatmulPreference preference);
  LtStatus (*MatmulPreferenceSetAttribute)(LtMatmulPreference preference, LtPreferenceAttribute attribute,
                                           const void* value, size_t bytes);
  LtStatus (*MatmulAlgoGetHeuristic)(LtHandle handle, LtMatmulDesc desc, LtMatrixLayout a, LtMatrixLayout b,
                                     LtMatrixLayout c, LtMatrixLayout d, LtMatmulPreference preference,
                                     int wanted, LtHeuristic* found, int* count);
  /// Does the algorithm do it, and with how much workspace?
  LtStatus (*MatmulAlgoCheck)(LtHandle handle, LtMatmulDesc desc, LtMatrixLayout a, LtMatrixLayout b,
                              LtMatrixLayout c, LtMatrixLayout d, const LtAlgo* algo, LtHeuristic* found);
  LtStatus (*Matmul)(LtHandle handle, LtMatmulDesc desc, const void* alpha, const void* a,
                     LtMatrixLayout a_layout, const void* b, LtMatrixLayout b_layout, const void* beta,
                     const void* c, LtMatrixLayout c_layout, void* d, LtMatrixLayout d_layout,
                     const LtAlgo* algo, void* workspace, size_t workspace_bytes, CuStream stream);
};

inline constexpr std::tuple lt_entries{
    entry("cublasLtGetVersion", &LtApi::GetVersion),
    entry("cublasLtGetStatusString", &LtApi::GetStatusString),
    entry("cublasLtCreate", &LtApi::Create),
    entry("cublasLtDestroy", &LtApi::Destroy),
    entry("cublasLtMatmulDescCreate", &LtApi::MatmulDescCreate),
    entry("cublasLtMatmulDescDestroy", &LtApi::MatmulDescDestroy),
    entry("cublasLtMatmulDescSetAttribute", &LtApi::MatmulDescSetAttribute),
    entry("cublasLtMatrixLayoutCreate", &LtApi::MatrixLayoutCreate),
    entry("cublasLtMatrixLayoutDestroy", &LtApi::MatrixLayoutDestroy),
    entry("cublasLtMatrixLayoutSetAttribute", &LtApi::MatrixLayoutSetAttribute),
    entry("cublasLtMatmulPreferenceCreate", &LtApi::MatmulPreferenceCreate),
    entry("cublasLtMatmulPreferenceDestroy", &LtApi::MatmulPreferenceDestroy),
    entry("cublasLtMatmulPreferenceSetAttribute", &LtApi::MatmulPreferenceSetAttribute),
    entry("cublasLtMatmulAlgoGetHeuristic", &LtApi::MatmulAlgoGetHeuristic),
    entry("cublasLtMatmulAlgoCheck", &LtApi::MatmulAlgoCheck),
    entry("cublasLtMatmul", &LtApi::Matmul)};

}  // namespace espalier::target::cuda::driver
