#pragma once
// Scalar instructions as expressions of the device's language, over the names of port/kernel_port.h.
#include <string>
#include <vector>

#include "ir/scalar.h"

namespace espalier::target::cuda {

using ir::Dtype;

/// The type of a dtype in registers ("float" for bf16) and in memory ("unsigned short" for bf16).
const char* register_type(Dtype dtype);
const char* memory_type(Dtype dtype);

/// An expression and what it is in registers. Names and literals only, so that it may be written more than once.
struct Val {
  std::string text;
  Dtype dtype = Dtype::f32;
  bool below_2_32 = false;  ///< an i64 that is never negative and fits 32 bits
};

/// A number of `dtype`; `integer` for integers and bools.
Val constant(Dtype dtype, double value, int64_t integer);
/// What memory holds -> a register, and back (rounding for bf16 and f16). `text` of the memory's type.
std::string from_memory(const std::string& text, Dtype dtype);
std::string to_memory(const std::string& text, Dtype dtype);
/// As Array::cast does.
std::string cast(const Val& x, Dtype to);
/// `code` over operands of dtype `of` (select: of the choices; bools among them stand for 0 and 1).
Val scalar(ir::ScalarCode code, Dtype of, const std::vector<Val>& operands);

}  // namespace espalier::target::cuda
