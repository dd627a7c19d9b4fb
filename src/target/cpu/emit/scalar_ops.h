#pragma once
// Scalar programs, conversions and element types as IR. In registers a bool is i1, bf16 and f16 are f32, integers have their own
// width; in memory a bool is a byte and bf16 two.
#include "ir/scalar.h"
#include "target/cpu/emit/vector_math.h"

namespace espalier::target::cpu {

/// The element type of `dtype` in registers, and in memory.
IrType register_type(ir::Dtype dtype);
IrType memory_type(ir::Dtype dtype);

class ScalarOps {
 public:
  ScalarOps(IrWriter& writer, const CpuFeatures& features)
      : w_(writer), features_(features), math_(writer, features) {}

  /// `code` over operands of dtype `of` (select: of the choices; bools among them are converted where numbers are expected).
  /// `brief`: the result is rounded to bf16 or f16 at once.
  Val scalar(ir::ScalarCode code, ir::Dtype of, std::vector<Val> x, bool brief);
  /// Array::cast: floats round to even, floats to integers truncate and saturate (NaN gives 0), integers wrap. A cast to bf16 or
  /// f16 rounds the f32 that stands for it.
  Val cast(const Val& x, ir::Dtype from, ir::Dtype to);
  /// What memory holds -> a register, and back (rounding f32 for bf16 and f16).
  Val from_memory(const Val& x, ir::Dtype dtype);
  Val to_memory(const Val& x, ir::Dtype dtype);

  /// Larger of two, as `code` max: NaN if either is NaN.
  Val extreme(bool max, ir::Dtype of, const Val& a, const Val& b);

 private:
  Val unary(ir::ScalarCode code, ir::Dtype of, const Val& x, bool brief);
  Val float_unary(ir::ScalarCode code, const Val& x, bool brief);
  Val binary(ir::ScalarCode code, ir::Dtype of, const Val& x, const Val& y);
  Val compare(ir::ScalarCode code, ir::Dtype of, const Val& x, const Val& y);
  Val integer_binary(ir::ScalarCode code, bool is_signed, const Val& x, const Val& y);
  Val integer_divide(bool remainder, bool is_signed, const Val& x, const Val& y);
  Val float_pow(const Val& x, const Val& y);
  Val library(const char* name, std::vector<Val> x);
  Val float_to_integer(const Val& x, ir::Dtype to);
  Val round_bf16(const Val& x);
  Val as_number(const Val& x, ir::Dtype of);

  IrWriter& w_;
  const CpuFeatures& features_;
  VectorMath math_;
};

}  // namespace espalier::target::cpu
