#pragma once
// Looking between the pixels of one plane, as the affine transforms do: of a channel of a picture or of a slice of a volume.
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

/// A position as it is, or just outside of any plane where it is far outside or NaN.
inline double within_reach(double v) {
  constexpr double far = 1e9;
  return v > -far ? (v < far ? v : far) : -far;
}

/// The largest whole number not above a position within reach. (The plain instruction set has no floor.)
inline int64_t floor_of(double v) {
  const auto truncated = static_cast<int64_t>(v);
  return truncated - (v < static_cast<double>(truncated));
}

/// The place between four pixels where a position falls.
struct Between {
  int64_t x, y;  ///< the upper left of the four
  float fx, fy;  ///< how far towards the lower right, in [0, 1)

  Between(double px, double py) {
    px = within_reach(px), py = within_reach(py);
    x = floor_of(px), y = floor_of(py);
    fx = static_cast<float>(px - static_cast<double>(x)),
    fy = static_cast<float>(py - static_cast<double>(y));
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
  const int64_t x = floor_of(within_reach(px) + 0.5), y = floor_of(within_reach(py) + 0.5);
  return plane.holds(y, x) ? plane.at(y, x) : outside;
}

}  // namespace espalier::data
