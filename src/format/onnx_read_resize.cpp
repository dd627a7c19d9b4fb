// Resize and Upsample of ONNX. Where our resize reads the same elements it is used; other modes gather elements at constant
// positions, axis by axis, and add them up by their weights.
#include <algorithm>
#include <cmath>
#include <optional>

#include "format/onnx_import.h"
#include "op/axes.h"
#include "op/elementwise.h"
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
  bool antialias = false;                ///< shrinking widens the taps of linear and cubic
  std::string aspect_ratio = "stretch";  ///< keep_aspect_ratio_policy
};

/// How one axis is resized.
struct Axis {
  int64_t in = 0, out = 0;
  std::optional<float> scale = {};  ///< where the file gives one; else out / in
};

/// Where result position i reads, by ONNX's coordinate_transformation_mode. A scale is an f32, and so are all steps with it, as
/// in ONNX Runtime: 0.1 of 100 elements reads 0, 10, 20. Sizes are exact.
double coordinate(const Use& u, const Modes& m, int64_t i, const Axis& axis) {
  const auto from = [&]<class T>(T x) -> T {  // where the distance x lies in the input
    return axis.scale ? x / static_cast<T>(*axis.scale)
                      : x * static_cast<T>(axis.in) / static_cast<T>(axis.out);
  };
  const auto position = [&]<class T>(T x) -> T {
    const auto in = static_cast<T>(axis.in);
    const T length =
        axis.scale ? in * static_cast<T>(*axis.scale) : static_cast<T>(axis.out);  // not rounded down
    const T half = static_cast<T>(0.5);
    if (m.coordinates == "half_pixel") return from(x + half) - half;
    if (m.coordinates == "half_pixel_symmetric")  // the rounded length lies in the middle of the exact one
      return in * half * (1 - static_cast<T>(axis.out) / length) + from(x + half) - half;
    if (m.coordinates == "pytorch_half_pixel") return axis.out > 1 ? from(x + half) - half : 0;
    if (m.coordinates == "align_corners") return axis.out > 1 ? x * (in - 1) / (length - 1) : 0;
    if (m.coordinates == "asymmetric") return from(x);
    u.fail("coordinate_transformation_mode is not supported", m.coordinates,
           "half_pixel half_pixel_symmetric pytorch_half_pixel align_corners asymmetric");
  };
  return axis.scale ? static_cast<double>(position(static_cast<float>(i))) : position(static_cast<double>(i));
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

/// For each result position an element and its weight; as many taps as the mode has.
struct Tap {
  Ints elements;
  std::vector<double> weights;
};

std::vector<Tap> taps(const Use& u, const Modes& m, const Axis& axis) {
  const double scale = axis.scale ? static_cast<double>(*axis.scale)
                                  : static_cast<double>(axis.out) / static_cast<double>(axis.in);
  const double narrow = m.antialias ? std::min(scale, 1.0) : 1;
  const double reach = m.mode == "linear" ? 1 : 2;  // of a tap, before it is widened
  if (reach / narrow > 1 << 10)
    u.fail("an antialiased axis shrinks too much", std::to_string(scale), "1/512");
  const auto first = static_cast<int64_t>(std::floor(-reach / narrow)) + 1, last = 1 - first;
  std::vector<Tap> out(at(last - first + 1));
  for (int64_t i = 0; i < axis.out; ++i) {
    const double x = coordinate(u, m, i, axis);
    const auto low = static_cast<int64_t>(m.antialias ? std::ceil(x) - 1 : std::floor(x));
    double sum = 0;
    for (int64_t k = first; k <= last; ++k) {
      const int64_t element = low + k;
      const double distance = (x - static_cast<double>(element)) * narrow;
      const bool outside = element < 0 || element >= axis.in;
      const double weight = m.exclude_outside && outside ? 0
                            : m.mode == "linear"         ? std::max(1 - std::fabs(distance), 0.0)
                                                         : cubic_weight(distance, m.cubic);
      out[at(k - first)].elements.push_back(std::clamp<int64_t>(element, 0, axis.in - 1));
      out[at(k - first)].weights.push_back(weight);
      sum += weight;
    }
    if (m.exclude_outside || m.antialias)
      for (Tap& t : out) t.weights.back() /= sum;
  }
  return out;
}

/// Is in * out more than `limit`? Both are at least 1, of any size.
bool exceeds(int64_t in, int64_t out, int64_t limit) { return in > limit / out; }

Value resize_axis(const Use& u, const Modes& m, const Value& x, int64_t axis, const Axis& sizes) {
  if (sizes.in < 1 || sizes.out < 1 || sizes.out > 1 << 20)
    u.fail("sizes are out of range", std::to_string(sizes.out), "1 to 2^20");
  if (m.mode == "nearest") {
    Ints positions;
    for (int64_t i = 0; i < sizes.out; ++i)
      positions.push_back(nearest(u, m, coordinate(u, m, i, sizes), sizes.in));
    return op::gather(x, ir::constant(Array::list(positions)), axis);
  }
  const std::vector<Tap> all = taps(u, m, sizes);
  return in_f32_at_least(x, [&](const Value& v) {
    Value sum;
    for (const Tap& t : all) {
      const Value part = op::gather(v, ir::constant(Array::list(t.elements)), axis);
      const Value weight = ir::constant(Array::list(t.weights).cast(v.dtype()));
      const Value scaled = op::mul(part, op::broadcast_in(weight, part.dims(), {axis}));
      sum = sum ? op::add(sum, scaled) : scaled;
    }
    return sum;
  });
}

/// Does our resize read with the same weights?
bool ours_fits(const Use& u, const Modes& m, const Axis& axis, bool align_corners) {
  const auto [in, out, scale] = axis;
  if (m.mode == "cubic" || (m.antialias && out < in) || exceeds(in, out, 1 << 24)) return false;
  const double slack = scale ? 1e-6 + 2e-7 * static_cast<double>(in) : 1e-6;  // an f32 position's rounding
  const bool is_nearest = m.mode == "nearest";
  const auto taps =
      op::resize_taps(in, out, is_nearest ? op::ResizeMode::nearest : op::ResizeMode::linear, align_corners);
  for (int64_t i = 0; i < out; ++i) {
    const double x = coordinate(u, m, i, axis);
    if (is_nearest) {
      if (nearest(u, m, x, in) != taps[at(i)].low) return false;
      continue;
    }
    const double ours = static_cast<double>(taps[at(i)].low) + taps[at(i)].weight;
    if (m.exclude_outside || std::fabs(std::clamp(x, 0.0, static_cast<double>(in - 1)) - ours) > slack)
      return false;
  }
  return true;
}

/// The axes that scales or sizes are given for, all where none are named.
Ints named_axes(const Use& u, size_t given, const Ints& axes, size_t rank) {
  Ints all = axes.empty() ? op::axes_without(static_cast<int>(rank), {}) : axes;
  if (all.size() != given)
    u.fail("scales or sizes do not fit the axes", std::to_string(given), std::to_string(all.size()));
  for (int64_t& a : all) a = u.axis(a, static_cast<int>(rank));
  return all;
}

/// Axes that keep the ratio of their lengths: scaled by one number, the least or the most that is asked for.
std::vector<std::optional<Axis>> alike_axes(const Use& u, const Modes& m, const Dims& from, const Dims& sizes,
                                            const Ints& axes) {
  if (m.aspect_ratio != "not_larger" && m.aspect_ratio != "not_smaller")
    u.fail("keep_aspect_ratio_policy is not supported", m.aspect_ratio, "stretch not_larger not_smaller");
  std::optional<double> scale;
  for (size_t i = 0; i < axes.size(); ++i) {
    const Dim length = from[at(axes[i])];
    if (!length.is_static() || !sizes[i].is_static() || length.value() < 1)
      u.fail("a symbolic axis is resized", dims_text(from), "a symbol bound when loading");
    const double s = static_cast<double>(sizes[i].value()) / static_cast<double>(length.value());
    if (!scale || (m.aspect_ratio == "not_larger" ? s < *scale : s > *scale)) scale = s;
  }
  std::vector<std::optional<Axis>> out(from.size());
  for (const int64_t axis : axes) {
    const int64_t in = from[at(axis)].value();
    const double exact = static_cast<double>(in) * *scale;
    if (!(exact >= 0 && exact < 1 << 24))
      u.fail("sizes are out of range", std::to_string(exact), "0 to 2^24");
    const auto length = static_cast<int64_t>(std::floor(exact + 0.5));
    if (length != in) out[at(axis)] = Axis{.in = in, .out = length, .scale = static_cast<float>(*scale)};
  }
  return out;
}

/// How every axis of a channels-first input is resized: to sizes, or by scales rounded down. Nothing where a size stays.
std::vector<std::optional<Axis>> wanted_axes(const Use& u, const Dims& from,
                                             const std::vector<double>& scales, const Dims& sizes) {
  if (!sizes.empty() && sizes.size() != from.size())
    u.fail("sizes do not fit the rank", dims_text(sizes), dims_text(from));
  if (sizes.empty() && scales.size() != from.size())
    u.fail("scales do not fit the rank", std::to_string(scales.size()), dims_text(from));
  std::vector<std::optional<Axis>> axes;
  for (size_t i = 0; i < from.size(); ++i) {
    if (sizes.empty() ? scales[i] == 1 : sizes[i] == from[i]) {
      axes.emplace_back();
      continue;
    }
    if (!from[i].is_static() || (!sizes.empty() && !sizes[i].is_static()))
      u.fail("a symbolic axis is resized", dims_text(from), "a symbol bound when loading");
    Axis a{.in = from[i].value()};
    if (sizes.empty()) {
      const auto scale = static_cast<float>(scales[i]);
      const float length = static_cast<float>(a.in) * scale;
      if (!(scale > 0 && length < 1 << 24)) u.fail("a scale is out of range", std::to_string(scales[i]));
      a.out = static_cast<int64_t>(length);
      a.scale = scale;
    } else {
      a.out = sizes[i].value();
    }
    if (a.out == a.in) axes.emplace_back();
    else axes.emplace_back(a);
  }
  return axes;
}

Results resize(const Use& u, const Modes& m, const std::vector<double>& scales, const Dims& sizes,
               const Ints& named = {}) {
  if (m.mode != "nearest" && m.mode != "linear" && m.mode != "cubic")
    u.fail("mode is not supported", m.mode, "nearest linear cubic");
  const Dims from = u.dims(0);
  const Ints order = named_axes(u, std::max(scales.size(), sizes.size()), named, from.size());
  std::vector<std::optional<Axis>> axes;
  if (!sizes.empty() && m.aspect_ratio != "stretch") {
    axes = alike_axes(u, m, from, sizes, order);
  } else {
    Dims all_sizes = from;
    std::vector<double> all_scales(from.size(), 1);
    for (size_t i = 0; i < order.size(); ++i) {
      if (sizes.empty()) all_scales[at(order[i])] = scales[i];
      else all_sizes[at(order[i])] = sizes[i];
    }
    if (sizes.empty()) all_sizes.clear();
    axes = wanted_axes(u, from, all_scales, all_sizes);
  }
  const auto rank = static_cast<int64_t>(axes.size());
  const bool any = std::any_of(axes.begin(), axes.end(), [](const auto& a) { return a.has_value(); });
  if (any && rank >= 3 && rank <= 5 && !axes[0] && !axes[1]) {
    for (const bool align_corners : {m.coordinates == "align_corners", false}) {
      bool fits = true;
      op::ResizeAttrs a{.spatial = {},
                        .mode = m.mode == "nearest" ? op::ResizeMode::nearest : op::ResizeMode::linear,
                        .align_corners = align_corners};
      for (size_t i = 2; i < axes.size() && fits; ++i) {
        fits = axes[i] || from[i].is_static();
        if (!fits) break;
        const Axis axis = axes[i] ? *axes[i] : Axis{.in = from[i].value(), .out = from[i].value()};
        fits = axis.in > 0 && axis.out > 0 && ours_fits(u, m, axis, align_corners);
        a.spatial.push_back(axis.out);
      }
      if (fits) return {held_last(op::resize(u.last(0), a))};
    }
  }
  Value x = u.value(0);
  for (int64_t i = 0; i < rank; ++i)
    if (axes[at(i)]) x = resize_axis(u, m, x, i, *axes[at(i)]);
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
  m.antialias = u.integer("antialias", 0) != 0;
  m.aspect_ratio = u.text("keep_aspect_ratio_policy", "stretch");
  const Ints axes = u.integers("axes", {});
  u.ignore("extrapolation_value");  // of tf_crop_and_resize, which is refused
  if (u.has(3)) return resize(u, m, {}, u.sizes(3), axes);
  return resize(u, m, numbers(u, 2), {}, axes);
}

Results read_upsample(Use& u) {
  const Modes m{.mode = u.text("mode", "nearest"), .coordinates = "asymmetric", .nearest = "floor"};
  return resize(u, m, u.opset() < 9 ? u.reals("scales") : numbers(u, 1), {});
}

constexpr ReadRow resize_table[] = {
    {"Resize", 10, 10, 2, 2, read_resize},
    {"Resize", 11, newest_opset, 3, 4, read_resize},
    {"Upsample", 7, 8, 1, 1, read_upsample},
    {"Upsample", 9, 9, 2, 2, read_upsample},
};

}  // namespace

std::span<const ReadRow> resize_rows() { return resize_table; }

}  // namespace espalier::format
