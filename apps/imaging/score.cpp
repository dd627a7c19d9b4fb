#include "apps/imaging/score.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace espalier::imaging {

std::optional<double> DiceCount::dice() const {
  if (found + truth == 0) return std::nullopt;
  return 2.0 * static_cast<double>(both) / static_cast<double>(found + truth);
}

std::string dice_text(const std::optional<double>& dice) {
  return dice ? fmt::format("{:.4f}", *dice) : "n/a (not in the held-out slices)";
}

void count_slice(const data::SliceDataset& slices, int64_t index, const float* logits,
                 std::span<DiceCount> counts) {
  const data::SliceRef ref = slices.slices()[static_cast<size_t>(index)];
  const data::SliceDataset::Window w = slices.window(index);
  const int64_t width = slices.sample_size().width;
  const data::LabelledVolumes& volumes = slices.volumes();
  const auto& codes = volumes.volumes()[static_cast<size_t>(ref.volume)].codes;
  const uint16_t* code = codes.data() + ref.z * w.height * w.width;
  for (int64_t y = 0; y < w.height; ++y)
    for (int64_t x = 0; x < w.width; ++x) {
      const uint64_t truths = volumes.outputs_of(*code++);
      const float* at = logits + ((y + w.top) * width + x + w.left) * static_cast<int64_t>(counts.size());
      for (size_t k = 0; k < counts.size(); ++k) {
        const bool found = at[k] > 0, truth = (truths >> k & 1) != 0;
        counts[k].found += found;
        counts[k].truth += truth;
        counts[k].both += found && truth;
      }
    }
}

std::vector<std::optional<double>> dice_of(std::span<const DiceCount> counts) {
  std::vector<std::optional<double>> out;
  for (const DiceCount& c : counts) out.push_back(c.dice());
  return out;
}

double percentile(std::span<const double> sorted, double q) {
  if (sorted.empty()) throw UserError({"percentile", "of no values", "", "one or more"});
  const double at = std::clamp(q, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (at - std::floor(at));
}

}  // namespace espalier::imaging
