#pragma once
// Volumes with several outputs per voxel, and how their slices are split into those trained on and those held out.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ir/array.h"

namespace espalier::data {

/// Slice z of one volume.
struct SliceRef {
  int64_t volume = 0, z = 0;
  bool operator==(const SliceRef&) const = default;
};

/// Slices first..last, both included.
struct SliceRange {
  int64_t first = 0, last = 0;
  bool operator==(const SliceRange&) const = default;
};

struct SliceSplit {
  std::vector<SliceRef> train, held_out;
  std::string text;  ///< for people: what is held out
};

/// Volumes and, for every voxel, the set of outputs it belongs to. Filled by add(), then read from any thread.
class ESPALIER_API LabelledVolumes {
 public:
  static constexpr size_t most_outputs = 64;

  struct Volume {
    std::string name;
    ir::Array voxels;             ///< f32 [depth, height, width]
    std::vector<uint16_t> codes;  ///< by voxel: which entry of the table of output sets
    float background = 0;         ///< the smallest value; what lies outside counts as it
    double mean = 0, std = 1;     ///< of the voxels above the background (population)
    SliceRange labelled{0, -1};   ///< from the first to the last slice that has a label; empty when none has
    int64_t depth() const { return voxels.dims()[0]; }
    int64_t height() const { return voxels.dims()[1]; }
    int64_t width() const { return voxels.dims()[2]; }
  };

  /// UserError unless there are 1 to 64 outputs.
  explicit LabelledVolumes(std::vector<std::string> outputs);
  /// Add a volume: `values` f32 [depth, height, width]; bit o of outputs_of_voxel[i] says that voxel i belongs to output o.
  /// UserError for values that are not finite or all equal, another shape, or over 65536 different sets.
  void add(std::string name, ir::Array values, std::span<const uint64_t> outputs_of_voxel);

  const std::vector<std::string>& outputs() const { return outputs_; }
  const std::vector<Volume>& volumes() const { return volumes_; }
  /// The numbers of the volumes that have a label.
  std::vector<int64_t> labelled() const;
  /// The outputs that a code stands for, as bits.
  uint64_t outputs_of(uint16_t code) const { return sets_[code]; }
  /// Does voxel (z, y, x) of a volume belong to the output?
  bool holds(int64_t volume, int64_t output, int64_t z, int64_t y, int64_t x) const;

 private:
  std::vector<std::string> outputs_;
  std::vector<Volume> volumes_;
  std::vector<uint64_t> sets_;
};

/// Hold out the slabs of one volume. The `guard` slices on each side of a slab are in neither part; the rest of the labelled
/// range is trained on. UserError where a slab lies outside the labelled range or nothing is left.
ESPALIER_API SliceSplit split_by_slabs(const LabelledVolumes& volumes, int64_t volume,
                                       std::span<const SliceRange> slabs, int64_t guard);
/// Three slabs (one where there are few slices), evenly spread over the labelled range. UserError below 12 slices.
ESPALIER_API SliceSplit split_by_even_slabs(const LabelledVolumes& volumes, int64_t volume, int64_t guard);
/// Hold out whole volumes: one in five, at least one, drawn by the seed. UserError below two volumes with labels.
ESPALIER_API SliceSplit split_by_volume(const LabelledVolumes& volumes, uint64_t seed);

}  // namespace espalier::data
