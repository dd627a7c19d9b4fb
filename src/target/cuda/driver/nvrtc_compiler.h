#pragma once
// Kernels compiled by NVRTC, each by itself, several at once, and kept on disk.
#include "base/object_cache.h"
#include "target/cuda/driver/kernel_compiler.h"
#include "target/cuda/driver/kernel_images.h"
#include "target/cuda/driver/libraries.h"
#include "target/cuda/kernel_texts.h"

namespace espalier::target::cuda::driver {

struct NvrtcOutput {
  bool compiled = false;
  std::string log;
  std::string cubin;  ///< empty for a virtual architecture
  std::string ptx;
};

/// Compile one text. `options` as "-arch=sm_90".
NvrtcOutput run_nvrtc(const NvrtcApi& nvrtc, const std::string& text, std::span<const std::string> options);

/// What NVRTC is to make for a device: "sm_86" where it knows an architecture that the device can run; "compute_120", which the driver
/// compiles on, for a later one than it knows. "" where the device is older than all it knows.
std::string nvrtc_arch(std::span<const int> known, int capability);

class NvrtcCompiler final : public KernelCompiler {
 public:
  /// NVRTC is loaded when there is something to compile. `cache` lives longer.
  NvrtcCompiler(Libraries& libraries, KernelTexts texts, ObjectCache& cache);
  std::vector<KernelImage> compile(std::span<const KernelSource> sources, int capability) override;

 private:
  KernelImage image_of(const NvrtcApi& nvrtc, const std::string& version, const std::string& arch,
                       const KernelSource& source) const;

  Libraries& libraries_;
  const KernelTexts texts_;
  const std::string header_hash_;
  ObjectCache& cache_;
};

/// Images of `sources` for sm_`arch`, for a folder of them; `ptx`: beside each its PTX, for later architectures. UserError: there is no NVRTC,
/// or it does not know the architecture; a kernel that it does not compile.
std::vector<MadeImage> nvrtc_images(Libraries& libraries, const KernelTexts& texts,
                                    std::span<const KernelSource> sources, int arch, bool ptx);

}  // namespace espalier::target::cuda::driver
