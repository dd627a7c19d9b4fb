#pragma once
// Elementwise ops: operands of one type (dims and dtype) unless stated; results of that type, comparisons give bool.
#include "base/export.h"
#include "ir/op_def.h"

namespace espalier::op {

using ir::Value;

ESPALIER_API extern const ir::OpDef neg_op, abs_op, sign_op, exp_op, expm1_op, log_op, log1p_op, sqrt_op,
    rsqrt_op, square_op, reciprocal_op, sin_op, cos_op, tan_op, atan_op, tanh_op, erf_op, sigmoid_op,
    softplus_op, relu_op, floor_op, ceil_op, round_op, trunc_op, logical_not_op, is_nan_op;
ESPALIER_API extern const ir::OpDef add_op, sub_op, mul_op, div_op, rem_op, pow_op, max_op, min_op, atan2_op,
    eq_op, ne_op, lt_op, le_op, gt_op, ge_op, logical_and_op, logical_or_op, logical_xor_op, shift_left_op,
    shift_right_op;
ESPALIER_API extern const ir::OpDef select_op, clamp_op, cast_op;

struct CastAttrs {
  ir::Dtype dtype = ir::Dtype::f32;
  bool operator==(const CastAttrs&) const = default;
  static constexpr auto fields() { return std::tuple{ir::field("dtype", &CastAttrs::dtype)}; }
};

// Builders. Binary ones take operands of equal type: broadcasting is the business of tensor/ and of broadcast_to.
ESPALIER_API Value neg(Value x);
ESPALIER_API Value abs(Value x);
ESPALIER_API Value sign(Value x);
ESPALIER_API Value exp(Value x);
ESPALIER_API Value expm1(Value x);
ESPALIER_API Value log(Value x);
ESPALIER_API Value log1p(Value x);
ESPALIER_API Value sqrt(Value x);
ESPALIER_API Value rsqrt(Value x);
ESPALIER_API Value square(Value x);
ESPALIER_API Value reciprocal(Value x);
ESPALIER_API Value sin(Value x);
ESPALIER_API Value cos(Value x);
ESPALIER_API Value tan(Value x);
ESPALIER_API Value atan(Value x);
ESPALIER_API Value tanh(Value x);
ESPALIER_API Value erf(Value x);
ESPALIER_API Value sigmoid(Value x);
ESPALIER_API Value softplus(Value x);
ESPALIER_API Value relu(Value x);
ESPALIER_API Value floor(Value x);
ESPALIER_API Value ceil(Value x);
ESPALIER_API Value round(Value x);
ESPALIER_API Value trunc(Value x);
ESPALIER_API Value logical_not(Value x);
ESPALIER_API Value is_nan(Value x);
ESPALIER_API Value add(Value a, Value b);
ESPALIER_API Value sub(Value a, Value b);
ESPALIER_API Value mul(Value a, Value b);
ESPALIER_API Value div(Value a, Value b);
ESPALIER_API Value rem(Value a, Value b);
ESPALIER_API Value pow(Value a, Value b);
ESPALIER_API Value max(Value a, Value b);
ESPALIER_API Value min(Value a, Value b);
ESPALIER_API Value atan2(Value a, Value b);
ESPALIER_API Value eq(Value a, Value b);
ESPALIER_API Value ne(Value a, Value b);
ESPALIER_API Value lt(Value a, Value b);
ESPALIER_API Value le(Value a, Value b);
ESPALIER_API Value gt(Value a, Value b);
ESPALIER_API Value ge(Value a, Value b);
ESPALIER_API Value logical_and(Value a, Value b);
ESPALIER_API Value logical_or(Value a, Value b);
ESPALIER_API Value logical_xor(Value a, Value b);
ESPALIER_API Value shift_left(Value a, Value b);
ESPALIER_API Value shift_right(Value a, Value b);
/// `condition` (bool) chooses between two values of one type.
ESPALIER_API Value select(Value condition, Value if_true, Value if_false);
/// min(max(x, low), high), all of one type.
ESPALIER_API Value clamp(Value x, Value low, Value high);
/// Another dtype: floats round to even; floats to integers truncate and saturate (NaN gives 0); integers wrap.
ESPALIER_API Value cast(Value x, ir::Dtype dtype);

/// A constant of `like`'s type, every element `value` (a scalar constant broadcast).
ESPALIER_API Value full_like(const Value& like, double value);
ESPALIER_API Value zeros_like(const Value& like);
ESPALIER_API Value ones_like(const Value& like);
/// x op number, in x's dtype.
ESPALIER_API Value add(Value x, double b);
ESPALIER_API Value sub(Value x, double b);
ESPALIER_API Value mul(Value x, double b);
ESPALIER_API Value div(Value x, double b);

}  // namespace espalier::op
