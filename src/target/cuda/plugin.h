#pragma once
// libespalier_cuda.so, the part of Espalier that talks to NVIDIA's libraries: found when a CUDA device is first mentioned, so that one
// build serves machines with and without them. Only a plugin of the very same build is used, so C++ types may cross.
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/dynamic_library.h"
#include "target/cuda/images.h"
#include "target/cuda/kernel_texts.h"
#include "target/cuda/report.h"
#include "target/device.h"

namespace espalier::target::cuda {

/// What the plugin gives. Hosts of every version read the first two fields, so they stay first and keep their types.
struct PluginInterface {
  const char* version;  ///< of Espalier
  const char* build;    ///< plugin_build() of the plugin's own sources
  CudaReport (*report)(Ask what);
  std::shared_ptr<Device> (*open)(int index, const KernelTexts& texts);  ///< GPU number `index`; DeviceError
  ImagesMade (*make_images)(const ImageRequest& request, const KernelTexts& texts);  ///< as make_images()
};

inline constexpr char plugin_file[] = "libespalier_cuda.so";
inline constexpr char plugin_entry[] =
    "espalier_plugin";  ///< extern "C" const PluginInterface* espalier_plugin()

struct Plugin {
  const PluginInterface* interface = nullptr;  ///< null where no plugin serves
  std::filesystem::path path;
  std::string reason;                    ///< why none does, in one line
  std::vector<LibraryAttempt> attempts;  ///< what was tried before, or in vain
};

/// The first plugin of this build in these folders.
Plugin load_plugin(std::span<const std::filesystem::path> folders);

/// Where a plugin is looked for: ESPALIER_PLUGIN_PATH (folders, with colons between), the folder of this library, the folder of the
/// program and the library folder beside that.
std::vector<std::filesystem::path> plugin_folders();

/// The plugin of this process, loaded by the first call. Safe from any thread.
const Plugin& plugin();

/// What this machine has. Without a plugin its reason is the problem, and no library is known.
CudaReport report(Ask what);

/// GPU number `index` of this machine. UserError where there is no plugin, DeviceError where there is no driver, no such GPU, or where it
/// cannot be had.
std::shared_ptr<Device> open_device(int index);

/// Compile kernels beforehand, with code for every architecture that is named and PTX of the newest for later ones, into a folder that
/// ESPALIER_KERNEL_IMAGES may name. Needs NVRTC and no GPU. UserError: there is no plugin, no NVRTC, it does not know an architecture, the folder
/// holds something else. WriteError.
ImagesMade make_images(const ImageRequest& request);

}  // namespace espalier::target::cuda
