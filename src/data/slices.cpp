#include "data/slices.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/align.h"
#include "data/plane.h"

namespace espalier::data {

using ir::Array;
using ir::Dtype;
using Volume = LabelledVolumes::Volume;

namespace {

constexpr int64_t multiple = 32;
constexpr int64_t largest_view = 320;  // beyond it a training step takes too long
constexpr int64_t most_channels = 15;

/// The planes that are a sample's channels; no data where a slice lies beyond the volume.
struct Channels {
  Plane<float> planes[most_channels];
  int64_t count;
};

Channels channels_of(const Volume& v, int64_t z, int64_t neighbours) {
  Channels c{};
  c.count = 2 * neighbours + 1;
  for (int64_t i = 0; i < c.count; ++i) {
    const int64_t at = z - neighbours + i;
    const bool inside = at >= 0 && at < v.depth();
    c.planes[i] = {inside ? v.voxels.data<float>() + at * v.height() * v.width() : nullptr, v.height(),
                   v.width(), v.width(), 1};
  }
  return c;
}

Plane<uint16_t> codes_of(const Volume& v, int64_t z) {
  return {v.codes.data() + z * v.height() * v.width(), v.height(), v.width(), v.width(), 1};
}

float* put_outputs(float* to, uint64_t set, int64_t outputs) {
  if (set == 0) return std::fill_n(to, outputs, 0.0f);  // most voxels
  for (int64_t o = 0; o < outputs; ++o) *to++ = static_cast<float>(set >> o & 1);
  return to;
}

}  // namespace

SliceDataset::SliceDataset(std::shared_ptr<const LabelledVolumes> volumes, std::vector<SliceRef> slices,
                           int64_t neighbours)
    : volumes_(std::move(volumes)), slices_(std::move(slices)), neighbours_(neighbours) {
  if (neighbours < 0 || 2 * neighbours + 1 > most_channels)
    throw UserError({"SliceDataset, neighbours", "is out of range", std::to_string(neighbours),
                     fmt::format("0 to {}", most_channels / 2)});
  if (slices_.empty()) throw UserError({"SliceDataset", "holds no slice", "", "one or more"});
  const auto count = static_cast<int64_t>(volumes_->volumes().size());
  for (const SliceRef& s : slices_)
    if (s.volume < 0 || s.volume >= count || s.z < 0 ||
        s.z >= volumes_->volumes()[static_cast<size_t>(s.volume)].depth())
      throw UserError(
          {"SliceDataset", "slice does not exist", fmt::format("slice {} of volume {}", s.z, s.volume), ""});
}

void SliceDataset::set_size(Size2 size) {
  size_ = size;
  const auto outputs = static_cast<int64_t>(volumes_->outputs().size());
  fields_ = {{"image", {Dtype::f32, {size.height, size.width, 2 * neighbours_ + 1}}},
             {"target", {Dtype::f32, {size.height, size.width, outputs}}}};
}

/// The smallest multiple of 32 that holds every slice.
Size2 SliceDataset::whole_size() const {
  Size2 size{0, 0};
  for (const SliceRef& s : slices_) {
    const Volume& v = volumes_->volumes()[static_cast<size_t>(s.volume)];
    size = {std::max(size.height, round_up(v.height(), multiple)),
            std::max(size.width, round_up(v.width(), multiple))};
  }
  return size;
}

SliceDataset SliceDataset::whole(std::shared_ptr<const LabelledVolumes> volumes, std::vector<SliceRef> slices,
                                 int64_t neighbours) {
  SliceDataset d(std::move(volumes), std::move(slices), neighbours);
  d.set_size(d.whole_size());
  return d;
}

SliceDataset SliceDataset::augmented(std::shared_ptr<const LabelledVolumes> volumes,
                                     std::vector<SliceRef> slices, SliceAugmentation augmentation,
                                     int64_t neighbours) {
  SliceDataset d(std::move(volumes), std::move(slices), neighbours);
  const Size2 whole = d.whole_size();
  const Size2 size = augmentation.middle.value_or(
      Size2{std::min(whole.height, largest_view), std::min(whole.width, largest_view)});
  if (size.height < 1 || size.width < 1)
    throw UserError({"SliceDataset, middle", "is empty", fmt::format("{} x {}", size.height, size.width),
                     "1 x 1 or more"});
  d.augment_ = true;
  d.augmentation_ = augmentation;
  d.set_size(size);
  return d;
}

SliceDataset::Window SliceDataset::window(int64_t index) const {
  ESPALIER_CHECK(!augment_, "only whole slices have a window");
  const Volume& v = volumes_->volumes()[static_cast<size_t>(slices_.at(static_cast<size_t>(index)).volume)];
  return {(size_.height - v.height()) / 2, (size_.width - v.width()) / 2, v.height(), v.width()};
}

void SliceDataset::fill(int64_t index, Rng& rng, std::span<Array> out) const {
  const SliceRef& ref = slices_[static_cast<size_t>(index)];
  if (augment_) fill_augmented(ref, rng, out);
  else fill_whole(ref, out);
}

void SliceDataset::fill_whole(const SliceRef& ref, std::span<Array> out) const {
  const Volume& v = volumes_->volumes()[static_cast<size_t>(ref.volume)];
  const Channels channels = channels_of(v, ref.z, neighbours_);
  const Plane<uint16_t> codes = codes_of(v, ref.z);
  const auto outputs = static_cast<int64_t>(volumes_->outputs().size());
  const auto mean = static_cast<float>(v.mean), scale = static_cast<float>(1 / v.std);
  const int64_t top = (size_.height - v.height()) / 2, left = (size_.width - v.width()) / 2;
  float* image = out[0].write<float>();
  float* target = out[1].write<float>();
  for (int64_t row = 0; row < size_.height; ++row)
    for (int64_t column = 0; column < size_.width; ++column) {
      const int64_t y = row - top, x = column - left;
      const bool inside = codes.holds(y, x);
      for (int64_t c = 0; c < channels.count; ++c) {
        const float value = inside && channels.planes[c].data ? channels.planes[c].at(y, x) : v.background;
        *image++ = (value - mean) * scale;
      }
      target = put_outputs(target, inside ? volumes_->outputs_of(codes.at(y, x)) : 0, outputs);
    }
}

void SliceDataset::fill_augmented(const SliceRef& ref, Rng& rng, std::span<Array> out) const {
  const Volume& v = volumes_->volumes()[static_cast<size_t>(ref.volume)];
  const Channels channels = channels_of(v, ref.z, neighbours_);
  const Plane<uint16_t> codes = codes_of(v, ref.z);
  const auto outputs = static_cast<int64_t>(volumes_->outputs().size());
  Affine2 map = augmentation_.warp.draw(rng).between({v.height(), v.width()}, size_);
  const double contrast = 1 + rng.uniform(-augmentation_.intensity, augmentation_.intensity);
  const double brightness = rng.uniform(-augmentation_.intensity, augmentation_.intensity);
  if (!augmentation_.middle) {
    const auto place = [&](int64_t slice, int64_t view) {  // from the middle
      const double reach = static_cast<double>(slice - view) / 2;
      return reach > 0 ? rng.uniform(-reach, reach) : 0.0;
    };
    map.y0 += place(v.height(), size_.height);
    map.x0 += place(v.width(), size_.width);
  }
  const auto mean = static_cast<float>(v.mean), scale = static_cast<float>(contrast / v.std),
             shift = static_cast<float>(brightness);
  constexpr uint16_t no_output = 0;  // the table's first set is empty
  float* image = out[0].write<float>();
  float* target = out[1].write<float>();
  for (int64_t row = 0; row < size_.height; ++row)
    for (int64_t column = 0; column < size_.width; ++column) {
      const double x = map.x(row, column), y = map.y(row, column);
      const Between between(x, y);
      for (int64_t c = 0; c < channels.count; ++c) {
        const Plane<float>& plane = channels.planes[c];
        const float value = plane.data ? bilinear(plane, between, v.background) : v.background;
        *image++ = (value - mean) * scale + shift;
      }
      target = put_outputs(target, volumes_->outputs_of(nearest(codes, x, y, no_output)), outputs);
    }
}

}  // namespace espalier::data
