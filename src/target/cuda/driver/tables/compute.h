#pragma once
// The libraries that compile and compute, as far as they are used: what tells their versions. vendor_check.cpp holds the declarations
// against the vendor's headers where those are installed.
#include <cstddef>

#include "target/cuda/driver/tables/entry.h"

namespace espalier::target::cuda::driver {

/// NVRTC (libnvrtc.so): the compiler of CUDA C.
struct NvrtcApi {
  int (*Version)(int* major, int* minor);  ///< nvrtcResult: 0 is success
};
inline constexpr std::tuple nvrtc_entries{entry("nvrtcVersion", &NvrtcApi::Version)};

/// cuBLASLt: matrix products.
struct LtApi {
  size_t (*GetVersion)();  ///< 10000 major + 100 minor + patch
};
inline constexpr std::tuple lt_entries{entry("cublasLtGetVersion", &LtApi::GetVersion)};

/// cuDNN: convolutions, norms and attention.
struct DnnApi {
  size_t (*GetVersion)();        ///< 10000 major + 100 minor + patch
  size_t (*GetCudartVersion)();  ///< the CUDA it was built for, as the driver counts
};
inline constexpr std::tuple dnn_entries{entry("cudnnGetVersion", &DnnApi::GetVersion),
                                        entry("cudnnGetCudartVersion", &DnnApi::GetCudartVersion)};

/// NCCL: collectives over several GPUs.
struct NcclApi {
  int (*GetVersion)(int* version);  ///< ncclResult_t: 0 is success; 10000 major + 100 minor + patch
};
inline constexpr std::tuple nccl_entries{entry("ncclGetVersion", &NcclApi::GetVersion)};

}  // namespace espalier::target::cuda::driver
