#pragma once
// Kernels for the simulated driver: this build's compiler makes the image's code, and the image says where it is.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "target/cuda/driver/kernel_compiler.h"
#include "target/cuda/driver/kernel_images.h"

namespace espalier::target::cuda::sim {

/// What an image says: a line with the file, then one for each kernel.
struct SimImage {
  struct Kernel {
    std::string name;
    int max_threads = 0;
    bool synchronises = false;
    std::vector<KernelParameter> parameters{};
  };
  std::filesystem::path file;
  std::vector<Kernel> kernels;
};
std::string write_image(const SimImage& image);
/// Nothing where the text is no image.
std::optional<SimImage> read_image(const std::string& text);

class SimCompiler final : public driver::KernelCompiler {
 public:
  std::vector<driver::KernelImage> compile(std::span<const KernelSource> sources, int capability) override;
};

/// No compiler at all, as on a machine with a driver alone.
class NoSimCompiler final : public driver::KernelCompiler {
 public:
  std::vector<driver::KernelImage> compile(std::span<const KernelSource> sources, int capability) override;
};

/// For folders of images: one with all kernels, which says where this build has their code.
std::vector<driver::MadeImage> sim_images(std::span<const KernelSource> sources, int arch, bool ptx);

}  // namespace espalier::target::cuda::sim
