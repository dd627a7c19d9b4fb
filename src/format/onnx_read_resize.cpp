// Resize and Upsample of ONNX. Where our resize reads the same elements it is used; other modes become a constant matrix
// (or positions) per axis.
#include <algorithm>
#include <cmath>

#include "format/onnx_import.h"
#include "op/axes.h"
#include "op/contraction.h"
#include "op/indexed.h"
#include "op/window.h"

namespace espalier::format {

using ir::Array;
using ir::Dim;
using ir::Dims;
using ir::Value;
using op::at;

namespace {

struct Modes {
  std::string mode, coordinates, nearest;
  double cubic = -0.75;
  bool exclude_outside = false;
};

/// Where result position i reads, by ONNX's coordinate_transformation_mode.
double coordinate(const Use& u, const Modes& m, int64_t i, int64_t in, int64_t out, double scale) {
  const auto x = static_cast<double>(i), length = static_cast<double>(in) * scale;  // before rounding down
  if (m.coordinates == "half_pixel") return (x + 0.5) / scale - 0.5;
  if (m.coordinates == "pytorch_half_pixel") return out > 1 ? (x + 0.5) / scale - 0.5 : 0;
  if (m.coordinates == "align_corners") return out > 1 ? x * static_cast<double>(in - 1) / (length - 1) : 0;
  if (m.coordinates == "asymmetric") return x / scale;
  u.fail("coordinate_transformation_mode is not supported", m.coordinates,
         "half_pixel pytorch_half_pixel align_corners asymmetric");
}

int64_t nearest(const Use& u, const Modes& m, double x, int64_t in) {
  double r = 0;
  if (m.nearest == "round_prefer_floor") r = std::ceil(x - 0.5);
  else if (m.nearest == "round_prefer_ceil") r = std::floor(x + 0.5);
  else if (m.nearest == "floor") r = std::floor(x);
  else if (m.nearest == "ceil") r = std::ceil(x);
  else u.fail("nearest_mode is not supported", m.nearest, "round_prefer_floor round_prefer_ceil floor ceil");
  return std::clamp<int64_t>(static_cast<int64_t>(r), 0, in - 1);
}

/// Keys' cubic weight at distance d.
double cubic_weight(double d, double a) {
  d = std::fabs(d);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

/// Row i holds what result i takes of each element.
std::vector<double> weights(const Use& u, const Modes& m, int64_t in, int64_t out, double scale) {
  std::vector<double> w(at(in * out), 0.0);
  for (int64_t i = 0; i < out; ++i) {
    const double x = coordinate(u, m, i, in, out, scale);
    const auto low = static_cast<int64_t>(std::floor(x));
    const bool linear = m.mode == "linear";
    double sum = 0;
    for (int64_t k = low - (linear ? 0 : 1); k <= low + (linear ? 1 : 2); ++k) {
      const double part = linear ? 1 - std::fabs(x - static_cast<double>(k))
                                 : cubic_weight(x - static_cast<double>(k), m.cubic);
      if (m.exclude_outside && (k < 0 || k >= in)) continue;
      w[at(i * in + std::clamp<int64_t>(k, 0, in - 1))] += part;
      sum += part;
    }
    if (m.exclude_outside)
      for (int64_t k = 0; k < in; ++k) w[at(i * in + k)] /= sum;
  }
  return w;
}

/// Is in * out more than `limit`? Both are at least 1, of any size.
bool exceeds(int64_t in, int64_t out, int64_t limit) { return in > limit / out; }

Value resize_axis(const Use& u, const Modes& m, const Value& x, int64_t axis, int64_t out, double scale) {
  const int64_t in = x.dims()[at(axis)].value();
  if (in < 1 || out < 1 || out > 1 << 20) u.fail("sizes are out of range", std::to_string(out), "1 to 2^20");
  if (m.mode == "nearest") {
    Ints positions;
    for (int64_t i = 0; i < out; ++i)
      positions.push_back(nearest(u, m, coordinate(u, m, i, in, out, scale), in));
    return op::gather(x, ir::constant(Array::list(positions)), axis);
  }
  if (exceeds(in, out, 1 << 26))
    u.fail("the axis is too long for this mode", std::to_string(in) + " to " + std::to_string(out));
  const std::vector<double> w = weights(u, m, in, out, scale);
  const Value matrix = ir::constant(Array::of<double>({out, in}, std::span<const double>(w)).cast(x.dtype()));
  const Value y = op::dot(
      x, matrix, {.batch_a = {}, .batch_b = {}, .contract_a = {axis}, .contract_b = {1}, .out = x.dtype()});
  return last_moved_to(y, axis);
}

/// Does our resize read with the same weights?
bool ours_fits(const Use& u, const Modes& m, int64_t in, int64_t out, double scale, bool align_corners) {
  if (m.mode == "cubic" || exceeds(in, out, 1 << 24)) return false;
  const bool is_nearest = m.mode == "nearest";
  const auto taps =
      op::resize_taps(in, out, is_nearest ? op::ResizeMode::nearest : op::ResizeMode::linear, align_corners);
  for (int64_t i = 0; i < out; ++i) {
    const double x = coordinate(u, m, i, in, out, scale);
    if (is_nearest) {
      if (nearest(u, m, x, in) != taps[at(i)].low) return false;
      continue;
    }
    const double ours = static_cast<double>(taps[at(i)].low) + taps[at(i)].weight;
    if (m.exclude_outside || std::fabs(std::clamp(x, 0.0, static_cast<double>(in - 1)) - ours) > 1e-6)
      return false;
  }
  return true;
}

/// Result dims of a channels-first input: sizes, or scales rounded down.
Dims wanted_dims(const Use& u, const Dims& from, std::vector<double>& scales, const Dims& sizes) {
  Dims to;
  if (!sizes.empty() && sizes.size() != from.size())
    u.fail("sizes do not fit the rank", dims_text(sizes), dims_text(from));
  if (sizes.empty() && scales.size() != from.size())
    u.fail("scales do not fit the rank", std::to_string(scales.size()), dims_text(from));
  std::vector<double> used;
  for (size_t i = 0; i < from.size(); ++i) {
    if (!from[i].is_static() || (!sizes.empty() && !sizes[i].is_static())) {  // an axis that stays
      if (sizes.empty() ? scales[i] != 1 : sizes[i] != from[i])
        u.fail("a symbolic axis is resized", dims_text(from), "a symbol bound when loading");
      to.push_back(from[i]);
      used.push_back(1);
      continue;
    }
    const auto n = static_cast<double>(from[i].value());
    if (sizes.empty() && !(scales[i] > 0 && n * scales[i] < 1 << 24))
      u.fail("a scale is out of range", std::to_string(scales[i]));
    to.push_back(sizes.empty() ? Dim(static_cast<int64_t>(std::floor(n * scales[i]))) : sizes[i]);
    used.push_back(sizes.empty() ? scales[i] : static_cast<double>(sizes[i].value()) / n);
  }
  scales = std::move(used);
  return to;
}

Results resize(const Use& u, const Modes& m, std::vector<double> scales, const Dims& sizes) {
  if (m.mode != "nearest" && m.mode != "linear" && m.mode != "cubic")
    u.fail("mode is not supported", m.mode, "nearest linear cubic");
  const Dims from = u.dims(0);
  const Dims to = wanted_dims(u, from, scales, sizes);
  const int rank = static_cast<int>(from.size());
  if (rank >= 3 && rank <= 5 && from[0] == to[0] && from[1] == to[1]) {
    for (const bool align_corners : {false, true}) {
      bool fits = true;
      op::ResizeAttrs a{.spatial = {},
                        .mode = m.mode == "nearest" ? op::ResizeMode::nearest : op::ResizeMode::linear,
                        .align_corners = align_corners};
      for (size_t i = 2; i < from.size() && fits; ++i) {
        fits = from[i].is_static() && from[i].value() > 0 && to[i].value() > 0 &&
               ours_fits(u, m, from[i].value(), to[i].value(), scales[i], align_corners);
        a.spatial.push_back(fits ? to[i].value() : 0);
      }
      if (align_corners && m.coordinates != "align_corners") fits = false;
      if (fits && from != to) return {held_last(op::resize(u.last(0), a))};
    }
  }
  Value x = u.value(0);
  for (int64_t i = 0; i < rank; ++i)
    if (to[at(i)] != from[at(i)]) x = resize_axis(u, m, x, i, to[at(i)].value(), scales[at(i)]);
  return {held(x)};
}

std::vector<double> numbers(const Use& u, size_t input) {
  const Array a = u.constant(input);
  std::vector<double> out;
  for (int64_t i = 0; i < a.size(); ++i) out.push_back(a.at(i));
  return out;
}

Results read_resize(Use& u) {
  Modes m{.mode = u.text("mode", "nearest"), .coordinates = "asymmetric", .nearest = "floor"};
  if (u.opset() < 11) return resize(u, m, numbers(u, 1), {});
  m.coordinates = u.text("coordinate_transformation_mode", "half_pixel");
  m.nearest = u.text("nearest_mode", "round_prefer_floor");
  m.cubic = u.real("cubic_coeff_a", -0.75);
  m.exclude_outside = u.integer("exclude_outside", 0) != 0;
  u.ignore("extrapolation_value");  // of tf_crop_and_resize, which is refused
  if (u.has(3)) return resize(u, m, {}, u.sizes(3));
  return resize(u, m, numbers(u, 2), {});
}

Results read_upsample(Use& u) {
  const Modes m{.mode = u.text("mode", "nearest"), .coordinates = "asymmetric", .nearest = "floor"};
  return resize(u, m, u.opset() < 9 ? u.reals("scales") : numbers(u, 1), {});
}

constexpr ReadRow rows[] = {
    {"Resize", 10, 10, 2, 2, read_resize},
    {"Resize", 11, newest_opset, 3, 4, read_resize},
    {"Upsample", 7, 8, 1, 1, read_upsample},
    {"Upsample", 9, 9, 2, 2, read_upsample},
};

}  // namespace

std::span<const ReadRow> resize_rows() { return rows; }

}  // namespace espalier::format
