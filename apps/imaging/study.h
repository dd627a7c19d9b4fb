#pragma once
// A study: volumes with outputs, which of their slices are trained on and which are held out, and what may be said of its figures.
#include <filesystem>
#include <optional>
#include <string>

#include "data/segmentation.h"
#include "data/slices.h"

namespace espalier::imaging {

struct Study {
  data::SegmentationTask task;
  data::SliceAugmentation augmentation;  ///< how views of the training slices are drawn
  std::string title;                     ///< "one brain (Colin27)"
  std::string caution;                   ///< what the figures do not say
  double expected_dice = 0;  ///< what the whole recipe reaches at least for the first output; 0: not known

  const data::LabelledVolumes& volumes() const { return *task.volumes; }
  const std::vector<std::string>& outputs() const { return task.volumes->outputs(); }
  /// Training samples, drawn from views of the slices.
  std::shared_ptr<const data::SliceDataset> training() const;
  /// The held-out slices, whole.
  std::shared_ptr<const data::SliceDataset> held_out() const;
  /// Text that differs when voxels, outputs or the split differ.
  std::string key() const;
};

/// `folder` by its name: absolute, without "." and "..", without a slash at its end. UserError where ".." leads nowhere.
std::filesystem::path plain_path(const std::filesystem::path& folder);

/// The volumes of `folder` (data/segmentation.h), or the brain of Debian's mricron-data. UserError names what is missing or does
/// not fit.
Study load_study(const std::optional<std::filesystem::path>& folder);

}  // namespace espalier::imaging
