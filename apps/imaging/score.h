#pragma once
// Dice: how far found and true voxels overlap.
#include <span>
#include <vector>

#include "data/slices.h"

namespace espalier::imaging {

/// Voxels of one output, over any number of slices.
struct DiceCount {
  int64_t both = 0, found = 0, truth = 0;
  /// 2 |found and true| / (|found| + |true|) (Dice 1945); 1 when both are empty.
  double dice() const;
  bool operator==(const DiceCount&) const = default;
};

/// Add whole slice `index` to `counts` (one per output). `logits` are [rows, columns, outputs] of the padded slice: a voxel is found
/// where its logit is above 0, and the padding does not count.
void count_slice(const data::SliceDataset& slices, int64_t index, const float* logits,
                 std::span<DiceCount> counts);

std::vector<double> dice_of(std::span<const DiceCount> counts);

/// The value below which a fraction `q` of the sorted values lie, between neighbours linearly; UserError for none.
double percentile(std::span<const double> sorted, double q);

}  // namespace espalier::imaging
