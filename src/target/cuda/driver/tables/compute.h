#pragma once
// The libraries that compile and compute, as far as they are used. vendor_check.cpp holds the declarations
// against the vendor's headers where those are installed.
#include <cstddef>

#include "target/cuda/driver/tables/entry.h"

namespace espalier::target::cuda::driver {

using NvrtcProgram = struct NvrtcProgramOpaque*;  // nvrtcProgram

/// NVRTC (libnvrtc.so): the compiler of CUDA C. Each function returns an nvrtcResult: 0 is success.
struct NvrtcApi {
  int (*Version)(int* major, int* minor);
  int (*GetNumSupportedArchs)(int* count);
  int (*GetSupportedArchs)(int* capabilities);
  int (*CreateProgram)(NvrtcProgram* program, const char* text, const char* name, int headers,
                       const char* const* texts, const char* const* names);
  int (*DestroyProgram)(NvrtcProgram* program);
  int (*CompileProgram)(NvrtcProgram program, int count, const char* const* options);
  int (*GetProgramLogSize)(NvrtcProgram program, size_t* bytes);
  int (*GetProgramLog)(NvrtcProgram program, char* log);
  int (*GetCUBINSize)(NvrtcProgram program, size_t* bytes);
  int (*GetCUBIN)(NvrtcProgram program, char* cubin);
  int (*GetPTXSize)(NvrtcProgram program, size_t* bytes);
  int (*GetPTX)(NvrtcProgram program, char* ptx);
};
inline constexpr std::tuple nvrtc_entries{
    entry("nvrtcVersion", &NvrtcApi::Version),
    entry("nvrtcGetNumSupportedArchs", &NvrtcApi::GetNumSupportedArchs),
    entry("nvrtcGetSupportedArchs", &NvrtcApi::GetSupportedArchs),
    entry("nvrtcCreateProgram", &NvrtcApi::CreateProgram),
    entry("nvrtcDestroyProgram", &NvrtcApi::DestroyProgram),
    entry("nvrtcCompileProgram", &NvrtcApi::CompileProgram),
    entry("nvrtcGetProgramLogSize", &NvrtcApi::GetProgramLogSize),
    entry("nvrtcGetProgramLog", &NvrtcApi::GetProgramLog),
    entry("nvrtcGetCUBINSize", &NvrtcApi::GetCUBINSize),
    entry("nvrtcGetCUBIN", &NvrtcApi::GetCUBIN),
    entry("nvrtcGetPTXSize", &NvrtcApi::GetPTXSize),
    entry("nvrtcGetPTX", &NvrtcApi::GetPTX),
};

/// NCCL: collectives over several GPUs.
struct NcclApi {
  int (*GetVersion)(int* version);  ///< ncclResult_t: 0 is success; 10000 major + 100 minor + patch
};
inline constexpr std::tuple nccl_entries{entry("ncclGetVersion", &NcclApi::GetVersion)};

}  // namespace espalier::target::cuda::driver
