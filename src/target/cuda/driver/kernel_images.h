#pragma once
// Folders of kernel images: code that was compiled before, for machines that have a driver and no compiler. `images.json` names every image with
// its architecture, what made it, its size and checksum, and the kernels in it under keys of all that decides their code. A folder is
// never half written: an image appears whole, and the list after the images.
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "target/cuda/images.h"
#include "target/cuda/kernel_texts.h"

namespace espalier::target::cuda::driver {

/// What images are for: a GPU's driver, or the simulator's.
inline constexpr std::string_view gpu_images = "gpu", simulator_images = "simulator";

/// Of a kernel for "sm_90" (code) or "compute_90" (PTX): 32 digits that differ where the device, the header, the options, the architecture or
/// the text does.
std::string image_key(std::string_view device, const KernelTexts& texts, const KernelSource& source,
                      std::string_view arch);

/// One image, as the list has it.
struct ImageEntry {
  std::string file;  ///< its name in the folder
  std::string arch;  ///< "sm_90", "compute_90"
  std::string compiler, espalier;
  int64_t bytes = 0;
  std::string checksum;
  std::map<std::string, std::string> kernels;  ///< the key of each
  bool operator==(const ImageEntry&) const = default;
};

/// The list as JSON, an image a line.
std::string image_list_text(std::span<const ImageEntry> images);
/// UserError with the entry where it is no such list; `source` says in it where the text is from.
std::vector<ImageEntry> parse_image_list(std::string_view text, const std::string& source);

/// A folder that is read. Immutable, so safe from any thread.
class ImageFolder {
 public:
  explicit ImageFolder(std::filesystem::path path);
  const std::filesystem::path& path() const { return path_; }
  /// Why its images are not used; "" where they are.
  const std::string& problem() const { return problem_; }
  const std::vector<ImageEntry>& images() const { return images_; }
  /// The image with the kernel of that key; null where there is none.
  const ImageEntry* find(std::string_view key) const;
  /// UserError where the file is not what the list says.
  std::string read(const ImageEntry& image) const;

 private:
  std::filesystem::path path_;
  std::string problem_;
  std::vector<ImageEntry> images_;
  std::map<std::string, size_t, std::less<>> by_key_;
};

/// An image that was just made.
struct MadeImage {
  std::string bytes, arch;
  std::string kind;  ///< the file's ending: "cubin", "ptx"
  std::string compiler;
  std::vector<std::string> kernels;
};
/// Makes images of kernels for an architecture, and with `ptx` what later ones take.
using MakeImages = std::function<std::vector<MadeImage>(std::span<const KernelSource>, int arch, bool ptx)>;

/// How images are made, and what they are for.
struct ImageMaker {
  std::string_view device = gpu_images;
  KernelTexts texts;
  MakeImages make;
};

/// Make what is asked for and the folder lacks, with PTX of the newest architecture, and put it there. UserError: the folder holds another
/// list; from `maker`. WriteError. One writer at a time.
ImagesMade write_images(const ImageRequest& request, const ImageMaker& maker);

}  // namespace espalier::target::cuda::driver
