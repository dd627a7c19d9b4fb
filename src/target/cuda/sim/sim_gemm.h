#pragma once
// Matrix products as the record says, plainly, in memory of the host: from the record and addresses alone, in cuBLASLt's
// column-major meaning, knowing nothing of the nodes they come from.
#include <functional>
#include <span>
#include <string>

#include "target/call.h"
#include "target/device.h"

namespace espalier::target::cuda::sim {

/// What cuBLASLt would not take in `call`: sizes, leading dimensions, strides, dtypes; "" where it is right.
std::string refuse_gemm(const GemmCall& call);

/// Are `bytes` from `at` on all inside one allocation?
using Holds = std::function<bool(Address at, int64_t bytes)>;

/// Do what `call` says. InternalError: what refuse_gemm() says, operands that are missing or not aligned, or one that `holds` does not
/// hold whole.
void run_gemm(const GemmCall& call, std::span<const Address> operands, const Holds& holds);

}  // namespace espalier::target::cuda::sim
