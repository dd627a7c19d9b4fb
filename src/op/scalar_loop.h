#pragma once
// Elementwise ops over arrays: the reference meaning of every op with a scalar body.
#include <span>

#include "ir/op_def.h"

namespace espalier::op {

/// The result, of type `type` (static), of an op with a scalar body over operands of equal dims.
ir::Array run_scalar(const ir::Scalar& scalar, std::span<const ir::Array> operands, const ir::Type& type);

}  // namespace espalier::op
