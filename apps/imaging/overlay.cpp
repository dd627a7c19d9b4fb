#include "apps/imaging/overlay.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

namespace espalier::imaging {

using ir::Array;

namespace {

constexpr int64_t zoom = 2, gap = 8;

/// One slice, padding cut off: grey values and the set of outputs of every voxel.
struct Layer {
  int64_t height, width;
  std::vector<float> grey;  ///< 0..255
  std::vector<uint64_t> sets;

  uint64_t at(int64_t y, int64_t x) const {
    return y < 0 || x < 0 || y >= height || x >= width ? 0 : sets[static_cast<size_t>(y * width + x)];
  }
  /// The outputs whose border runs through a voxel: it belongs to them and a neighbour does not.
  uint64_t border(int64_t y, int64_t x) const {
    return at(y, x) & ~(at(y - 1, x) & at(y + 1, x) & at(y, x - 1) & at(y, x + 1));
  }
};

std::vector<float> grey_of(const data::LabelledVolumes::Volume& v, int64_t z) {
  const int64_t plane = v.height() * v.width();
  const float* from = v.voxels.data<float>() + z * plane;
  const float white = static_cast<float>(v.mean + 2.2 * v.std), scale = 255.0f / (white - v.background);
  std::vector<float> out(static_cast<size_t>(plane));
  std::transform(from, from + plane, out.begin(),
                 [&](float x) { return std::clamp((x - v.background) * scale, 0.0f, 255.0f); });
  return out;
}

void paint(const Layer& layer, uint8_t* picture, int64_t row_bytes, int64_t left) {
  for (int64_t row = 0; row < layer.height * zoom; ++row)
    for (int64_t column = 0; column < layer.width * zoom; ++column) {
      const int64_t y = layer.height - 1 - row / zoom, x = column / zoom;
      const float grey = layer.grey[static_cast<size_t>(y * layer.width + x)];
      const uint64_t set = layer.at(y, x), border = layer.border(y, x), shown = border ? border : set;
      const float strength = border ? 0.9f : set ? 0.3f : 0.0f;
      const Colour colour = shown ? colour_of(static_cast<size_t>(std::bit_width(shown)) - 1) : Colour{};
      uint8_t* pixel = picture + row * row_bytes + (left + column) * 3;
      for (size_t c = 0; c < 3; ++c)
        pixel[c] = static_cast<uint8_t>(
            std::lround(grey * (1 - strength) + static_cast<float>(colour[c]) * strength));
    }
}

}  // namespace

Colour colour_of(size_t k) {
  constexpr Colour colours[] = {{64, 196, 255},  {255, 112, 67}, {255, 213, 79}, {129, 199, 132},
                                {206, 147, 216}, {240, 98, 146}, {77, 208, 225}, {174, 213, 129}};
  return colours[k % std::size(colours)];
}

Array draw_overlay(const data::SliceDataset& slices, int64_t index, const float* logits) {
  const data::SliceRef ref = slices.slices()[static_cast<size_t>(index)];
  const data::LabelledVolumes& volumes = slices.volumes();
  const data::LabelledVolumes::Volume& v = volumes.volumes()[static_cast<size_t>(ref.volume)];
  const data::SliceDataset::Window w = slices.window(index);
  const auto outputs = static_cast<int64_t>(volumes.outputs().size());
  const auto plane = static_cast<size_t>(w.height * w.width);
  Layer plain{w.height, w.width, grey_of(v, ref.z), std::vector<uint64_t>(plane, 0)};
  Layer truth = plain, found = plain;
  for (int64_t y = 0; y < w.height; ++y)
    for (int64_t x = 0; x < w.width; ++x) {
      const auto i = static_cast<size_t>(y * w.width + x);
      truth.sets[i] = volumes.outputs_of(v.codes[static_cast<size_t>(ref.z) * plane + i]);
      const float* at = logits + ((y + w.top) * slices.sample_size().width + x + w.left) * outputs;
      for (int64_t k = 0; k < outputs; ++k)
        if (at[k] > 0) found.sets[i] |= uint64_t{1} << k;
    }
  const int64_t panel = w.width * zoom, width = 3 * panel + 2 * gap;
  Array picture(ir::Dtype::u8, {w.height * zoom, width, 3});
  auto* pixels = picture.write<uint8_t>();
  std::fill_n(pixels, picture.size(), uint8_t{20});
  int64_t left = 0;
  for (const Layer* layer : {&plain, &truth, &found}) {
    paint(*layer, pixels, width * 3, left);
    left += panel + gap;
  }
  return picture;
}

}  // namespace espalier::imaging
