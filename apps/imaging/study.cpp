#include "apps/imaging/study.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace espalier::imaging {

namespace {

/// The recipe's: mild, because the held-out slices are of the same head.
constexpr data::SliceAugmentation brain_augmentation{
    .middle = data::Size2{192, 160},  // of 217 x 181
    .warp = {.mirror = 0.5, .degrees = 4, .scale_low = 0.96, .scale_high = 1.04, .shift = 3},
    .intensity = 0.1};

}  // namespace

std::shared_ptr<const data::SliceDataset> Study::training() const {
  return std::make_shared<data::SliceDataset>(
      data::SliceDataset::augmented(task.volumes, task.split.train, augmentation));
}

std::shared_ptr<const data::SliceDataset> Study::held_out() const {
  return std::make_shared<data::SliceDataset>(data::SliceDataset::whole(task.volumes, task.split.held_out));
}

std::string Study::key() const {
  uint64_t hash = hash_of_nothing;
  const auto add = [&](uint64_t word) { hash = hash_step(hash, word); };
  for (const data::LabelledVolumes::Volume& v : volumes().volumes()) {
    add(v.voxels.hash());
    for (const uint16_t code : v.codes) add(volumes().outputs_of(code));
  }
  return fmt::format("{}; outputs {}; {}; {}{:016x}", title, join(outputs(), ","), task.split.text,
                     augmentation.middle ? "" : "whole views; ", hash);
}

std::filesystem::path plain_path(const std::filesystem::path& folder) {
  std::filesystem::path path = std::filesystem::absolute(folder);
  if (std::find(path.begin(), path.end(), "..") != path.end()) {  // behind a link: of where it leads
    std::error_code error;
    path = std::filesystem::weakly_canonical(path, error);
    if (error) throw UserError({"folder " + folder.string(), "cannot be found", error.message(), "a folder"});
  }
  path = path.lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

Study load_study(const std::optional<std::filesystem::path>& folder) {
  if (!folder)
    return {data::brain_task(), brain_augmentation, "one brain (Colin27)",
            "This is ONE brain, trained on and scored on different slices of the same head. It says nothing "
            "about other people, other "
            "scanners or patients, and it is not a medical device.",
            0.95};
  const std::filesystem::path path = plain_path(*folder);
  data::SegmentationTask task = data::folder_task(path);
  const size_t n = task.volumes->labelled().size();
  if (n == 1)
    return {std::move(task),
            {},
            "one volume (" + path.filename().string() + ")",
            "This is ONE volume, trained on and scored on different slices of the same subject. It says "
            "nothing about other subjects, "
            "and it is not a medical device."};
  return {
      std::move(task),
      {},
      fmt::format("{} volumes of {}", n, path.string()),
      fmt::format(
          "These figures come from {} volumes with labels, scored on those held out. They say little about "
          "other people or other "
          "scanners, and this is not a medical device.",
          n)};
}

}  // namespace espalier::imaging
