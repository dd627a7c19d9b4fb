#pragma once
// Transforms of pictures: f32 arrays [height, width, channels]. Each gives a new array and draws what it needs from the
// sample's Rng. UserError (transform, what came, what is allowed) for other arrays and impossible sizes.
#include <span>

#include "data/rng.h"
#include "ir/array.h"

namespace espalier::data {

enum class Interpolation { bilinear, nearest };

/// To height x width; pixel centres lie at half integers (no corner alignment), the border repeats. Bilinear averages
/// nothing when it shrinks; nearest suits masks.
ESPALIER_API ir::Array resize(const ir::Array& image, int64_t height, int64_t width,
                              Interpolation interpolation);

/// The part of height x width whose upper left is (top, left); it must lie inside.
ESPALIER_API ir::Array crop(const ir::Array& image, int64_t top, int64_t left, int64_t height, int64_t width);
/// The part in the middle (half of what is left over, rounded down, is above and to the left).
ESPALIER_API ir::Array center_crop(const ir::Array& image, int64_t height, int64_t width);
/// A part anywhere inside, each place equally likely.
ESPALIER_API ir::Array random_crop(const ir::Array& image, int64_t height, int64_t width, Rng& rng);

/// Left becomes right; top becomes bottom.
ESPALIER_API ir::Array flip_horizontal(const ir::Array& image);
ESPALIER_API ir::Array flip_vertical(const ir::Array& image);

/// Rotation, scale, shift and mirroring as one map from output pixels to input positions:
/// x = xx*column + xy*row + x0, y = yx*column + yy*row + y0.
struct Affine2 {
  double xx = 1, xy = 0, x0 = 0;
  double yx = 0, yy = 1, y0 = 0;
  double x(int64_t row, int64_t column) const {
    return xx * static_cast<double>(column) + xy * static_cast<double>(row) + x0;
  }
  double y(int64_t row, int64_t column) const {
    return yx * static_cast<double>(column) + yy * static_cast<double>(row) + y0;
  }
};

/// A picture's size in pixels.
struct Size2 {
  int64_t height, width;
  bool operator==(const Size2&) const = default;
};

/// One move about the centres of input and output: mirror left and right, turn, enlarge by `scale`, shift the centre.
struct Warp {
  bool mirror = false;
  double degrees = 0, scale = 1, shift_x = 0, shift_y = 0;
  ESPALIER_API Affine2 between(Size2 input, Size2 output) const;
};

/// From where a random warp is drawn: each value uniform in its range.
struct WarpRange {
  double mirror = 0.5;  ///< probability
  double degrees = 10;  ///< in -degrees..degrees
  double scale_low = 0.9, scale_high = 1.1;
  double shift = 8;  ///< in -shift..shift pixels, each way
  ESPALIER_API Warp draw(Rng& rng) const;
};

/// The output of `size` whose pixels are `image` at the map's positions: one resampling for all moves together. What lies
/// outside counts as `outside`.
ESPALIER_API ir::Array affine(const ir::Array& image, const Affine2& map, Size2 size,
                              Interpolation interpolation, float outside = 0);

/// Turned counter-clockwise about the centre, in the same size. What lies outside counts as `outside`. UserError for degrees that
/// are not finite.
ESPALIER_API ir::Array rotate(const ir::Array& image, double degrees, Interpolation interpolation,
                              float outside = 0);
/// Random: turned by an angle uniform in -degrees..degrees.
ESPALIER_API ir::Array random_rotate(const ir::Array& image, double degrees, Interpolation interpolation,
                                     Rng& rng, float outside = 0);

/// (value - mean) / std by channel; one mean and std, or one for each channel; std > 0.
ESPALIER_API ir::Array normalise(const ir::Array& image, std::span<const float> mean,
                                 std::span<const float> std);
/// value * contrast + brightness.
ESPALIER_API ir::Array brightness_contrast(const ir::Array& image, float brightness, float contrast);
/// Random: contrast in 1-range..1+range and brightness in -range..range.
ESPALIER_API ir::Array random_brightness_contrast(const ir::Array& image, float range, Rng& rng);

/// Filled up with `value` so that height and width are multiples of `multiple`; half of what is missing, rounded down,
/// comes first.
ESPALIER_API ir::Array pad_to_multiple(const ir::Array& image, int64_t multiple, float value = 0);
/// The same to a size; it must not be smaller.
ESPALIER_API ir::Array pad_to(const ir::Array& image, Size2 size, float value = 0);

}  // namespace espalier::data
