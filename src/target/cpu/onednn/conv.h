#pragma once
// Convolution in one to three spatial axes, its data gradient (also the transposed convolution) and its weight gradient.
#include "target/cpu/onednn/call.h"

namespace espalier::target::cpu::onednn {

enum class ConvKind : uint8_t { forward, data_grad, weight_grad };

/// How an activation lies in memory.
enum class Layout : uint8_t {
  channels_last,   ///< N, spatial..., C
  channels_first,  ///< N, C, spatial...: only worth it for the few channels of an image
  blocked,         ///< N, C/block, spatial..., block
  batch_blocked,  ///< N/block, spatial..., C, block: not the library's, of our own kernels (batch_conv_kernel.h)
};

enum class Winograd : uint8_t {
  none,
  f2,  ///< F(2x2, 3x3): 2.25 times fewer multiplications; only for constant weights
  f4,  ///< F(4x4, 3x3): 4 times fewer; largest error about 3e-6 of the largest value
};

struct ConvSpec {
  ConvKind kind = ConvKind::forward;
  int64_t batch = 1, channels = 1, features = 1, groups = 1;  ///< N, C of x, O of y
  std::vector<int64_t> in, kernel, out;                       ///< spatial dims of x, w, y
  std::vector<int64_t> stride, pad_low, pad_high, dilation;
  Layout x_layout = Layout::channels_last, y_layout = Layout::channels_last;
  int64_t block = 16;                  ///< of blocked layouts: 16 with AVX-512, 8 without
  ir::Dtype compute = ir::Dtype::f32;  ///< of the activation operands: f32 or bf16 (f32 accumulation)
  ir::Dtype weights =
      ir::Dtype::f32;  ///< of w as it is given, or of dw as it is wanted; always O, kernel..., C/groups
  ir::Dtype result = ir::Dtype::f32;   ///< of y or dx: f32, or bf16 where compute is
  Winograd winograd = Winograd::none;  ///< f32, 3x3, stride 1, dilation 1, one group, blocked by 16
  bool constant_weights = false;       ///< w is packed once; a run does not read it
  bool bias = false;                   ///< one f32 per channel of the result is added (not for weight_grad)
  std::vector<Post> posts{};           ///< not for weight_grad
};

/// The layouts of a convolution's two activations (block: spec.block) and the algorithm for them.
struct ConvAdvice {
  Layout x_layout = Layout::channels_last, y_layout = Layout::channels_last;
  bool blocked = false;  ///< both sides
  Winograd winograd = Winograd::none;
};

#if ESPALIER_ONEDNN
/// The call for `spec`. Declined where the library has no fast kernel; never throws for a well-formed spec.
/// Methods: direct convolution, and Winograd's (Lavin and Gray, 2016, arXiv:1509.09308).
PreparedCall prepare_conv(const ConvSpec& spec);
/// How a convolution of this shape should be computed for speed. `exact` forbids Winograd.
ConvAdvice advise_conv(const ConvSpec& spec, bool exact);
/// advise_conv, but channels-last where the library turns out to have no direct kernel for the blocked layouts; where that is in
/// doubt a primitive is made to find out.
ConvAdvice advise_layouts(const ConvSpec& spec);
#else
inline PreparedCall prepare_conv(const ConvSpec&) { return Declined{"built without oneDNN"}; }
inline ConvAdvice advise_conv(const ConvSpec&, bool) { return {}; }
inline ConvAdvice advise_layouts(const ConvSpec&) { return {}; }
#endif

}  // namespace espalier::target::cpu::onednn
