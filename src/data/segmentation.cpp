#include "data/segmentation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/text.h"
#include "data/nifti.h"

namespace espalier::data {

using ir::Array;
using ir::Dtype;
namespace fs = std::filesystem;

namespace {

constexpr int64_t guard = 3;

/// Regions of `aal` that make one output: numbers first..last.
struct RegionGroup {
  const char* name;
  std::vector<std::pair<int, int>> regions;
};

const std::vector<RegionGroup>& brain_groups() {
  static const std::vector<RegionGroup> groups{
      {"cerebrum", {{1, 90}}},
      {"cortex",
       {{1, 28}, {43, 70}, {79, 90}}},  // without insula, cingulum, hippocampus, amygdala and deep grey
      {"all_regions", {{1, 116}}},      // cerebrum and cerebellum
  };
  return groups;
}

NiftiImage load_volume(const fs::path& path) {
  NiftiImage image = load_nifti(path);
  if (image.voxels.rank() != 3 || image.components != 1)
    throw UserError({"NIfTI file " + path.string(), "is no single volume", image.voxels.type().text(),
                     "3 dims [nz,ny,nx], one value a voxel"});
  return image;
}

/// `image` and `mask` must lie on one grid.
void check_grid(const fs::path& image_path, const NiftiImage& image, const fs::path& mask_path,
                const NiftiImage& mask) {
  const std::string where = fmt::format("NIfTI file {}", mask_path.string());
  if (mask.voxels.dims() != image.voxels.dims())
    throw UserError({where, "grid differs from that of " + image_path.string(),
                     ir::dims_text(std::span<const int64_t>(mask.voxels.dims())),
                     ir::dims_text(std::span<const int64_t>(image.voxels.dims()))});
  const Affine3 a = image.geometry.affine(), b = mask.geometry.affine();
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 4; ++c)
      if (!(std::abs(a[r][c] - b[r][c]) <= 1e-2))
        throw UserError(
            {where,
             fmt::format("orientation or place differs from that of {} (affine, row {}, column {})",
                         image_path.string(), r, c),
             fmt::format("{}", b[r][c]), fmt::format("{}", a[r][c])});
}

/// The labels of a mask, as whole numbers >= 0.
std::vector<int32_t> read_labels(const fs::path& path, const NiftiImage& mask) {
  const Array values = mask.values();
  const float* in = values.data<float>();
  std::vector<int32_t> labels(static_cast<size_t>(values.size()));
  const int64_t width = values.dims()[2], plane = values.dims()[1] * width;
  for (int64_t i = 0; i < values.size(); ++i) {
    const float v = in[i];
    if (!(v >= 0 && v <= 16777216.0f) || v != std::floor(v))
      throw UserError({fmt::format("NIfTI file {}, voxel ({}, {}, {})", path.string(), i % width,
                                   i % plane / width, i / plane),
                       "is no label", fmt::format("{}", v), "whole numbers from 0 (background) to 16777216"});
    labels[static_cast<size_t>(i)] = static_cast<int32_t>(v);
  }
  return labels;
}

/// NAME of NAME.nii or NAME.nii.gz, or nothing.
std::string subject_of(const fs::path& path) {
  const std::string name = path.filename().string();
  for (const std::string_view end : {".nii.gz", ".nii"})
    if (name.size() > end.size() && name.ends_with(end)) return name.substr(0, name.size() - end.size());
  return "";
}

std::map<std::string, fs::path> subjects_in(const fs::path& folder) {
  if (!fs::is_directory(folder))
    throw UserError({"data folder " + folder.string(), "does not exist", "",
                     "images/ and masks/ with NAME.nii or NAME.nii.gz"});
  std::map<std::string, fs::path> out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = subject_of(entry.path());
    if (name.empty()) continue;
    if (const auto [place, is_new] = out.emplace(name, entry.path()); !is_new)
      throw UserError({"data folder " + folder.string(), "holds one name twice",
                       place->second.filename().string() + ", " + entry.path().filename().string(),
                       "one file a name"});
  }
  return out;
}

}  // namespace

SegmentationTask brain_task(const fs::path& folder) {
  const auto path = [&](const char* name) {
    fs::path p = folder / (std::string(name) + ".nii.gz");
    if (!fs::exists(p))
      throw UserError(
          {"brain data, file " + p.string(), "is missing (Debian: apt install mricron-data)", "", ""});
    return p;
  };
  const fs::path head_path = path("ch2"), brain_path = path("ch2bet"), regions_path = path("aal");
  const NiftiImage head = load_volume(head_path), brain = load_volume(brain_path),
                   regions = load_volume(regions_path);
  check_grid(head_path, head, brain_path, brain);
  check_grid(head_path, head, regions_path, regions);

  std::vector<std::string> outputs{"brain"};
  uint64_t set_of_region[256] = {};
  for (const RegionGroup& group : brain_groups()) {
    for (const auto& [first, last] : group.regions)
      for (int r = first; r <= last; ++r) set_of_region[r] |= uint64_t{1} << outputs.size();
    outputs.emplace_back(group.name);
  }
  const Array in_brain = brain.values();
  const std::vector<int32_t> region = read_labels(regions_path, regions);
  std::vector<uint64_t> sets(region.size());
  for (size_t i = 0; i < sets.size(); ++i)
    sets[i] = (region[i] < 256 ? set_of_region[region[i]] : 0) | (in_brain.data<float>()[i] > 0 ? 1 : 0);

  const auto volumes = std::make_shared<LabelledVolumes>(outputs);
  volumes->add("ch2", head.values(), sets);
  constexpr SliceRange slabs[] = {{34, 38}, {74, 78}, {104, 108}, {122, 126}};
  constexpr int64_t brain_guard = 2;  // a slice's input is itself and its two neighbours
  return {volumes, split_by_slabs(*volumes, 0, slabs, brain_guard)};
}

SegmentationTask folder_task(const fs::path& folder, uint64_t seed) {
  const std::string where = "data folder " + folder.string();
  const auto images = subjects_in(folder / "images"), masks = subjects_in(folder / "masks");
  if (images.empty()) throw UserError({where, "images/ holds no volume", "", "NAME.nii or NAME.nii.gz"});
  for (const auto& [name, path] : images)
    if (!masks.contains(name))
      throw UserError({where, "image has no mask", path.filename().string(),
                       fmt::format("masks/{}.nii or .nii.gz", name)});
  for (const auto& [name, path] : masks)
    if (!images.contains(name))
      throw UserError({where, "mask has no image", path.filename().string(),
                       fmt::format("images/{}.nii or .nii.gz", name)});

  std::set<int32_t> seen;
  for (const auto& [name, path] : masks) {
    const NiftiImage mask = load_volume(path);
    for (int32_t last = 0; const int32_t label : read_labels(path, mask))
      if (label != last) seen.insert(last = label);
    seen.erase(0);
    if (seen.size() > LabelledVolumes::most_outputs)
      throw UserError({"NIfTI file " + path.string(), "too many labels in all masks",
                       fmt::format("{} or more", seen.size()),
                       fmt::format("at most {}", LabelledVolumes::most_outputs)});
  }
  if (seen.empty()) throw UserError({where, "no mask holds a label", "all voxels 0", "whole numbers from 1"});
  std::vector<std::string> outputs;
  std::map<int32_t, uint64_t> set_of_label{{0, 0}};
  for (const int32_t label : seen) {
    set_of_label[label] = uint64_t{1} << outputs.size();
    outputs.push_back(fmt::format("label_{}", label));
  }

  const auto volumes = std::make_shared<LabelledVolumes>(outputs);
  for (const auto& [name, path] : images) {
    const NiftiImage image = load_volume(path), mask = load_volume(masks.at(name));
    check_grid(path, image, masks.at(name), mask);
    const std::vector<int32_t> labels = read_labels(masks.at(name), mask);
    std::vector<uint64_t> sets(labels.size());
    for (size_t i = 0; i < sets.size(); ++i)
      if (labels[i] != 0) sets[i] = set_of_label.at(labels[i]);
    volumes->add(name, image.values(), sets);
  }
  const std::vector<int64_t> labelled = volumes->labelled();
  if (labelled.size() > 1) return {volumes, split_by_volume(*volumes, seed)};
  SliceSplit split = split_by_even_slabs(*volumes, labelled.at(0), guard);
  if (images.size() > 1) split.text += "; no other volume has labels";
  return {volumes, std::move(split)};
}

}  // namespace espalier::data
