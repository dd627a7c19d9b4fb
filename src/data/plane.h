#pragma once
// Looking between the pixels of one plane, as the affine transforms do: of a channel of a picture or of a slice of a volume.
#include <cmath>
#include <cstdint>

namespace espalier::data {

/// height x width elements, `step` apart in a row, `row` apart between rows.
template <class T>
struct Plane {
  const T* data;
  int64_t height, width, row, step;

  bool holds(int64_t y, int64_t x) const { return y >= 0 && y < height && x >= 0 && x < width; }
  T at(int64_t y, int64_t x) const { return data[y * row + x * step]; }
};

/// A floored position as a pixel number; far outside (and NaN) is just outside.
inline int64_t pixel_of(double floored) {
  constexpr double far = 1e9;
  if (!(floored > -far)) return static_cast<int64_t>(-far);
  return static_cast<int64_t>(floored < far ? floored : far);
}

/// The place between four pixels where a position falls.
struct Between {
  int64_t x, y;  ///< the upper left of the four
  float fx, fy;  ///< how far towards the lower right, in [0, 1)

  Between(double px, double py) {
    const double left = std::floor(px), top = std::floor(py);
    x = pixel_of(left), y = pixel_of(top);
    fx = static_cast<float>(px - left), fy = static_cast<float>(py - top);
  }
};

/// Bilinear value; each of the four pixels counts as `outside` where the plane does not hold it.
inline float bilinear(const Plane<float>& plane, const Between& b, float outside) {
  float v[4];
  if (b.x >= 0 && b.y >= 0 && b.x + 1 < plane.width && b.y + 1 < plane.height) {
    const float* p = plane.data + b.y * plane.row + b.x * plane.step;
    v[0] = p[0], v[1] = p[plane.step], v[2] = p[plane.row], v[3] = p[plane.row + plane.step];
  } else {
    for (int i = 0; i < 4; ++i) {
      const int64_t y = b.y + i / 2, x = b.x + i % 2;
      v[i] = plane.holds(y, x) ? plane.at(y, x) : outside;
    }
  }
  const float top = v[0] + (v[1] - v[0]) * b.fx, bottom = v[2] + (v[3] - v[2]) * b.fx;
  return top + (bottom - top) * b.fy;
}

/// The nearest pixel's value, or `outside`.
template <class T>
T nearest(const Plane<T>& plane, double px, double py, T outside) {
  const int64_t x = pixel_of(std::floor(px + 0.5)), y = pixel_of(std::floor(py + 0.5));
  return plane.holds(y, x) ? plane.at(y, x) : outside;
}

}  // namespace espalier::data
