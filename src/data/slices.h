#pragma once
// Slices of labelled volumes as training samples ("2.5-D": neighbouring slices are channels).
#include <memory>
#include <optional>
#include <vector>

#include "data/dataset.h"
#include "data/transforms.h"
#include "data/volumes.h"

namespace espalier::data {

/// How a training sample is changed: one warp for channels and masks, then value * (1 + c) + b with c and b uniform in
/// -intensity..intensity, after normalising.
struct SliceAugmentation {
  std::optional<Size2>
      middle{};  ///< views are this part in the middle of every slice; empty: whole slices, see augmented()
  WarpRange warp{.mirror = 0.5, .degrees = 8, .scale_low = 0.92, .scale_high = 1.08, .shift = 6};
  double intensity = 0.2;
};

/// Samples "image" f32 [height, width, 2*neighbours + 1] and "target" f32 [height, width, outputs] of 0 and 1. Channels are
/// the slices z - neighbours .. z + neighbours, normalised by their volume: (value - mean) / std over the voxels above its
/// background. What lies outside a volume is background, and belongs to no output.
class ESPALIER_API SliceDataset : public Dataset {
 public:
  /// Whole slices, in the middle of the smallest size that holds every one of them and is a multiple of 32 (half of what is
  /// missing, rounded down, comes first).
  static SliceDataset whole(std::shared_ptr<const LabelledVolumes> volumes, std::vector<SliceRef> slices,
                            int64_t neighbours = 1);
  /// Random views of the slices, images bilinear and masks nearest in one resampling. Without a `middle` in the augmentation
  /// a view is the smallest multiple of 32 that holds every slice, at most 320 each way; where a slice is longer than
  /// that, the view lies anywhere in it. UserError for a middle below 1.
  static SliceDataset augmented(std::shared_ptr<const LabelledVolumes> volumes, std::vector<SliceRef> slices,
                                SliceAugmentation augmentation = {}, int64_t neighbours = 1);

  int64_t size() const override { return static_cast<int64_t>(slices_.size()); }
  const std::vector<Field>& fields() const override { return fields_; }
  void fill(int64_t index, Rng& rng, std::span<ir::Array> out) const override;

  Size2 sample_size() const { return size_; }
  const std::vector<SliceRef>& slices() const { return slices_; }
  const LabelledVolumes& volumes() const { return *volumes_; }
  /// Where the slice of a whole sample lies in it.
  struct Window {
    int64_t top, left, height, width;
    bool operator==(const Window&) const = default;
  };
  Window window(int64_t index) const;

 private:
  SliceDataset(std::shared_ptr<const LabelledVolumes> volumes, std::vector<SliceRef> slices,
               int64_t neighbours);
  Size2 whole_size() const;
  void set_size(Size2 size);
  void fill_whole(const SliceRef& ref, std::span<ir::Array> out) const;
  void fill_augmented(const SliceRef& ref, Rng& rng, std::span<ir::Array> out) const;
  std::shared_ptr<const LabelledVolumes> volumes_;
  std::vector<SliceRef> slices_;
  int64_t neighbours_;
  bool augment_ = false;
  SliceAugmentation augmentation_{};
  Size2 size_{0, 0};
  std::vector<Field> fields_;
};

}  // namespace espalier::data
