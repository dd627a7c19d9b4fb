// Elementwise ops of ONNX.
#include <cmath>
#include <limits>
#include <numbers>

#include "format/onnx_import.h"
#include "op/activation.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/reduction.h"

namespace espalier::format {

using ir::Dtype;
using ir::Value;
using Values = std::vector<Value>;

namespace {

template <Value (*F)(Value)>
Results unary(Use& u) {
  return elementwise(u, [](const Values& x) { return F(x[0]); });
}
template <Value (*F)(Value, Value)>
Results binary(Use& u) {
  return elementwise(u, [](const Values& x) { return F(x[0], x[1]); });
}
/// F over any number of values, from the left.
template <Value (*F)(Value, Value)>
Value fold(const Values& x) {
  Value y = x[0];
  for (size_t i = 1; i < x.size(); ++i) y = F(y, x[i]);
  return y;
}
template <Value (*F)(Value, Value)>
Results folded(Use& u) {
  return elementwise(u, fold<F>);
}
/// A formula of one operand and the node's attributes.
template <class F>
Results formula(Use& u, F f) {
  return elementwise(u, [&](const Values& x) { return f(x[0]); });
}

Value maximum(Value a, double b) { return op::max(a, op::full_like(a, b)); }
Value minimum(Value a, double b) { return op::min(a, op::full_like(a, b)); }
Value is_positive(const Value& x) { return op::gt(x, op::zeros_like(x)); }

Results read_mean(Use& u) {
  const auto n = static_cast<double>(u.inputs());
  return elementwise(u, [&](const Values& x) { return op::div(fold<op::add>(x), n); });
}

Results read_pow(Use& u) {
  return elementwise(u, [](const Values& x) {
    if (x[0].dtype() == x[1].dtype()) return op::pow(x[0], x[1]);
    if (is_float(x[0].dtype()) || !is_float(x[1].dtype())) return op::pow(x[0], op::cast(x[1], x[0].dtype()));
    return op::cast(op::pow(op::cast(x[0], x[1].dtype()), x[1]), x[0].dtype());
  });
}

/// a - floor(a / b) * b of floats: the sign of b, zeros included.
Value floored_remainder(const Value& a, const Value& b) {
  const Value r = op::rem(a, b), zero = op::zeros_like(r), below = op::lt(b, zero);
  const Value moved = op::select(op::ne(op::lt(r, zero), below), op::add(r, b), r);
  return op::select(op::eq(r, zero), op::select(below, op::full_like(r, -0.0), zero), moved);
}

Results read_mod(Use& u) {
  const bool c_like = u.integer("fmod", 0) != 0;
  if (!c_like && is_float(u.dtype(0))) {
    if (u.opset() < 28) u.fail("fmod=0 takes no floats", u.held(0).value.type().text(), "fmod=1 or integers");
    return elementwise(u, [](const Values& x) { return floored_remainder(x[0], x[1]); });
  }
  return elementwise(u, [&](const Values& x) {
    Value r = op::rem(x[0], x[1]);
    if (c_like) return r;
    const Value zero = op::zeros_like(r);
    const Value off = op::logical_and(op::ne(r, zero), op::ne(op::lt(r, zero), op::lt(x[1], zero)));
    return op::select(off, op::add(r, x[1]), r);
  });
}

Results read_bit_shift(Use& u) {
  const bool left = u.text("direction", "") == "LEFT";
  return elementwise(
      u, [&](const Values& x) { return left ? op::shift_left(x[0], x[1]) : op::shift_right(x[0], x[1]); });
}

Results read_clip(Use& u) {
  const bool as_attributes = u.opset() < 11;
  const bool low = as_attributes ? u.has_attr("min") : u.has(1),
             high = as_attributes ? u.has_attr("max") : u.has(2);
  const double attr_low = as_attributes ? u.real("min", 0) : 0,
               attr_high = as_attributes ? u.real("max", 0) : 0;
  const Held x = u.tensor(0);
  const Value low_value = !low || as_attributes ? Value() : u.value(1),
              high_value = !high || as_attributes ? Value() : u.value(2);
  for (const Value& v : {low_value, high_value})
    if (v && v.type().is_static() && v.type().elements() != 1)
      u.fail("a bound is no single number", v.type().text(), "rank 0");
  const auto bound = [](const Value& like, const Value& v, double number) {
    return v ? stretched(reshaped(v, {}), like.dims()) : op::full_like(like, number);
  };
  return {elementwise(std::span(&x, 1), [&](const Values& v) {
    if (low && high)
      return op::clamp(v[0], bound(v[0], low_value, attr_low), bound(v[0], high_value, attr_high));
    if (low) return op::max(v[0], bound(v[0], low_value, attr_low));
    return high ? op::min(v[0], bound(v[0], high_value, attr_high)) : v[0];
  })};
}

/// How floats of 8 bits are rounded, which no type of ours is.
void ignore_rounding_to_float8(Use& u) {
  u.ignore("saturate");
  u.ignore("round_mode");
}

Results read_cast(Use& u) {
  ignore_rounding_to_float8(u);
  const Dtype to = dtype_of_onnx(static_cast<int32_t>(u.integer("to", 0)), u.where() + ", attribute to");
  return formula(u, [&](const Value& x) { return op::cast(x, to); });
}

Results read_cast_like(Use& u) {
  ignore_rounding_to_float8(u);
  const Held& x = u.tensor(0);
  const Dtype to = u.dtype(1);
  return {elementwise(std::span(&x, 1), [&](const Values& v) { return op::cast(v[0], to); })};
}

Results read_leaky_relu(Use& u) {
  const double alpha = u.real("alpha", 0.01);
  return formula(u, [&](const Value& x) { return op::select(is_positive(x), x, op::mul(x, alpha)); });
}

Results read_thresholded_relu(Use& u) {
  const double alpha = u.real("alpha", 1);
  return formula(u, [&](const Value& x) {
    return op::select(op::gt(x, op::full_like(x, alpha)), x, op::zeros_like(x));
  });
}

Results read_elu(Use& u) {
  const double alpha = u.real("alpha", 1);
  return formula(u, [&](const Value& x) {
    return op::select(is_positive(x), x, op::mul(op::expm1(minimum(x, 0)), alpha));
  });
}

Results read_celu(Use& u) {
  const double alpha = u.real("alpha", 1);
  return formula(u, [&](const Value& x) {
    return op::add(maximum(x, 0), minimum(op::mul(op::expm1(op::div(x, alpha)), alpha), 0));
  });
}

Results read_selu(Use& u) {
  const double alpha = u.real("alpha", 1.67326319217681884765625),
               gamma = u.real("gamma", 1.05070102214813232421875);
  return formula(u, [&](const Value& x) {
    return op::mul(op::select(is_positive(x), x, op::mul(op::expm1(minimum(x, 0)), alpha)), gamma);
  });
}

Value hard_sigmoid(const Value& x, double alpha, double beta) {
  return op::clamp(op::add(op::mul(x, alpha), beta), op::zeros_like(x), op::ones_like(x));
}

Results read_hard_sigmoid(Use& u) {
  const double alpha = u.real("alpha", 0.2), beta = u.real("beta", 0.5);
  return formula(u, [&](const Value& x) { return hard_sigmoid(x, alpha, beta); });
}

Results read_hard_swish(Use& u) {
  return formula(u, [](const Value& x) { return op::mul(x, hard_sigmoid(x, 1.0 / 6, 0.5)); });
}

Results read_mish(Use& u) {
  return formula(u, [](const Value& x) { return op::mul(x, op::tanh(op::softplus(x))); });
}

Results read_softsign(Use& u) {
  return formula(u, [](const Value& x) { return op::div(x, op::add(op::abs(x), 1)); });
}

Results read_shrink(Use& u) {
  const double bias = u.real("bias", 0), lambd = u.real("lambd", 0.5);
  return formula(u, [&](const Value& x) {
    return op::select(op::lt(x, op::full_like(x, -lambd)), op::add(x, bias),
                      op::select(op::gt(x, op::full_like(x, lambd)), op::sub(x, bias), op::zeros_like(x)));
  });
}

Results read_gelu(Use& u) {
  const std::string form = u.text("approximate", "none");
  if (form != "none" && form != "tanh") u.fail("approximate is not supported", form, "none tanh");
  return formula(u, [&](const Value& x) { return op::gelu(x, form == "tanh"); });
}

Value swish(const Value& x, double alpha) {
  return alpha == 1 ? op::silu(x) : op::mul(x, op::sigmoid(op::mul(x, alpha)));
}
Results read_swish(Use& u) {
  const double alpha = u.real("alpha", 1);
  return formula(u, [&](const Value& x) { return swish(x, alpha); });
}

Results read_prelu(Use& u) {
  return elementwise(u, [](const Values& x) {
    return op::select(op::lt(x[0], op::zeros_like(x[0])), op::mul(x[0], x[1]), x[0]);
  });
}

Results read_is_inf(Use& u) {
  const bool negative = u.integer("detect_negative", 1) != 0, positive = u.integer("detect_positive", 1) != 0;
  const double inf = std::numeric_limits<double>::infinity();
  return formula(u, [&](const Value& x) {
    if (positive && negative) return op::eq(op::abs(x), op::full_like(x, inf));
    if (positive || negative) return op::eq(x, op::full_like(x, positive ? inf : -inf));
    return op::ne(op::zeros_like(x), op::zeros_like(x));
  });
}

// Functions that are formulas of ours.
/// A formula whose steps need f32 at least: 16-bit floats are rounded once, at the end.
template <class F>
Results wide_formula(Use& u, F f) {
  return formula(u, [&](const Value& x) { return in_f32_at_least(x, f); });
}
/// Half of e^|x|, without its overflow, and half of e^-|x|.
std::pair<Value, Value> half_exponentials(const Value& x) {
  const Value root = op::exp(op::mul(op::abs(x), 0.5));
  return {op::mul(op::mul(root, 0.5), root), op::div(op::full_like(x, 0.5), op::mul(root, root))};
}
/// Near 0 by expm1, which cancels nothing.
Results read_sinh(Use& u) {
  return wide_formula(u, [](const Value& x) {
    const Value one = op::ones_like(x), m = op::expm1(op::clamp(x, op::neg(one), one));
    const Value near = op::mul(op::add(m, op::div(m, op::add(m, 1))), 0.5);
    const auto [rising, falling] = half_exponentials(x);
    return op::select(op::gt(op::abs(x), one), op::mul(op::sign(x), op::sub(rising, falling)), near);
  });
}
Results read_cosh(Use& u) {
  return wide_formula(u, [](const Value& x) {
    const auto [rising, falling] = half_exponentials(x);
    return op::add(rising, falling);
  });
}
Value root_of_one_minus_square(const Value& x) {
  return op::sqrt(op::mul(op::sub(op::ones_like(x), x), op::add(x, 1)));
}
Results read_asin(Use& u) {
  return formula(u, [](const Value& x) { return op::atan2(x, root_of_one_minus_square(x)); });
}
Results read_acos(Use& u) {
  return formula(u, [](const Value& x) { return op::atan2(root_of_one_minus_square(x), x); });
}
constexpr double huge =
    1 << 28;  // above it x^2 + 1 is x^2, and log(2x) is log(2) + log(x) where 2x overflows
Value log_of_twice(const Value& x) { return op::add(op::log(x), std::numbers::ln2); }

Results read_asinh(Use& u) {
  return wide_formula(u, [](const Value& x) {
    const Value a = op::abs(x), bounded = minimum(a, huge), square = op::square(bounded);
    const Value root = op::sqrt(op::add(square, 1));
    const Value near = op::log1p(op::add(bounded, op::div(square, op::add(root, 1))));
    const Value far = log_of_twice(maximum(a, huge));
    return op::mul(op::sign(x), op::select(op::gt(a, op::full_like(a, huge)), far, near));
  });
}
Results read_acosh(Use& u) {
  return wide_formula(u, [](const Value& x) {
    const Value t = op::clamp(op::sub(x, 1), op::full_like(x, -1), op::full_like(x, huge));
    const Value near = op::log1p(op::add(t, op::sqrt(op::mul(t, op::add(t, 2)))));
    return op::select(op::gt(x, op::full_like(x, huge)), log_of_twice(maximum(x, huge)), near);
  });
}
Results read_atanh(Use& u) {
  return wide_formula(
      u, [](const Value& x) { return op::mul(op::sub(op::log1p(x), op::log1p(op::neg(x))), 0.5); });
}

Results read_identity(Use& u) {
  u.ignore("consumed_inputs");
  return {u.held(0)};
}

/// Inference: the identity, and a mask of trues.
Results read_dropout(Use& u) {
  u.ignore("seed");
  u.ignore("ratio");
  if (u.has(2) && u.number(2) != 0 && !(u.has(1) && u.number(1) == 0))
    u.fail("training mode is not supported", "training_mode 1", "training_mode 0, ratio 0");
  Results out{u.held(0)};
  if (u.wants(1)) {
    const ir::Value x = u.value(0);
    out.push_back(held(op::broadcast_in(ir::constant(Dtype::boolean, 1), x.dims(), {})));
  }
  return out;
}

constexpr ReadRow math_table[] = {
    {"Neg", 6, newest_opset, 1, 1, unary<op::neg>},
    {"Abs", 6, newest_opset, 1, 1, unary<op::abs>},
    {"Sign", 9, newest_opset, 1, 1, unary<op::sign>},
    {"Exp", 6, newest_opset, 1, 1, unary<op::exp>},
    {"Log", 6, newest_opset, 1, 1, unary<op::log>},
    {"Sqrt", 6, newest_opset, 1, 1, unary<op::sqrt>},
    {"Reciprocal", 6, newest_opset, 1, 1, unary<op::reciprocal>},
    {"Sin", 7, newest_opset, 1, 1, unary<op::sin>},
    {"Cos", 7, newest_opset, 1, 1, unary<op::cos>},
    {"Tan", 7, newest_opset, 1, 1, unary<op::tan>},
    {"Asin", 7, newest_opset, 1, 1, read_asin},
    {"Acos", 7, newest_opset, 1, 1, read_acos},
    {"Atan", 7, newest_opset, 1, 1, unary<op::atan>},
    {"Sinh", 9, newest_opset, 1, 1, read_sinh},
    {"Cosh", 9, newest_opset, 1, 1, read_cosh},
    {"Asinh", 9, newest_opset, 1, 1, read_asinh},
    {"Acosh", 9, newest_opset, 1, 1, read_acosh},
    {"Atanh", 9, newest_opset, 1, 1, read_atanh},
    {"Tanh", 6, newest_opset, 1, 1, unary<op::tanh>},
    {"Erf", 9, newest_opset, 1, 1, unary<op::erf>},
    {"Sigmoid", 6, newest_opset, 1, 1, unary<op::sigmoid>},
    {"HardSigmoid", 6, newest_opset, 1, 1, read_hard_sigmoid},
    {"HardSwish", 14, newest_opset, 1, 1, read_hard_swish},
    {"Mish", 18, newest_opset, 1, 1, read_mish},
    {"Gelu", 20, newest_opset, 1, 1, read_gelu},
    {"Swish", 24, newest_opset, 1, 1, read_swish},
    {"Softplus", 1, newest_opset, 1, 1, unary<op::softplus>},
    {"Softsign", 1, newest_opset, 1, 1, read_softsign},
    {"Relu", 6, newest_opset, 1, 1, unary<op::relu>},
    {"LeakyRelu", 6, newest_opset, 1, 1, read_leaky_relu},
    {"ThresholdedRelu", 10, newest_opset, 1, 1, read_thresholded_relu},
    {"Elu", 6, newest_opset, 1, 1, read_elu},
    {"Celu", 12, newest_opset, 1, 1, read_celu},
    {"Selu", 6, newest_opset, 1, 1, read_selu},
    {"PRelu", 7, newest_opset, 2, 2, read_prelu},
    {"Shrink", 9, newest_opset, 1, 1, read_shrink},
    {"Clip", 6, 10, 1, 1, read_clip},
    {"Clip", 11, newest_opset, 1, 3, read_clip},
    {"Floor", 6, newest_opset, 1, 1, unary<op::floor>},
    {"Ceil", 6, newest_opset, 1, 1, unary<op::ceil>},
    {"Round", 11, newest_opset, 1, 1, unary<op::round>},
    {"Not", 1, newest_opset, 1, 1, unary<op::logical_not>},
    {"IsNaN", 9, newest_opset, 1, 1, unary<op::is_nan>},
    {"IsInf", 10, newest_opset, 1, 1, read_is_inf},
    {"Add", 7, newest_opset, 2, 2, binary<op::add>},
    {"Sub", 7, newest_opset, 2, 2, binary<op::sub>},
    {"Mul", 7, newest_opset, 2, 2, binary<op::mul>},
    {"Div", 7, newest_opset, 2, 2, binary<op::div>},
    {"Mod", 10, newest_opset, 2, 2, read_mod},
    {"Pow", 7, newest_opset, 2, 2, read_pow},
    {"BitShift", 11, newest_opset, 2, 2, read_bit_shift},
    {"Max", 6, newest_opset, 1, max_inputs, folded<op::max>},
    {"Min", 6, newest_opset, 1, max_inputs, folded<op::min>},
    {"Sum", 6, newest_opset, 1, max_inputs, folded<op::add>},
    {"Mean", 6, newest_opset, 1, max_inputs, read_mean},
    {"Equal", 7, newest_opset, 2, 2, binary<op::eq>},
    {"Less", 7, newest_opset, 2, 2, binary<op::lt>},
    {"LessOrEqual", 12, newest_opset, 2, 2, binary<op::le>},
    {"Greater", 7, newest_opset, 2, 2, binary<op::gt>},
    {"GreaterOrEqual", 12, newest_opset, 2, 2, binary<op::ge>},
    {"And", 7, newest_opset, 2, 2, binary<op::logical_and>},
    {"Or", 7, newest_opset, 2, 2, binary<op::logical_or>},
    {"Xor", 7, newest_opset, 2, 2, binary<op::logical_xor>},
    {"Where", 9, newest_opset, 3, 3,
     [](Use& u) { return elementwise(u, [](const Values& x) { return op::select(x[0], x[1], x[2]); }); }},
    {"Cast", 6, newest_opset, 1, 1, read_cast},
    {"CastLike", 15, newest_opset, 2, 2, read_cast_like},
    {"Identity", 1, newest_opset, 1, 1, read_identity},
    {"Dropout", 7, newest_opset, 1, 3, read_dropout},
};

}  // namespace

std::span<const ReadRow> math_rows() { return math_table; }

}  // namespace espalier::format
