#pragma once
// The demo's data: slices of a real brain, or of the user's own volumes, ready to train on.
#include <filesystem>
#include <memory>

#include "data/volumes.h"

namespace espalier::data {

struct SegmentationTask {
  std::shared_ptr<const LabelledVolumes> volumes;
  SliceSplit split;
};

/// The files of Debian's mricron-data: one head ("Colin27", `ch2`, 181 x 217 x 181 voxels of 1 mm), its brain (`ch2bet` > 0)
/// and groups of the regions of `aal`, both sides together (an `aal` voxel need not lie in the brain). Slabs z 34-38, 74-78,
/// 104-108 and 122-126 are held out, with 2 slices beside each in neither part. UserError says what to install where files are missing.
ESPALIER_API SegmentationTask
brain_task(const std::filesystem::path& folder = "/usr/share/mricron/templates");

/// The user's volumes: folder/images/NAME.nii[.gz] with folder/masks/NAME.nii[.gz] of whole-numbered labels on the same grid.
/// 0 is background; every other label that occurs is an output "label_N" (at most 64). Two or more subjects with labels are
/// split by subject, one into even slabs with a guard of 3 slices. UserError names the file and what is wrong with it.
ESPALIER_API SegmentationTask folder_task(const std::filesystem::path& folder, uint64_t seed = 0);

}  // namespace espalier::data
