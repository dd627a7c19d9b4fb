#include <algorithm>

#include "target/cpu/onednn/conv.h"

namespace espalier::target::cpu::onednn {

namespace {

bool all_equal(const std::vector<int64_t>& values, int64_t wanted) {
  return std::ranges::all_of(values, [&](int64_t v) { return v == wanted; });
}

}  // namespace

ConvAdvice advise_conv(const ConvSpec& s, bool exact) {
  ConvAdvice advice;
  // The blocked kernels do not serve padding beyond what a convolution needs that keeps its size, nor, with AVX2, dilation.
  bool served = s.block == 16 || all_equal(s.dilation, 1);
  for (size_t d = 0; d < s.kernel.size(); ++d)
    served = served && 2 * std::max(s.pad_low[d], s.pad_high[d]) <= s.dilation[d] * (s.kernel[d] - 1) + 1;
  advice.blocked = served && s.channels % s.block == 0 && s.features % s.block == 0 && s.groups == 1;
  const bool shape = s.in.size() == 2 && all_equal(s.kernel, 3) && all_equal(s.stride, 1) &&
                     all_equal(s.dilation, 1) && s.groups == 1 && std::ranges::max(s.pad_low) <= 1 &&
                     std::ranges::max(s.pad_high) <= 1;
  if (exact || !shape || !advice.blocked || s.block != 16 || s.compute != ir::Dtype::f32) return advice;
  if (s.kind == ConvKind::data_grad && (s.bias || !s.posts.empty())) return advice;
  // The transform of the weights costs as much as the products of some tens of 4x4 tiles; it is free for constant weights.
  const int64_t tiles = s.batch * ((s.out[0] + 3) / 4) * ((s.out[1] + 3) / 4);
  if (s.kind == ConvKind::weight_grad) advice.winograd = tiles >= 16 ? Winograd::f4 : Winograd::none;
  else if (s.constant_weights && s.kind == ConvKind::forward)
    advice.winograd = tiles < 24 ? Winograd::f2 : Winograd::f4;
  else if (tiles >= 32) advice.winograd = Winograd::f4;
  return advice;
}

}  // namespace espalier::target::cpu::onednn
