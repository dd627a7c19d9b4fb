#pragma once
// Dice: how far found and true voxels overlap.
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/slices.h"

namespace espalier::imaging {

/// Voxels of one output, over any number of slices.
struct DiceCount {
  int64_t both = 0, found = 0, truth = 0;
  /// 2 |found and true| / (|found| + |true|) (Dice 1945); nothing when both are empty.
  std::optional<double> dice() const;
  bool operator==(const DiceCount&) const = default;
};

/// Add whole slice `index` to `counts` (one per output). `logits` are [rows, columns, outputs] of the padded slice: a voxel is found
/// where its logit is above 0, and the padding does not count.
void count_slice(const data::SliceDataset& slices, int64_t index, const float* logits,
                 std::span<DiceCount> counts);

std::vector<std::optional<double>> dice_of(std::span<const DiceCount> counts);

/// Four decimals, or that the held-out slices do not hold the output.
std::string dice_text(const std::optional<double>& dice);

/// The value below which a fraction `q` of the sorted values lie, between neighbours linearly; UserError for none.
double percentile(std::span<const double> sorted, double q);

}  // namespace espalier::imaging
