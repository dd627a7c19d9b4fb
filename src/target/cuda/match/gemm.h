#pragma once
// dot, alone or with what follows it, as a call of cuBLASLt.
#include "target/cuda/match/ask.h"

namespace espalier::target::cuda {

struct GemmOptions {
  bool exact = false;              ///< nothing that computes less exactly than the body says
  bool tf32 = false;               ///< f32 operands may be rounded to tf32
  std::span<const char> constant;  ///< by inputs of the body: is it a constant of the program?
  std::span<const int64_t>
      alignment{};  ///< bytes by which the inputs' and the result's addresses divide; those not named: 64
  AskLibrary ask = assume;
};

/// The most scratch of a call, for cuBLASLt to split long sums.
inline constexpr int64_t gemm_workspace = int64_t{32} << 20;

/// The matrix product that `body` is, or why it is none. f32, f64, bf16, f16 (with results of their own dtype, or f32 of the last two) and
/// i8 (with results of i32), any layout of any contraction: operands whose axes no strides can walk are transposed into scratch
/// first; what is not aligned is copied. What may follow, in this order: a number for all (alpha), a bias along the last axis and a residual of the result's dtype
/// (beta), in either order, relu or gelu in its tanh form, a cast from f32 to the operands' dtype, wherever it stands; or, behind a number
/// alone, relu's gradient by a mask of bits. A second result may be gelu's operand, relu's mask, or an operand of the product summed over what is
/// contracted (the gradient of a bias beside that of its weights). A f32 bias of a narrower result is rounded to its dtype, but not where `exact`.
/// cuBLASLt's relu loses NaN, so it is never exact, and for weights that are trained only with its mask and not in f16; its gelu is not exact either.
std::variant<CallList, kernel::Refusal> gemm_calls(const ir::Graph& body, const GemmOptions& options);

}  // namespace espalier::target::cuda
