#pragma once
// Kernels from folders of images where they are there, else from a compiler.
#include <memory>
#include <mutex>
#include <set>

#include "target/cuda/driver/kernel_compiler.h"
#include "target/cuda/driver/kernel_images.h"

namespace espalier::target::cuda::driver {

/// Where images are looked for: ESPALIER_KERNEL_IMAGES (folders, with colons between), then kernel_images/ beside the file that holds
/// this code (the plugin), where that is there.
std::vector<std::filesystem::path> image_folders();

/// What a device of this compute capability runs of `archs` ("sm_90", "compute_80"): code for it or for earlier ones of its major version,
/// the newest first, then PTX, the newest first.
std::vector<std::string> runnable_archs(const std::set<std::string>& archs, int capability);

/// Does a driver for that CUDA (as cuDriverGetVersion() counts; 0: unknown) take what `compiler` ("nvrtc 13.0") makes for `arch`? Code
/// is taken from its major version and earlier ones, PTX from its version and earlier ones; whatever else a compiler's name is, yes.
bool driver_takes(int driver_version, std::string_view compiler, std::string_view arch);

class ImageCompiler final : public KernelCompiler {
 public:
  struct Parts {
    std::string_view device = gpu_images;
    KernelTexts texts;
    std::vector<std::filesystem::path> folders;
    std::shared_ptr<KernelCompiler> otherwise;  ///< for kernels that no folder has
    int driver_version = 0;                     ///< as cuDriverGetVersion() counts; 0: unknown
    std::function<void(const std::string&)> say =
        {};  ///< a folder or an image is not used; empty: to the standard error
  };
  explicit ImageCompiler(Parts parts);
  /// A damaged image is said so once, and the kernel compiled, as where an image is of a compiler too new for the driver. DeviceError where
  /// that cannot be: the kernel, where it was looked for, and what to do.
  std::vector<KernelImage> compile(std::span<const KernelSource> sources, int capability) override;

 private:
  struct Place {
    const ImageFolder* folder = nullptr;
    const ImageEntry* image = nullptr;
  };
  std::vector<Place> places_of(const KernelSource& source, const std::vector<std::string>& archs) const;
  bool takes(const ImageEntry& image) const {
    return driver_takes(parts_.driver_version, image.compiler, image.arch);
  }
  void say_once(const std::string& problem);
  [[noreturn]] void fail(std::span<const KernelSource> missing, int capability, const NoCompiler& why) const;

  const Parts parts_;
  std::vector<ImageFolder> folders_;
  std::set<std::string> archs_;
  std::mutex saying_;
  std::set<std::string> said_;
};

}  // namespace espalier::target::cuda::driver
