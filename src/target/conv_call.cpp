#include "target/conv_call.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <span>
#include <vector>

namespace espalier::target {

using ir::Dtype;

namespace {

using Axes = std::array<int64_t, conv_spatial_most + 2>;

constexpr std::string_view direction_names[] = {"forward", "data_grad", "weight_grad"};
constexpr std::string_view step_names[] = {"add_channel", "mul_channel", "add_residual",
                                           "relu",        "sigmoid",     "tanh"};

template <size_t N>
std::span<const int64_t> first(const std::array<int64_t, N>& all, int count) {
  return std::span(all).first(static_cast<size_t>(count));
}

std::string tensor_text(std::string_view name, const ConvTensor& t, int spatial) {
  std::string out =
      fmt::format(" {} {}[{}]", name, ir::dtype_name(t.dtype), fmt::join(first(t.dims, spatial + 2), ","));
  if (t.strides != channels_last_strides(t.dims, spatial))
    out += fmt::format("({})", fmt::join(first(t.strides, spatial + 2), ","));
  return out;
}

/// " name a,b", or nothing where all are `usual`.
std::string axes_text(std::string_view name, std::span<const int64_t> v, int64_t usual) {
  if (std::all_of(v.begin(), v.end(), [&](int64_t x) { return x == usual; })) return "";
  return fmt::format(" {} {}", name, fmt::join(v, ","));
}

/// Do two elements share their place, or does one lie before the first?
bool overlaps(const ConvTensor& t, int spatial) {
  std::vector<std::pair<int64_t, int64_t>> axes;  // stride, extent
  for (int i = 0; i < spatial + 2; ++i)
    if (t.dims[static_cast<size_t>(i)] > 1)
      axes.emplace_back(t.strides[static_cast<size_t>(i)], t.dims[static_cast<size_t>(i)]);
  std::sort(axes.begin(), axes.end());
  int64_t inside = 1;  // how far the axes before reach
  for (const auto& [stride, extent] : axes) {
    if (stride < inside) return true;
    inside = stride * (extent - 1) + inside;
  }
  return false;
}

std::string dtype_error(const ConvCall& c) {
  const ConvTensor& result = conv_result(c);
  const bool forward = c.direction == ConvDirection::forward,
             weight_grad = c.direction == ConvDirection::weight_grad;
  const Dtype a = forward || weight_grad ? c.x.dtype : c.y.dtype, b = weight_grad ? c.y.dtype : c.w.dtype;
  if (a != b) return "its operands are of two dtypes";
  if (a == Dtype::i8) {
    if (!forward || c.compute != Dtype::i32 || result.dtype != Dtype::i32 || c.step_count != 0)
      return "i8 convolutions give i32 sums, forward and without steps";
    return "";
  }
  if (!ir::is_float(a)) return fmt::format("{} operands", ir::dtype_name(a));
  if (c.compute != (a == Dtype::f64 ? Dtype::f64 : Dtype::f32))
    return fmt::format("{} computed in {}", ir::dtype_name(a), ir::dtype_name(c.compute));
  if (result.dtype != a && result.dtype != Dtype::f32)
    return fmt::format("{} result of {} operands", ir::dtype_name(result.dtype), ir::dtype_name(a));
  return "";
}

std::string axis_error(const ConvCall& c, size_t i) {
  const int64_t x = c.x.dims[i + 2], k = c.w.dims[i + 2], y = c.y.dims[i + 2];
  if (k < 1 || c.stride[i] < 1 || c.dilation[i] < 1 || c.pad_low[i] < 0 || c.pad_high[i] < 0)
    return fmt::format("spatial axis {} has a window that is none", i);
  const int64_t room = x + c.pad_low[i] + c.pad_high[i] - c.dilation[i] * (k - 1) - 1;
  if (room < 0 || y != room / c.stride[i] + 1)
    return fmt::format("spatial axis {} of y has {} points, and {} follow", i, y,
                       room < 0 ? 0 : room / c.stride[i] + 1);
  return "";
}

}  // namespace

int64_t conv_bytes(const ConvTensor& tensor) {
  int64_t last = 0;
  for (size_t i = 0; i < tensor.dims.size(); ++i)
    last += std::max<int64_t>(tensor.dims[i] - 1, 0) * tensor.strides[i];
  return (last + 1) * ir::dtype_size(tensor.dtype);
}

std::vector<int64_t> conv_operand_bytes(const ConvCall& c) {
  std::vector<int64_t> out{conv_bytes(c.x), conv_bytes(c.w), conv_bytes(c.y)};
  for (int i = 0; i < c.step_count; ++i) {
    const ConvStep step = c.steps[static_cast<size_t>(i)];
    if (step == ConvStep::add_residual) out.push_back(conv_bytes(conv_result(c)));
    else if (takes_operand(step)) out.push_back(conv_result(c).dims[1] * ir::dtype_size(c.compute));
  }
  if (c.workspace > 0) out.push_back(c.workspace);
  return out;
}

Axes channels_last_strides(const Axes& dims, int spatial) {
  Axes strides{};
  strides[1] = 1;
  int64_t at = dims[1];
  for (auto i = static_cast<size_t>(spatial) + 2; i-- > 2;) {
    strides[i] = at;
    at *= dims[i];
  }
  strides[0] = at;
  return strides;
}

std::string conv_error(const ConvCall& c) {
  if (c.spatial < 1 || c.spatial > conv_spatial_most) return "it has no 1 to 3 spatial axes";
  if (c.step_count < 0 || c.step_count > conv_steps_most) return "it has too many steps";
  if (c.workspace < 0) return "its workspace is negative";
  for (const ConvTensor* t : {&c.x, &c.w, &c.y}) {
    for (int i = 0; i < c.spatial + 2; ++i)
      if (t->dims[static_cast<size_t>(i)] < 1) return "an extent is not positive";
    if (overlaps(*t, c.spatial)) return "elements share their place";
  }
  if (c.groups < 1 || c.x.dims[1] != c.w.dims[1] * c.groups || c.y.dims[1] != c.w.dims[0] ||
      c.w.dims[0] % c.groups != 0)
    return "channels do not follow from the groups";
  if (c.x.dims[0] != c.y.dims[0]) return "x and y have two batches";
  for (int i = 0; i < c.spatial; ++i)
    if (std::string wrong = axis_error(c, static_cast<size_t>(i)); !wrong.empty()) return wrong;
  return dtype_error(c);
}

std::string text(const ConvCall& c) {
  std::string out = fmt::format("conv {}", direction_names[static_cast<size_t>(c.direction)]);
  out +=
      tensor_text("x", c.x, c.spatial) + tensor_text("w", c.w, c.spatial) + tensor_text("y", c.y, c.spatial);
  const auto low = first(c.pad_low, c.spatial), high = first(c.pad_high, c.spatial);
  out += axes_text("stride", first(c.stride, c.spatial), 1);
  if (std::equal(low.begin(), low.end(), high.begin())) out += axes_text("pad", low, 0);
  else out += fmt::format(" pad {}..{}", fmt::join(low, ","), fmt::join(high, ","));
  out += axes_text("dilation", first(c.dilation, c.spatial), 1);
  if (c.groups != 1) out += fmt::format(" groups {}", c.groups);
  if (c.tf32) out += " tf32";
  if (c.exact) out += " exact";
  for (int i = 0; i < c.step_count; ++i)
    out += fmt::format(" {}", step_names[static_cast<size_t>(c.steps[static_cast<size_t>(i)])]);
  return out;
}

}  // namespace espalier::target
