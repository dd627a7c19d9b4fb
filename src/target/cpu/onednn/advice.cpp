#include <algorithm>

#include "target/cpu/onednn/conv.h"

namespace espalier::target::cpu::onednn {

namespace {

bool all_equal(const std::vector<int64_t>& values, int64_t wanted) {
  return std::ranges::all_of(values, [&](int64_t v) { return v == wanted; });
}

/// Shapes whose blocked kernels the library may lack: it is asked for these, at the cost of making the primitive.
bool is_doubtful(const ConvSpec& s) {
  if (s.block == 8) return true;
  for (size_t d = 0; d < s.kernel.size(); ++d)
    if (s.in[d] < s.kernel[d] || s.stride[d] > 2) return true;
  return false;
}

bool has_direct_kernel(ConvSpec s, const ConvAdvice& advice) {
  s.x_layout = advice.x_layout;
  s.y_layout = advice.y_layout;
  s.winograd = Winograd::none;
  s.bias = false;
  s.posts.clear();
  return std::holds_alternative<std::unique_ptr<Call>>(prepare_conv(s));
}

}  // namespace

ConvAdvice advise_conv(const ConvSpec& s, bool exact) {
  ConvAdvice advice;
  // The blocked kernels do not serve padding beyond what a convolution needs that keeps its size, nor, with AVX2, dilation.
  bool served = s.block == 16 || all_equal(s.dilation, 1);
  for (size_t d = 0; d < s.kernel.size(); ++d)
    served = served && 2 * std::max(s.pad_low[d], s.pad_high[d]) <= s.dilation[d] * (s.kernel[d] - 1) + 1;
  const bool y = served && s.features % s.block == 0 && s.groups == 1;
  advice.blocked = y && s.channels % s.block == 0;
  if (advice.blocked) advice.x_layout = Layout::blocked;
  else if (y && s.channels <= 3 && s.kind != ConvKind::data_grad) advice.x_layout = Layout::channels_first;
  if (advice.x_layout != Layout::channels_last) advice.y_layout = Layout::blocked;
  const bool shape = s.in.size() == 2 && all_equal(s.kernel, 3) && all_equal(s.stride, 1) &&
                     all_equal(s.dilation, 1) && s.groups == 1 && std::ranges::max(s.pad_low) <= 1 &&
                     std::ranges::max(s.pad_high) <= 1;
  if (exact || !shape || !advice.blocked || s.block != 16 || s.compute != ir::Dtype::f32) return advice;
  if (s.kind == ConvKind::data_grad && (s.bias || !s.posts.empty())) return advice;
  // Weights in transformed form are 4 (F(4x4)) or 1.8 times as large: few tiles do not pay for reading them, nor, where
  // they are transformed in every run, for the transform.
  const int64_t tiles = s.batch * ((s.out[0] + 3) / 4) * ((s.out[1] + 3) / 4);
  if (s.kind == ConvKind::weight_grad) {
    if (tiles >= 16) advice.winograd = Winograd::f4;
  } else if (s.constant_weights && s.kind == ConvKind::forward) {
    advice.winograd = tiles < 2 ? Winograd::none : tiles < 12 ? Winograd::f2 : Winograd::f4;
  } else if (tiles >= 32) {
    advice.winograd = Winograd::f4;
  }
  return advice;
}

ConvAdvice advise_layouts(const ConvSpec& s) {
  const ConvAdvice advice = advise_conv(s, false);
  const bool blocked = advice.y_layout == Layout::blocked;
  return blocked && is_doubtful(s) && !has_direct_kernel(s, advice) ? ConvAdvice{} : advice;
}

}  // namespace espalier::target::cpu::onednn
