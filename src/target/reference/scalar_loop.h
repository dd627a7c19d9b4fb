#pragma once
// Elementwise ops over arrays.
#include <span>

#include "ir/op_def.h"

namespace espalier::target::reference {

/// The result, of type `type`, of an op with a scalar body over operands of equal dims.
ir::Array run_scalar(const ir::Scalar& scalar, std::span<const ir::Array> operands, const ir::Type& type);

}  // namespace espalier::target::reference
