#include "target/cuda/driver/nvtx.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace espalier::target::cuda::driver {

namespace {

/// What a tool fills. It keeps these addresses, so they stay as long as the process.
struct Places {
  std::array<std::array<NvtxFunction, nvtx_module_most>, nvtx_modules> functions{};
  std::array<std::array<NvtxFunction*, nvtx_module_most + 1>, nvtx_modules> tables{};

  Places() {
    for (size_t m = 0; m < nvtx_modules; ++m)
      for (size_t i = 1; i < nvtx_module_sizes[m]; ++i) tables[m][i] = &functions[m][i];
  }
};

Places& places() {
  static Places all;
  return all;
}

int module_table(int module, NvtxFunction*** table, unsigned* size) {
  if (module < nvtx_core || module >= nvtx_modules) return 0;
  const auto m = static_cast<size_t>(module);
  if (table) *table = places().tables[m].data();
  if (size) *size = nvtx_module_sizes[m];
  return 1;
}

const void* export_table(uint32_t table) {
  static const NvtxCallbacks callbacks{sizeof(NvtxCallbacks), module_table};
  static const NvtxVersionInfo version{sizeof(NvtxVersionInfo), nvtx_version, 0, [](uint32_t) {}};
  if (table == nvtx_export_callbacks) return &callbacks;
  return table == nvtx_export_version ? &version : nullptr;
}

}  // namespace

Nvtx::Nvtx(const std::filesystem::path& tool) {
  if (tool.empty()) return;
  static std::mutex one;
  const std::lock_guard lock(one);
  NvtxInitialize* initialize = nullptr;
  const FoundLibrary found = find_library(
      {.names = {tool.filename()}, .folders = {tool.parent_path()}, .refuse = [&](const DynamicLibrary& l) {
         return l.find(nvtx_entry, initialize) ? "" : std::string("it lacks ") + nvtx_entry;
       }});
  if (!found.library) {
    problem_ = reason_of(found.attempts, {tool.string()});
    return;
  }
  places().functions = {};
  if (initialize(export_table) == 0) {
    problem_ = "it does not attach";
    return;
  }
  const auto& core = places().functions[nvtx_core];
  push_ = reinterpret_cast<NvtxRangePush*>(core[nvtx_range_push]);
  pop_ = reinterpret_cast<NvtxRangePop*>(core[nvtx_range_pop]);
}

const Nvtx& nvtx() {
  static const Nvtx tool = [] {
    const char* const path = std::getenv(nvtx_variable);
    Nvtx made(path ? path : "");
    if (!made.problem().empty())
      std::fprintf(stderr, "espalier: the tool of %s hears of no ranges: %s: %s\n", nvtx_variable, path,
                   made.problem().c_str());
    return made;
  }();
  return tool;
}

}  // namespace espalier::target::cuda::driver
