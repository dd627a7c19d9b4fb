#pragma once
// dot with any contraction, and the three convolutions, which are closed under differentiation.
#include "base/export.h"
#include "ir/op_def.h"

namespace espalier::op {

using ir::Value;

struct DotAttrs {
  std::vector<int64_t> batch_a, batch_b;        ///< axes walked together
  std::vector<int64_t> contract_a, contract_b;  ///< axes summed over
  ir::Dtype out = ir::Dtype::f32;  ///< of the result: the operands' dtype, or f32 (i32 for i8 and u8)
  bool operator==(const DotAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("batch_a", &DotAttrs::batch_a), ir::field("batch_b", &DotAttrs::batch_b),
                      ir::field("contract_a", &DotAttrs::contract_a),
                      ir::field("contract_b", &DotAttrs::contract_b), ir::field("out", &DotAttrs::out)};
  }
};

/// Of conv, conv_data_grad and conv_weight_grad. Vectors have one entry per spatial axis (1 to 3).
/// x: N, spatial..., C.  w: O, kernel..., C/groups.  y: N, out spatial..., O with
/// out = (in + pad_low + pad_high - dilation*(kernel-1) - 1) / stride + 1.
struct ConvAttrs {
  std::vector<int64_t> stride, pad_low, pad_high, dilation;
  int64_t groups = 1;
  std::vector<int64_t> spatial;    ///< conv_data_grad: in; conv_weight_grad: kernel; conv: empty
  ir::Dtype out = ir::Dtype::f32;  ///< as in DotAttrs
  bool operator==(const ConvAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("stride", &ConvAttrs::stride),
                      ir::field("pad_low", &ConvAttrs::pad_low),
                      ir::field("pad_high", &ConvAttrs::pad_high),
                      ir::field("dilation", &ConvAttrs::dilation),
                      ir::field("groups", &ConvAttrs::groups),
                      ir::field("spatial", &ConvAttrs::spatial),
                      ir::field("out", &ConvAttrs::out)};
  }
};

ESPALIER_API extern const ir::OpDef dot_op, conv_op, conv_data_grad_op, conv_weight_grad_op;

/// The axes of a dot's operand that are neither batch nor contracted, rising.
ESPALIER_API std::vector<int64_t> free_axes(int rank, const std::vector<int64_t>& batch,
                                            const std::vector<int64_t>& contract);
/// Result axes: batch, then a's free axes, then b's. Accumulates in f32 (f64 for f64, i32 wrapping for i8/u8, i64 else).
ESPALIER_API Value dot(Value a, Value b, DotAttrs attrs);
/// a [..., M, K] times b [K, N], or [..., K, N] with equal leading dims (NumPy's matmul on ranks >= 2, without stretching).
ESPALIER_API Value matmul(Value a, Value b);
ESPALIER_API Value conv(Value x, Value w, ConvAttrs attrs);
/// The gradient of conv with respect to x: (dy, w) -> dx; also the transposed convolution.
ESPALIER_API Value conv_data_grad(Value dy, Value w, ConvAttrs attrs);
/// The gradient of conv with respect to w: (x, dy) -> dw.
ESPALIER_API Value conv_weight_grad(Value x, Value dy, ConvAttrs attrs);
/// The attributes of contraction `n` with results of dtype `out`.
ir::Attrs with_result_dtype(const ir::Node& n, ir::Dtype out);
/// Stride 1, no padding, dilation 1, one group, result dtype = x's.
ESPALIER_API ConvAttrs plain_conv(int spatial_axes, ir::Dtype out);

}  // namespace espalier::op
