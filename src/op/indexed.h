#pragma once
// Ops whose positions come from data. Indices are i32 or i64; one out of range is clamped to the nearest valid one by
// gather and ignored by scatter_add and one_hot (programs check the declared range of their integer inputs on entry).
#include "base/export.h"
#include "op/movement.h"

namespace espalier::op {

struct OneHotAttrs {
  int64_t depth = 0;
  ir::Dtype dtype = ir::Dtype::f32;
  bool operator==(const OneHotAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("depth", &OneHotAttrs::depth), ir::field("dtype", &OneHotAttrs::dtype)};
  }
};
struct IotaAttrs {
  ir::Type type;
  int64_t axis = 0;
  bool operator==(const IotaAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("type", &IotaAttrs::type), ir::field("axis", &IotaAttrs::axis)};
  }
};
struct ScatterAttrs {
  int64_t axis = 0;
  bool operator==(const ScatterAttrs&) const = default;
  static constexpr auto fields() { return std::tuple{ir::field("axis", &ScatterAttrs::axis)}; }
};

ESPALIER_API extern const ir::OpDef gather_op, gather_along_op, scatter_add_op, scatter_add_along_op,
    one_hot_op, iota_op;

/// Rows of x along `axis`: result dims = x[:axis] + indices + x[axis+1:].
ESPALIER_API Value gather(Value x, Value indices, int64_t axis);
/// take_along_axis: indices has x's rank, equal dims but at `axis`.
ESPALIER_API Value gather_along(Value x, Value indices, int64_t axis);
/// base plus updates added at the indices, the transpose of gather; equal indices add up in row-major order.
ESPALIER_API Value scatter_add(Value base, Value indices, Value updates, int64_t axis);
ESPALIER_API Value scatter_add_along(Value base, Value indices, Value updates, int64_t axis);
/// indices.dims + [depth] of `dtype`: 1 where the last axis equals the index, else 0.
ESPALIER_API Value one_hot(Value indices, int64_t depth, ir::Dtype dtype);
/// 0, 1, 2, ... along `axis`, repeated along the others.
ESPALIER_API Value iota(ir::Type type, int64_t axis);

}  // namespace espalier::op
