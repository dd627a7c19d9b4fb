#pragma once
// Elementwise ops: operands of one type (dims and dtype) unless stated; results of that type, comparisons give bool.
#include "ir/op_def.h"

namespace espalier::op {

using ir::Value;

extern const ir::OpDef neg_op, abs_op, sign_op, exp_op, expm1_op, log_op, log1p_op, sqrt_op, rsqrt_op,
    square_op, reciprocal_op, sin_op, cos_op, tan_op, atan_op, tanh_op, erf_op, sigmoid_op, softplus_op,
    relu_op, floor_op, ceil_op, round_op, trunc_op, logical_not_op, is_nan_op;
extern const ir::OpDef add_op, sub_op, mul_op, div_op, rem_op, pow_op, max_op, min_op, atan2_op, eq_op, ne_op,
    lt_op, le_op, gt_op, ge_op, logical_and_op, logical_or_op, logical_xor_op, shift_left_op, shift_right_op;
extern const ir::OpDef select_op, clamp_op, cast_op;

struct CastAttrs {
  ir::Dtype dtype = ir::Dtype::f32;
  bool operator==(const CastAttrs&) const = default;
  static constexpr auto fields() { return std::tuple{ir::field("dtype", &CastAttrs::dtype)}; }
};

// Builders. Binary ones take operands of equal type: broadcasting is the business of tensor/ and of broadcast_to.
Value neg(Value x);
Value abs(Value x);
Value sign(Value x);
Value exp(Value x);
Value expm1(Value x);
Value log(Value x);
Value log1p(Value x);
Value sqrt(Value x);
Value rsqrt(Value x);
Value square(Value x);
Value reciprocal(Value x);
Value sin(Value x);
Value cos(Value x);
Value tan(Value x);
Value atan(Value x);
Value tanh(Value x);
Value erf(Value x);
Value sigmoid(Value x);
Value softplus(Value x);
Value relu(Value x);
Value floor(Value x);
Value ceil(Value x);
Value round(Value x);
Value trunc(Value x);
Value logical_not(Value x);
Value is_nan(Value x);
Value add(Value a, Value b);
Value sub(Value a, Value b);
Value mul(Value a, Value b);
Value div(Value a, Value b);
Value rem(Value a, Value b);
Value pow(Value a, Value b);
Value max(Value a, Value b);
Value min(Value a, Value b);
Value atan2(Value a, Value b);
Value eq(Value a, Value b);
Value ne(Value a, Value b);
Value lt(Value a, Value b);
Value le(Value a, Value b);
Value gt(Value a, Value b);
Value ge(Value a, Value b);
Value logical_and(Value a, Value b);
Value logical_or(Value a, Value b);
Value logical_xor(Value a, Value b);
Value shift_left(Value a, Value b);
Value shift_right(Value a, Value b);
/// `condition` (bool) chooses between two values of one type.
Value select(Value condition, Value if_true, Value if_false);
/// min(max(x, low), high), all of one type.
Value clamp(Value x, Value low, Value high);
/// Another dtype: floats round to even; floats to integers truncate and saturate (NaN gives 0); integers wrap.
Value cast(Value x, ir::Dtype dtype);

/// A constant of `like`'s type, every element `value` (a scalar constant broadcast).
Value full_like(const Value& like, double value);
Value zeros_like(const Value& like);
Value ones_like(const Value& like);
/// x op number, in x's dtype.
Value add(Value x, double b);
Value sub(Value x, double b);
Value mul(Value x, double b);
Value div(Value x, double b);

}  // namespace espalier::op
