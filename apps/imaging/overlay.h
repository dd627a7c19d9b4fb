#pragma once
// Pictures of slices with what is true and what was found.
#include <array>
#include <cstdint>

#include "data/slices.h"

namespace espalier::imaging {

using Colour = std::array<uint8_t, 3>;

/// The colour of output `k` in every picture; they repeat after eight.
Colour colour_of(size_t k);

/// Three pictures side by side, twice as large as the slice and with the volume's upward axis upward: slice `index`; its true outputs;
/// the found ones (logits above 0, [rows, columns, outputs] of the padded slice). Regions are tinted (of several outputs at a voxel the
/// last one counts) and outlined. u8 [2 rows, 3 * 2 columns + gaps, 3].
ir::Array draw_overlay(const data::SliceDataset& slices, int64_t index, const float* logits);

}  // namespace espalier::imaging
