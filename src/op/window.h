#pragma once
// Pooling and resizing over the spatial axes of N, spatial..., C (1 to 3 spatial axes).
#include "base/export.h"
#include "ir/op_def.h"

namespace espalier::op {

using ir::Value;

struct PoolAttrs {
  std::vector<int64_t> window, stride, pad_low, pad_high;
  bool count_pad = false;        ///< average: divide by the whole window, padding included
  std::vector<int64_t> spatial;  ///< gradients: spatial dims of the input
  bool operator==(const PoolAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{
        ir::field("window", &PoolAttrs::window),       ir::field("stride", &PoolAttrs::stride),
        ir::field("pad_low", &PoolAttrs::pad_low),     ir::field("pad_high", &PoolAttrs::pad_high),
        ir::field("count_pad", &PoolAttrs::count_pad), ir::field("spatial", &PoolAttrs::spatial)};
  }
};
enum class ResizeMode : uint8_t { nearest, linear };
inline constexpr std::string_view resize_mode_names[] = {"nearest", "linear"};
constexpr std::span<const std::string_view> enum_names(ResizeMode) { return resize_mode_names; }
struct ResizeAttrs {
  std::vector<int64_t> spatial;  ///< of the result (of the input, for resize_grad)
  ResizeMode mode = ResizeMode::nearest;
  bool align_corners = false;  ///< else half-pixel centres (nearest: floor of the centre)
  bool operator==(const ResizeAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("spatial", &ResizeAttrs::spatial), ir::field("mode", &ResizeAttrs::mode),
                      ir::field("align_corners", &ResizeAttrs::align_corners)};
  }
};

ESPALIER_API extern const ir::OpDef max_pool_op, max_pool_grad_op, avg_pool_op, avg_pool_grad_op, resize_op,
    resize_grad_op;

/// Results: the maxima, and where each was found: row-major index within its window, u8 (i32 for windows over 256).
/// Padding never wins; NaN does; the first of equals wins.
ESPALIER_API std::vector<Value> max_pool(Value x, PoolAttrs attrs);
/// (dy, index) -> dx; attrs.spatial holds the input's spatial dims.
ESPALIER_API Value max_pool_grad(Value dy, Value index, PoolAttrs attrs);
/// Average over the window's elements inside the input, or over the whole window (count_pad); 0 where there is none.
ESPALIER_API Value avg_pool(Value x, PoolAttrs attrs);
/// dy -> dx; attrs.spatial holds the input's spatial dims.
ESPALIER_API Value avg_pool_grad(Value dy, PoolAttrs attrs);
ESPALIER_API Value resize(Value x, ResizeAttrs attrs);
/// dy [N, out, C] -> dx [N, attrs.spatial, C], the transpose of resize.
ESPALIER_API Value resize_grad(Value dy, ResizeAttrs attrs);

/// Where one result position of a resized axis reads: (1 - weight) * x[low] + weight * x[high].
struct ResizeTap {
  int64_t low = 0, high = 0;
  double weight = 0;
};
/// The taps of an axis of `in` elements resized to `out`, one per result position. Linear half-pixel: the centre
/// (i + 0.5) in/out - 0.5 held inside [0, in-1]; align_corners: i (in-1)/(out-1), nearest rounds it half up.
std::vector<ResizeTap> resize_taps(int64_t in, int64_t out, ResizeMode mode, bool align_corners);

}  // namespace espalier::op
