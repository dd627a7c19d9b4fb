#include "target/cuda/driver/libraries.h"

#include <fmt/format.h>

#include <functional>

namespace espalier::target::cuda::driver {

namespace {

/// What is asked of a library before it is used.
template <class Api>
struct Recipe {
  std::string name, purpose;
  std::vector<std::string> files;  ///< the best first
  const std::vector<std::filesystem::path>& folders;
  /// Fill the table and the version. Why the library does not serve, or "".
  std::function<std::string(const DynamicLibrary&, Api&, std::string& version)> open;
};

template <class Api>
Loaded<Api> load(const Recipe<Api>& recipe) {
  Loaded<Api> out;
  Api api{};
  std::string version;
  FoundLibrary found = find_library(
      {.names = recipe.files, .folders = recipe.folders, .refuse = [&](const DynamicLibrary& library) {
         api = {};
         version.clear();
         return recipe.open(library, api, version);
       }});
  out.report = {.name = recipe.name,
                .purpose = recipe.purpose,
                .found = found.library.has_value(),
                .version = {},
                .path = {},
                .reason = {},
                .attempts = std::move(found.attempts)};
  if (found.library) {
    out.api = api;
    out.report.version = version;
    out.report.path = found.library->path();
  } else {
    out.report.reason = recipe.folders.empty() ? "nothing is searched: ESPALIER_CUDA_PATH says off"
                                               : reason_of(out.report.attempts, recipe.files);
  }
  return out;
}

template <class Api, class Entries>
std::string fill_from(const DynamicLibrary& library, Api& api, const Entries& entries) {
  return fill(api, entries, [&](const char* name) { return library.find(name); });
}

std::string open_driver(const DynamicLibrary& library, CuApi& api, int& version) {
  CuResult (*get_version)(int*) = nullptr;
  if (!library.find("cuDriverGetVersion", get_version)) return "it lacks cuDriverGetVersion";
  if (const CuResult error = get_version(&version); error != cu_success)
    return fmt::format("cuDriverGetVersion fails with {}", error);
  CuGetProcAddress* get = nullptr;
  if (version >= cu_oldest_driver && !library.find("cuGetProcAddress_v2", get))
    return "it lacks cuGetProcAddress_v2";
  return fill_driver(api, version, [&](const char* name) -> void* {
    void* function = nullptr;
    int status = 0;
    return get(name, &function, cu_oldest_driver, 0, &status) == cu_success ? function : nullptr;
  });
}

/// NVRTC opens libnvrtc-builtins of its own version when it compiles; without it every compilation would fail.
std::string refuse_without_builtins(const DynamicLibrary& nvrtc, const std::string& version) {
  const std::string file = "libnvrtc-builtins.so." + version;
  const FoundLibrary builtins = find_library({.names = {file}, .folders = {nvrtc.path().parent_path(), ""}});
  return builtins.library ? "" : fmt::format("{} is not beside it", file);
}

}  // namespace

std::string library_version(size_t version) {
  return fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

/// Why a library made for CUDA `cuda_major` cannot run on the driver; "" where it can, or where there is no driver to ask.
std::string Libraries::refuse_for_driver(int cuda_major) {
  if (!driver().api || cuda_major <= driver_version_ / 1000) return "";
  return fmt::format("it needs a driver for CUDA {}, found {}", cuda_major, cuda_version(driver_version_));
}

const Loaded<CuApi>& Libraries::driver() {
  std::call_once(driver_.once, [&] {
    driver_.loaded =
        load<CuApi>({.name = "driver",
                     .purpose = "every GPU",
                     .files = {"libcuda.so.1"},
                     .folders = places_.driver,
                     .open = [&](const DynamicLibrary& library, CuApi& api, std::string& version) {
                       std::string refusal = open_driver(library, api, driver_version_);
                       version = cuda_version(driver_version_);
                       return refusal;
                     }});
  });
  return driver_.loaded;
}

const Loaded<NvmlApi>& Libraries::nvml() {
  std::call_once(nvml_.once, [&] {
    nvml_.loaded = load<NvmlApi>(
        {.name = "nvml",
         .purpose = "free memory, utilisation, power and temperature",
         .files = {"libnvidia-ml.so.1"},
         .folders = places_.driver,
         .open = [&](const DynamicLibrary& library, NvmlApi& api, std::string& version) {
           if (std::string lacks = fill_from(library, api, nvml_entries); !lacks.empty()) return lacks;
           if (const NvmlReturn error = api.Init(); error != nvml_success)
             return fmt::format("nvmlInit: {} ({})", api.ErrorString(error), error);
           char text[96] = "";
           if (api.SystemGetNVMLVersion && api.SystemGetNVMLVersion(text, sizeof text) == nvml_success)
             version = text;
           return std::string();
         }});
  });
  return nvml_.loaded;
}

const Loaded<NvrtcApi>& Libraries::nvrtc() {
  std::call_once(nvrtc_.once, [&] {
    nvrtc_.loaded =
        load<NvrtcApi>({.name = "nvrtc",
                        .purpose = "compiling kernels",
                        .files = {"libnvrtc.so.13", "libnvrtc.so.12"},
                        .folders = places_.toolkits,
                        .open = [&](const DynamicLibrary& library, NvrtcApi& api, std::string& version) {
                          if (std::string lacks = fill_from(library, api, nvrtc_entries); !lacks.empty())
                            return lacks;
                          int major = 0, minor = 0;
                          if (const int error = api.Version(&major, &minor); error != 0)
                            return fmt::format("nvrtcVersion fails with {}", error);
                          version = fmt::format("{}.{}", major, minor);
                          std::string refusal = refuse_for_driver(major);
                          return refusal.empty() ? refuse_without_builtins(library, version) : refusal;
                        }});
  });
  return nvrtc_.loaded;
}

const Loaded<LtApi>& Libraries::lt() {
  std::call_once(lt_.once, [&] {
    lt_.loaded = load<LtApi>({.name = "cublaslt",
                              .purpose = "matrix products",
                              .files = {"libcublasLt.so.13", "libcublasLt.so.12"},
                              .folders = places_.toolkits,
                              .open = [&](const DynamicLibrary& library, LtApi& api, std::string& version) {
                                if (std::string lacks = fill_from(library, api, lt_entries); !lacks.empty())
                                  return lacks;
                                const size_t number = api.GetVersion();
                                version = library_version(number);
                                return refuse_for_driver(static_cast<int>(number / 10000));
                              }});
  });
  return lt_.loaded;
}

const Loaded<DnnApi>& Libraries::dnn() {
  std::call_once(dnn_.once, [&] {
    dnn_.loaded =
        load<DnnApi>({.name = "cudnn",
                      .purpose = "convolutions, norms and attention",
                      .files = {"libcudnn.so.9"},
                      .folders = places_.toolkits,
                      .open = [&](const DynamicLibrary& library, DnnApi& api, std::string& version) {
                        if (std::string lacks = fill_from(library, api, dnn_entries); !lacks.empty())
                          return lacks;
                        version = library_version(api.GetVersion());
                        return refuse_for_driver(static_cast<int>(api.GetCudartVersion() / 1000));
                      }});
  });
  return dnn_.loaded;
}

const Loaded<NcclApi>& Libraries::nccl() {
  std::call_once(nccl_.once, [&] {
    nccl_.loaded =
        load<NcclApi>({.name = "nccl",
                       .purpose = "several GPUs at once",
                       .files = {"libnccl.so.2"},
                       .folders = places_.toolkits,
                       .open = [&](const DynamicLibrary& library, NcclApi& api, std::string& version) {
                         if (std::string lacks = fill_from(library, api, nccl_entries); !lacks.empty())
                           return lacks;
                         int number = 0;
                         if (const int error = api.GetVersion(&number); error != 0)
                           return fmt::format("ncclGetVersion fails with {}", error);
                         version = library_version(static_cast<size_t>(number));
                         return std::string();
                       }});
  });
  return nccl_.loaded;
}

std::vector<LibraryReport> Libraries::reports() {
  return {driver().report, nvml().report, nvrtc().report, lt().report, dnn().report, nccl().report};
}

Libraries& libraries() {
  static Libraries instance(search_places(search_environment()));
  return instance;
}

}  // namespace espalier::target::cuda::driver
