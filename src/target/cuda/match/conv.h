#pragma once
// Convolutions as records of library calls.
#include <variant>
#include <vector>

#include "target/cuda/match/ask.h"

namespace espalier::target::cuda {

/// The most workspace that a convolution may take.
inline constexpr int64_t conv_workspace = int64_t{32} << 20;

struct ConvOptions {
  bool exact = false;  ///< round where the body says, by direct algorithms
  bool tf32 = false;   ///< f32 operands may be rounded to TF32
  int64_t workspace = conv_workspace;
  /// Bytes by which the address of each operand, then of the result, is known to divide; those not named: 16. What lies elsewhere is
  /// copied first.
  std::vector<int64_t> alignment{};
  AskLibrary ask = assume;
};

/// The records for `body`, whose root is a convolution or one of its gradients, or why there are none. A gradient in f32 of operands in
/// a lower dtype is no call of cuDNN's: from bf16 it is computed in bf16 and widened (f32 is kept inside the sum, and lost where it is
/// stored); with `exact`, and from f16, whose range is smaller, the operands are widened, which TF32 holds exactly.
std::variant<CallList, kernel::Refusal> conv_calls(const ir::Graph& body, const ConvOptions& options = {});

}  // namespace espalier::target::cuda
