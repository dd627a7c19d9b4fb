#pragma once
// A composite of 16-bit floats computes in f32 and rounds once at its end.
#include "op/elementwise.h"

namespace espalier::op {

/// f32 for bf16 and f16, else the dtype itself.
constexpr ir::Dtype wide_dtype(ir::Dtype d) {
  return d == ir::Dtype::bf16 || d == ir::Dtype::f16 ? ir::Dtype::f32 : d;
}
/// The value in its wide dtype.
inline Value widened(const Value& v) { return cast(v, wide_dtype(v.dtype())); }

}  // namespace espalier::op
