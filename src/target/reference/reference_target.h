#pragma once
// The reference as a target: every kernel is the interpreter. It runs a program op by op, slowly, and is what the lists of
// other targets end with. Its kernels allocate.
#include "target/interface.h"

namespace espalier::target::reference {

const Target& reference_target();

/// The kernel that evaluates `node`, for the end of another target's list.
std::unique_ptr<Kernel> reference_kernel(const ir::Node& node);

}  // namespace espalier::target::reference
