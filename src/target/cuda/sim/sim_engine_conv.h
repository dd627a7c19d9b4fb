#pragma once
// Convolutions of the simulated device: computed plainly, from the record and the addresses alone.
#include <cstdint>
#include <span>
#include <vector>

#include "target/conv_call.h"

namespace espalier::target::cuda::sim {

/// What may be touched from an operand's address on.
struct Extent {
  void* data = nullptr;
  int64_t bytes = 0;
};

/// Run `call` over its operands: sums in the compute dtype, in one order. InternalError, with the operand, where the record is no
/// convolution, an operand is too small or not 16-byte aligned, or the result shares memory with what is read.
void run_conv(const ConvCall& call, std::span<const Extent> operands);

}  // namespace espalier::target::cuda::sim
