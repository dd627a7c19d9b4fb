#pragma once
// NVTX version 3, as far as it is used: ranges that a tool shows beside what it sees of the device. There is no library of NVTX: a program
// holds tables of functions, which a tool fills when it is loaded. Source: NVIDIA's nvtx3/nvtxDetail/nvtxTypes.h and nvtxImpl.h.
#include <array>
#include <cstddef>
#include <cstdint>

namespace espalier::target::cuda::driver {

inline constexpr char nvtx_variable[] = "NVTX_INJECTION64_PATH";  ///< names the tool's library
inline constexpr char nvtx_entry[] =
    "InitializeInjectionNvtx2";  ///< int(NvtxGetExportTable*): 0 where it does not attach
inline constexpr uint32_t nvtx_version = 3;

using NvtxFunction = void (*)();
using NvtxGetExportTable = const void*(uint32_t table);
using NvtxInitialize = int(NvtxGetExportTable* get);

inline constexpr uint32_t nvtx_export_callbacks = 1, nvtx_export_version = 3;

/// Places for functions, by module and number; the first of each module is none.
inline constexpr int nvtx_core = 1, nvtx_modules = 7;
inline constexpr std::array<unsigned, nvtx_modules> nvtx_module_sizes{0, 16, 9, 15, 7, 16, 7};
inline constexpr size_t nvtx_module_most = 16;
inline constexpr size_t nvtx_range_push = 9, nvtx_range_pop = 11;

using NvtxRangePush = int(const char* message);  ///< how deep it is
using NvtxRangePop = int();

struct NvtxCallbacks {
  size_t bytes;
  /// The addresses of a module's places, and how many there are; 0 where there is no such module.
  int (*GetModuleFunctionTable)(int module, NvtxFunction*** table, unsigned* size);
};
struct NvtxVersionInfo {
  size_t bytes;
  uint32_t version, reserved;
  void (*SetInjectionNvtxVersion)(uint32_t version);
};

}  // namespace espalier::target::cuda::driver
