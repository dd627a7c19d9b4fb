#include "data/transforms.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "base/align.h"
#include "data/plane.h"

namespace espalier::data {

using ir::Array;
using ir::Dtype;

namespace {

struct Picture {
  const float* data;
  int64_t height, width, channels;
  Plane<float> plane(int64_t c) const { return {data + c, height, width, width * channels, channels}; }
};

Picture view(const char* transform, const Array& image) {
  if (image.dtype() != Dtype::f32 || image.rank() != 3)
    throw UserError({transform, "is for pictures", image.type().text(), "f32[height,width,channels]"});
  return {image.data<float>(), image.dims()[0], image.dims()[1], image.dims()[2]};
}

Array blank(const char* transform, int64_t height, int64_t width, int64_t channels) {
  if (height < 1 || width < 1)
    throw UserError({transform, "size is empty", fmt::format("{} x {}", height, width), "1 x 1 or more"});
  return Array(Dtype::f32, {height, width, channels});
}

/// Each output element from its input element.
template <class F>
Array each(const char* transform, const Array& image, F f) {
  const Picture in = view(transform, image);
  Array out(Dtype::f32, image.dims());
  float* to = out.write<float>();
  for (int64_t i = 0; i < out.size(); ++i) to[i] = f(in.data[i], i % in.channels);
  return out;
}

}  // namespace

Array resize(const Array& image, int64_t height, int64_t width, Interpolation interpolation) {
  const Picture in = view("resize", image);
  Array out = blank("resize", height, width, in.channels);
  if (in.height < 1 || in.width < 1) throw UserError({"resize", "picture is empty", image.type().text(), ""});
  float* to = out.write<float>();
  const double scale_y = static_cast<double>(in.height) / static_cast<double>(height);
  const double scale_x = static_cast<double>(in.width) / static_cast<double>(width);
  for (int64_t row = 0; row < height; ++row)
    for (int64_t column = 0; column < width; ++column) {
      const double py = (static_cast<double>(row) + 0.5) * scale_y - 0.5,
                   px = (static_cast<double>(column) + 0.5) * scale_x - 0.5;
      const double y = std::clamp(py, 0.0, static_cast<double>(in.height - 1)),
                   x = std::clamp(px, 0.0, static_cast<double>(in.width - 1));
      const Between between(x, y);
      for (int64_t c = 0; c < in.channels; ++c) {
        if (interpolation == Interpolation::nearest) *to++ = nearest(in.plane(c), x, y, 0.0f);
        else *to++ = bilinear(in.plane(c), between, 0);  // an outside pixel has weight 0
      }
    }
  return out;
}

Array crop(const Array& image, int64_t top, int64_t left, int64_t height, int64_t width) {
  const Picture in = view("crop", image);
  if (top < 0 || left < 0 || height < 1 || width < 1 || height > in.height - top || width > in.width - left)
    throw UserError({"crop", "does not lie inside the picture",
                     fmt::format("{} x {} at ({}, {})", height, width, top, left),
                     fmt::format("inside {} x {}", in.height, in.width)});
  Array out = blank("crop", height, width, in.channels);
  const auto row = static_cast<size_t>(width * in.channels);
  for (int64_t y = 0; y < height && row > 0; ++y)
    std::memcpy(out.write<float>() + static_cast<size_t>(y) * row,
                in.data + ((top + y) * in.width + left) * in.channels, row * sizeof(float));
  return out;
}

Array center_crop(const Array& image, int64_t height, int64_t width) {
  const Picture in = view("center_crop", image);
  return crop(image, (in.height - height) / 2, (in.width - width) / 2, height, width);
}

Array random_crop(const Array& image, int64_t height, int64_t width, Rng& rng) {
  const Picture in = view("random_crop", image);
  const auto places = [&](int64_t have, int64_t want) {
    return static_cast<uint64_t>(std::max<int64_t>(have - want, 0)) + 1;
  };
  const auto top = static_cast<int64_t>(rng.below(places(in.height, height)));
  const auto left = static_cast<int64_t>(rng.below(places(in.width, width)));
  return crop(image, top, left, height, width);
}

Array flip_horizontal(const Array& image) {
  const Picture in = view("flip_horizontal", image);
  Array out(Dtype::f32, image.dims());
  float* to = out.write<float>();
  for (int64_t y = 0; y < in.height; ++y)
    for (int64_t x = in.width - 1; x >= 0; --x)
      to = std::copy_n(in.data + (y * in.width + x) * in.channels, in.channels, to);
  return out;
}

Array flip_vertical(const Array& image) {
  const Picture in = view("flip_vertical", image);
  Array out(Dtype::f32, image.dims());
  float* to = out.write<float>();
  for (int64_t y = in.height - 1; y >= 0; --y)
    to = std::copy_n(in.data + y * in.width * in.channels, in.width * in.channels, to);
  return out;
}

Affine2 Warp::between(Size2 input, Size2 output) const {
  const double angle = degrees * std::numbers::pi / 180, cosine = std::cos(angle) / scale,
               sine = std::sin(angle) / scale;
  const double u0 = -static_cast<double>(output.width - 1) / 2,
               v0 = -static_cast<double>(output.height - 1) / 2;
  const double f = mirror ? -1 : 1;
  Affine2 m;
  m.xx = f * cosine, m.xy = -f * sine;
  m.yx = sine, m.yy = cosine;
  m.x0 = static_cast<double>(input.width - 1) / 2 + shift_x + m.xx * u0 + m.xy * v0;
  m.y0 = static_cast<double>(input.height - 1) / 2 + shift_y + m.yx * u0 + m.yy * v0;
  return m;
}

Warp WarpRange::draw(Rng& rng) const {
  Warp w;
  w.mirror = rng.coin(mirror);
  w.degrees = rng.uniform(-degrees, degrees);
  w.scale = rng.uniform(scale_low, scale_high);
  w.shift_x = rng.uniform(-shift, shift);
  w.shift_y = rng.uniform(-shift, shift);
  return w;
}

Array affine(const Array& image, const Affine2& map, Size2 size, Interpolation interpolation, float outside) {
  const Picture in = view("affine", image);
  Array out = blank("affine", size.height, size.width, in.channels);
  float* to = out.write<float>();
  for (int64_t row = 0; row < size.height; ++row)
    for (int64_t column = 0; column < size.width; ++column) {
      const double x = map.x(row, column), y = map.y(row, column);
      const Between between(x, y);
      for (int64_t c = 0; c < in.channels; ++c)
        *to++ = interpolation == Interpolation::nearest ? nearest(in.plane(c), x, y, outside)
                                                        : bilinear(in.plane(c), between, outside);
    }
  return out;
}

Array rotate(const Array& image, double degrees, Interpolation interpolation, float outside) {
  const Picture in = view("rotate", image);
  if (!std::isfinite(degrees))
    throw UserError({"rotate, degrees", "is not finite", fmt::format("{}", degrees), "a finite number"});
  const Size2 size{in.height, in.width};
  return affine(image, Warp{.degrees = degrees}.between(size, size), size, interpolation, outside);
}

Array random_rotate(const Array& image, double degrees, Interpolation interpolation, Rng& rng,
                    float outside) {
  return rotate(image, rng.uniform(-degrees, degrees), interpolation, outside);
}

Array normalise(const Array& image, std::span<const float> mean, std::span<const float> std) {
  const auto channels = static_cast<size_t>(view("normalise", image).channels);
  for (const auto& [name, values] : {std::pair{"mean", mean}, std::pair{"std", std}})
    if (values.size() != 1 && values.size() != channels)
      throw UserError({fmt::format("normalise, {}", name), "wrong number of values",
                       std::to_string(values.size()), fmt::format("1 or {}", channels)});
  for (const float s : std)
    if (!(s > 0)) throw UserError({"normalise, std", "is not above 0", fmt::format("{}", s), "std > 0"});
  return each("normalise", image, [&](float v, int64_t c) {
    const auto i = static_cast<size_t>(c);
    return (v - mean[mean.size() == 1 ? 0 : i]) / std[std.size() == 1 ? 0 : i];
  });
}

Array brightness_contrast(const Array& image, float brightness, float contrast) {
  return each("brightness_contrast", image, [=](float v, int64_t) { return v * contrast + brightness; });
}

Array random_brightness_contrast(const Array& image, float range, Rng& rng) {
  const auto r = static_cast<double>(range);
  const double contrast = rng.uniform(1 - r, 1 + r), brightness = rng.uniform(-r, r);
  return brightness_contrast(image, static_cast<float>(brightness), static_cast<float>(contrast));
}

Array pad_to(const Array& image, Size2 size, float value) {
  const Picture in = view("pad_to", image);
  if (size.height < in.height || size.width < in.width)
    throw UserError({"pad_to", "size is smaller than the picture",
                     fmt::format("{} x {}", size.height, size.width),
                     fmt::format("at least {} x {}", in.height, in.width)});
  Array out = blank("pad_to", size.height, size.width, in.channels);
  float* to = out.write<float>();
  std::fill_n(to, out.size(), value);
  const int64_t top = (size.height - in.height) / 2, left = (size.width - in.width) / 2;
  for (int64_t y = 0; y < in.height; ++y)
    std::copy_n(in.data + y * in.width * in.channels, in.width * in.channels,
                to + ((top + y) * size.width + left) * in.channels);
  return out;
}

Array pad_to_multiple(const Array& image, int64_t multiple, float value) {
  const Picture in = view("pad_to_multiple", image);
  if (multiple < 1)
    throw UserError({"pad_to_multiple, multiple", "is not positive", std::to_string(multiple), "1 or more"});
  return pad_to(image, {round_up(in.height, multiple), round_up(in.width, multiple)}, value);
}

}  // namespace espalier::data
