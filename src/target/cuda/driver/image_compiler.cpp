#include "target/cuda/driver/image_compiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "base/dynamic_library.h"
#include "base/text.h"
#include "target/cuda/driver/tables/cu.h"

namespace espalier::target::cuda::driver {

std::vector<std::filesystem::path> image_folders() {
  std::vector<std::filesystem::path> out;
  for (const std::string& folder : path_list(std::getenv("ESPALIER_KERNEL_IMAGES")))
    out.push_back(std::filesystem::absolute(folder).lexically_normal());
  static const char here = 0;
  const std::filesystem::path beside = file_of_address(&here).parent_path() / "kernel_images";
  std::error_code unknown;
  if (std::filesystem::is_directory(beside, unknown)) out.push_back(beside);
  return out;
}

std::vector<std::string> runnable_archs(const std::set<std::string>& archs, int capability) {
  std::vector<std::pair<int, std::string>> code, ptx;
  for (const std::string& arch : archs) {
    const size_t bar = arch.find('_') + 1;
    const auto number = number_of<int>(std::string_view(arch).substr(bar));
    if (!number || *number > capability) continue;
    if (arch.starts_with("compute")) ptx.emplace_back(*number, arch);
    else if (*number / 10 == capability / 10) code.emplace_back(*number, arch);
  }
  std::vector<std::string> out;
  for (auto* list : {&code, &ptx}) {
    std::sort(list->rbegin(), list->rend());
    for (auto& [number, arch] : *list) out.push_back(std::move(arch));
  }
  return out;
}

bool driver_takes(int driver_version, std::string_view compiler, std::string_view arch) {
  constexpr std::string_view nvrtc = "nvrtc ";
  if (driver_version == 0 || !compiler.starts_with(nvrtc)) return true;
  compiler.remove_prefix(nvrtc.size());
  const size_t dot = std::min(compiler.find('.'), compiler.size());
  const auto major = number_of<int>(compiler.substr(0, dot));
  const std::string_view rest = compiler.substr(std::min(dot + 1, compiler.size()));
  const auto minor = number_of<int>(rest.substr(0, rest.find('.')));
  if (!major || !minor) return true;
  const int driver_major = driver_version / 1000, driver_minor = driver_version % 1000 / 10;
  if (*major != driver_major) return *major < driver_major;
  return *minor <= driver_minor || !arch.starts_with("compute");
}

ImageCompiler::ImageCompiler(Parts parts) : parts_(std::move(parts)) {
  for (const std::filesystem::path& path : parts_.folders) {
    folders_.emplace_back(path);
    if (!folders_.back().problem().empty())
      say_once("kernel images are not used: " + folders_.back().problem());
    for (const ImageEntry& image : folders_.back().images()) archs_.insert(image.arch);
  }
}

void ImageCompiler::say_once(const std::string& problem) {
  const std::lock_guard lock(saying_);
  if (!said_.insert(problem).second) return;
  if (parts_.say) parts_.say(problem);
  else fmt::print(stderr, "espalier: {}\n", problem);
}

std::vector<ImageCompiler::Place> ImageCompiler::places_of(const KernelSource& source,
                                                           const std::vector<std::string>& archs) const {
  std::vector<Place> out;
  for (const std::string& arch : archs) {
    const std::string key = image_key(parts_.device, parts_.texts, source, arch);
    for (const ImageFolder& folder : folders_)
      if (const ImageEntry* image = folder.find(key); image && image->arch == arch && takes(*image))
        out.push_back({&folder, image});
  }
  return out;
}

std::vector<KernelImage> ImageCompiler::compile(std::span<const KernelSource> sources, int capability) {
  const std::vector<std::string> archs = runnable_archs(archs_, capability);
  std::vector<KernelImage> out;
  std::map<const ImageEntry*, size_t> read;  // an image may hold several kernels
  std::vector<KernelSource> missing;
  for (const KernelSource& source : sources) {
    bool found = false;
    for (const Place& place : places_of(source, archs)) {
      try {
        if (!read.contains(place.image)) {
          out.push_back(
              {.bytes = place.folder->read(*place.image), .kernels = {}, .found = false, .prebuilt = true});
          read[place.image] = out.size() - 1;
        }
      } catch (const UserError& e) {
        say_once(fmt::format("a kernel image is not used: {}", e.what()));
        continue;
      }
      out[read[place.image]].kernels.push_back(source.name);
      found = true;
      break;
    }
    if (!found) missing.push_back(source);
  }
  if (missing.empty()) return out;
  try {
    for (KernelImage& image : parts_.otherwise->compile(missing, capability)) out.push_back(std::move(image));
  } catch (const NoCompiler& e) {
    fail(missing, capability, e);
  }
  return out;
}

void ImageCompiler::fail(std::span<const KernelSource> missing, int capability, const NoCompiler& why) const {
  std::vector<std::string> looked;
  for (const ImageFolder& folder : folders_) {
    int64_t fit = 0;
    std::string too_new;  // the compiler of one
    for (const ImageEntry& image : folder.images()) {
      if (runnable_archs({image.arch}, capability).empty()) continue;
      if (takes(image)) ++fit;
      else too_new = image.compiler;
    }
    looked.push_back(folder.problem().empty()
                         ? fmt::format("{} ({} images, {} for this device{})", folder.path().string(),
                                       folder.images().size(), fit,
                                       too_new.empty()
                                           ? ""
                                           : fmt::format("; others are of {}, too new for the driver "
                                                         "for CUDA {}",
                                                         too_new, cuda_version(parts_.driver_version)))
                         : folder.problem());
  }
  const ErrorFields& e = why.fields();
  throw NoCompiler(
      {fmt::format("kernel {}{} for sm_{}", missing[0].name,
                   missing.size() > 1 ? fmt::format(" and {} more", missing.size() - 1) : "", capability),
       looked.empty() ? e.problem : "is in no folder of kernel images, and " + e.problem,
       (looked.empty() ? "" : "looked in " + join(looked, ", ") + "; ") + e.got,
       fmt::format(
           "images made by `espalier compile` for this program with --arch {}, in ESPALIER_KERNEL_IMAGES; "
           "or {}",
           capability, e.allowed)});
}

}  // namespace espalier::target::cuda::driver
