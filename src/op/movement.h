#pragma once
// Ops that move elements and compute nothing.
#include "base/export.h"
#include "ir/op_def.h"

namespace espalier::op {

using ir::Value;

struct ReshapeAttrs {
  ir::Dims dims;
  bool operator==(const ReshapeAttrs&) const = default;
  static constexpr auto fields() { return std::tuple{ir::field("dims", &ReshapeAttrs::dims)}; }
};
struct TransposeAttrs {
  std::vector<int64_t> perm;  ///< result axis i is operand axis perm[i]
  bool operator==(const TransposeAttrs&) const = default;
  static constexpr auto fields() { return std::tuple{ir::field("perm", &TransposeAttrs::perm)}; }
};
struct BroadcastAttrs {
  ir::Dims dims;  ///< of the result
  std::vector<int64_t>
      axes;  ///< result axis of each operand axis, rising; the dims there are equal (no stretching of 1)
  bool operator==(const BroadcastAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("dims", &BroadcastAttrs::dims), ir::field("axes", &BroadcastAttrs::axes)};
  }
};
struct SliceAttrs {
  std::vector<int64_t> start;
  ir::Dims size;
  std::vector<int64_t> step;  ///< >= 1
  bool operator==(const SliceAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("start", &SliceAttrs::start), ir::field("size", &SliceAttrs::size),
                      ir::field("step", &SliceAttrs::step)};
  }
};
struct PadAttrs {
  std::vector<int64_t> low, high, interior;  ///< per axis, >= 0; interior: elements put between neighbours
  bool operator==(const PadAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("low", &PadAttrs::low), ir::field("high", &PadAttrs::high),
                      ir::field("interior", &PadAttrs::interior)};
  }
};
struct AxisAttrs {
  int64_t axis = 0;
  bool operator==(const AxisAttrs&) const = default;
  static constexpr auto fields() { return std::tuple{ir::field("axis", &AxisAttrs::axis)}; }
};
struct AxesAttrs {
  std::vector<int64_t> axes;
  bool operator==(const AxesAttrs&) const = default;
  static constexpr auto fields() { return std::tuple{ir::field("axes", &AxesAttrs::axes)}; }
};

ESPALIER_API extern const ir::OpDef reshape_op, transpose_op, broadcast_to_op, slice_op, pad_op, concat_op,
    reverse_op, dim_size_op;

/// Same elements in row-major order, other dims; the counts must agree.
ESPALIER_API Value reshape(Value x, ir::Dims dims);
ESPALIER_API Value transpose(Value x, std::vector<int64_t> perm);
/// Place operand axis i at result axis axes[i] and repeat along the others.
ESPALIER_API Value broadcast_in(Value x, ir::Dims dims, std::vector<int64_t> axes);
/// NumPy's rule: trailing axes align, dims of 1 stretch. UserError where it does not apply.
ESPALIER_API Value broadcast_to(Value x, const ir::Dims& dims);
/// The dims two operands broadcast to by NumPy's rule.
ESPALIER_API ir::Dims broadcast_dims(const ir::Dims& a, const ir::Dims& b);
ESPALIER_API Value slice(Value x, std::vector<int64_t> start, ir::Dims size, std::vector<int64_t> step = {});
/// Indices [from, from+size) of one axis.
ESPALIER_API Value slice_axis(Value x, int64_t axis, int64_t from, ir::Dim size);
/// `fill` is a scalar (rank 0) of x's dtype.
ESPALIER_API Value pad(Value x, Value fill, std::vector<int64_t> low, std::vector<int64_t> high,
                       std::vector<int64_t> interior = {});
ESPALIER_API Value concat(std::vector<Value> parts, int64_t axis);
ESPALIER_API Value reverse(Value x, std::vector<int64_t> axes);
/// The product of x's dims at `axes` as a scalar of `dtype`: a constant once symbols are bound.
ESPALIER_API Value dim_size(Value x, std::vector<int64_t> axes, ir::Dtype dtype);
struct DimSizeAttrs {
  std::vector<int64_t> axes;
  ir::Dtype dtype = ir::Dtype::f32;
  bool operator==(const DimSizeAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("axes", &DimSizeAttrs::axes), ir::field("dtype", &DimSizeAttrs::dtype)};
  }
};

}  // namespace espalier::op
