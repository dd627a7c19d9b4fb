#pragma once
// A convolution as a device's library runs it, as plain data.
#include <array>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "ir/dtype.h"

namespace espalier::target {

/// What is computed: y from x and w, or the gradient of x (also the transposed convolution) from y and w, or that of w from x and y.
enum class ConvDirection : uint8_t { forward, data_grad, weight_grad };

/// What is done to the result, in the compute dtype, before it is rounded and stored.
enum class ConvStep : uint8_t {
  add_channel,   ///< plus a vector with an entry for each channel of the result
  mul_channel,   ///< times one
  add_residual,  ///< plus a tensor of the result's dtype, dims and strides
  relu,          ///< max(., 0)
  sigmoid,
  tanh,
};
/// Does the step have an operand of its own?
constexpr bool takes_operand(ConvStep s) { return s <= ConvStep::add_residual; }

inline constexpr int64_t conv_alignment = 16;  ///< bytes
inline constexpr int conv_spatial_most = 3, conv_steps_most = 6;

/// Extents and strides in elements. x and y: batch, channels, spatial...; w: features, channels / groups, kernel...; what is past the
/// convolution's spatial axes is 0.
struct ConvTensor {
  ir::Dtype dtype = ir::Dtype::f32;
  std::array<int64_t, conv_spatial_most + 2> dims{}, strides{};
  bool operator==(const ConvTensor&) const = default;
};

/// y[n, f, o] = sum over c and k of x[n, c, o * stride - pad_low + k * dilation] * w[f, c, k], or one of its two transposes.
/// Operands: x, w, y (the direction says which is the result), then those of the steps in order (vectors are of the compute dtype and
/// contiguous), then the workspace where it is not empty. All are
/// at multiples of conv_alignment.
struct ConvCall {
  ConvDirection direction = ConvDirection::forward;
  int8_t spatial = 2;  ///< axes, 1 to 3
  int8_t step_count = 0;
  bool tf32 = false;   ///< may f32 operands be rounded to TF32?
  bool exact = false;  ///< only direct algorithms: no Winograd, no transforms
  std::array<ConvStep, conv_steps_most> steps{};
  ir::Dtype compute = ir::Dtype::f32;  ///< of sums and steps
  ConvTensor x, w, y;
  std::array<int64_t, conv_spatial_most> stride{}, pad_low{}, pad_high{}, dilation{};
  int64_t groups = 1;
  int64_t workspace = 0;  ///< bytes, as many as any algorithm may take
  bool operator==(const ConvCall&) const = default;
};
static_assert(std::is_trivially_copyable_v<ConvCall>);

/// The tensor that `call` writes.
inline const ConvTensor& conv_result(const ConvCall& call) {
  return call.direction == ConvDirection::forward     ? call.y
         : call.direction == ConvDirection::data_grad ? call.x
                                                      : call.w;
}
/// Bytes from its first element to its last.
int64_t conv_bytes(const ConvTensor& tensor);
/// Where the first operand of the steps stands; how many operands `call` has.
inline constexpr int conv_first_step_operand = 3;
inline int conv_operands(const ConvCall& call) {
  int count = conv_first_step_operand + (call.workspace > 0);
  for (int i = 0; i < call.step_count; ++i) count += takes_operand(call.steps[static_cast<size_t>(i)]);
  return count;
}
/// Bytes that each operand of a convolution that is one must have.
std::vector<int64_t> conv_operand_bytes(const ConvCall& call);
/// The strides of dims that lie channels-last, without gaps.
std::array<int64_t, conv_spatial_most + 2> channels_last_strides(
    const std::array<int64_t, conv_spatial_most + 2>& dims, int spatial);
/// Why no convolution is like that, or "": extents that do not follow from each other, dtypes without meaning, elements that share
/// their place.
std::string conv_error(const ConvCall& call);

/// "conv forward x bf16[32,64,56,56] w bf16[64,64,3,3] y bf16[32,64,56,56] pad 1,1 add_channel relu". Strides, groups and the rest
/// are there where they are not what they mostly are; the workspace is not.
std::string text(const ConvCall& call);

}  // namespace espalier::target
