// Elementwise ops: a record each, made by a function per group, and the builders.
#include "op/elementwise.h"

#include "op/infer.h"
#include "op/movement.h"
#include "op/sampling.h"
#include "op/table.h"

namespace espalier::op {

using ir::body;
using ir::bool_type;
using ir::Dtype;
using ir::DtypeSet;
using ir::float_types;
using ir::Grad;
using ir::GradCtx;
using ir::integer_types;
using ir::make;
using ir::number_types;
using ir::OpDef;
using ir::Sample;
using ir::SampleRng;
namespace m = ir::math;

namespace {

/// N operands of one type with elements in [Low, High]/10.
template <int N, int Low, int High>
Sample sample_same(SampleRng& rng, Dtype dtype) {
  Sample s;
  const std::vector<int64_t> dims = draw_dims(rng, draw(rng, 0, 3));
  const bool real = is_float(dtype);
  for (int i = 0; i < N; ++i)
    s.inputs.push_back(draw_array(rng, dtype, dims, real ? Low / 10.0 : -9, real ? High / 10.0 : 9));
  return s;
}

struct Naming {
  std::string_view name, doc;
};

constexpr OpDef elementwise_record(Naming n, int operands, DtypeSet dtypes, ir::InferFn infer,
                                   ir::Scalar scalar, Grad grad, ir::SampleFn sample) {
  return {.name = n.name,
          .doc = n.doc,
          .kind = ir::Kind::elementwise,
          .arity = {operands, operands},
          .dtypes = dtypes,
          .attrs = ir::attr_type<ir::NoAttrs>(),
          .infer = infer,
          .grad = grad,
          .expand = nullptr,
          .scalar = scalar,
          .eval = nullptr,
          .sample = sample};
}

/// Result of the operands' type; samples in [Low, High]/10 (integers: -9 to 9).
template <int N, int Low = -20, int High = 20>
constexpr OpDef arithmetic(Naming n, DtypeSet dtypes, ir::Scalar scalar, Grad grad) {
  return elementwise_record(n, N, dtypes, same_type, scalar, grad, sample_same<N, Low, High>);
}

/// Result of bool.
template <int N>
constexpr OpDef predicate(Naming n, DtypeSet dtypes, ir::Scalar scalar) {
  return elementwise_record(n, N, dtypes, bool_of_same_type, scalar, ir::not_differentiable,
                            sample_same<N, -10, 10>);
}

/// The gradient of a unary op from (dout, x, y).
template <auto F>
constexpr Grad rule1 = ir::rule([](const GradCtx& c) -> std::vector<Value> {
  return {F(c.dout[0], c.in(0), c.out())};
});

/// The gradients of a binary op, each from (dout, a, b, y); only the needed ones are built.
template <auto A, auto B>
constexpr Grad rule2 = ir::rule([](const GradCtx& c) -> std::vector<Value> {
  std::vector<Value> d(2);
  if (c.needed[0]) d[0] = A(c.dout[0], c.in(0), c.in(1), c.out());
  if (c.needed[1]) d[1] = B(c.dout[0], c.in(0), c.in(1), c.out());
  return d;
});

/// Piecewise constant functions: the gradient is zero everywhere.
constexpr Grad zero_gradient =
    ir::rule([](const GradCtx& c) { return std::vector<Value>(c.node.inputs().size()); });

constexpr DtypeSet bits = integer_types | bool_type;

using V = const Value&;

Value where(Value condition, V x) { return select(std::move(condition), x, zeros_like(x)); }
Value where_not(Value condition, V x) { return select(std::move(condition), zeros_like(x), x); }

}  // namespace

// One operand.
constinit const OpDef neg_op =
    arithmetic<1>({"neg", "-x."}, number_types, body<1, [](auto x) { return -x; }>(),
                  rule1<[](V d, V, V) { return neg(d); }>);
constinit const OpDef abs_op = arithmetic<1>({"abs", "The absolute value; its gradient at 0 is 0."},
                                             number_types, body<1, [](auto x) { return m::abs(x); }>(),
                                             rule1<[](V d, V x, V) { return mul(d, sign(x)); }>);
constinit const OpDef sign_op =
    arithmetic<1>({"sign", "-1, 0 or 1; a zero keeps its sign, NaN stays NaN."}, number_types,
                  body<1, [](auto x) { return m::sign(x); }>(), zero_gradient);
constinit const OpDef exp_op =
    arithmetic<1>({"exp", "e to the power x."}, float_types, body<1, [](auto x) { return m::exp(x); }>(),
                  rule1<[](V d, V, V y) { return mul(d, y); }>);
constinit const OpDef expm1_op = arithmetic<1>({"expm1", "exp(x) - 1, exact near 0."}, float_types,
                                               body<1, [](auto x) { return m::expm1(x); }>(),
                                               rule1<[](V d, V, V y) { return mul(d, add(y, 1)); }>);
constinit const OpDef log_op = arithmetic<1, 1, 40>({"log", "The natural logarithm."}, float_types,
                                                    body<1, [](auto x) { return m::log(x); }>(),
                                                    rule1<[](V d, V x, V) { return div(d, x); }>);
constinit const OpDef log1p_op = arithmetic<1, -8, 40>({"log1p", "log(1 + x), exact near 0."}, float_types,
                                                       body<1, [](auto x) { return m::log1p(x); }>(),
                                                       rule1<[](V d, V x, V) { return div(d, add(x, 1)); }>);
constinit const OpDef sqrt_op = arithmetic<1, 1, 40>({"sqrt", "The square root."}, float_types,
                                                     body<1, [](auto x) { return m::sqrt(x); }>(),
                                                     rule1<[](V d, V, V y) { return div(mul(d, 0.5), y); }>);
constinit const OpDef rsqrt_op = arithmetic<1, 1, 40>(
    {"rsqrt", "1 / sqrt(x)."}, float_types, body<1, [](auto x) { return m::rsqrt(x); }>(),
    rule1<[](V d, V, V y) { return mul(mul(d, -0.5), mul(y, square(y))); }>);
constinit const OpDef square_op =
    arithmetic<1>({"square", "x times x."}, number_types, body<1, [](auto x) { return x * x; }>(),
                  rule1<[](V d, V x, V) { return mul(mul(d, 2), x); }>);
constinit const OpDef reciprocal_op = arithmetic<1, 2, 40>(
    {"reciprocal", "1 / x."}, float_types, body<1, [](auto x) { return m::constant(x, 1) / x; }>(),
    rule1<[](V d, V, V y) { return neg(mul(d, square(y))); }>);
constinit const OpDef sin_op =
    arithmetic<1>({"sin", "The sine of x radians."}, float_types, body<1, [](auto x) { return m::sin(x); }>(),
                  rule1<[](V d, V x, V) { return mul(d, cos(x)); }>);
constinit const OpDef cos_op = arithmetic<1>({"cos", "The cosine of x radians."}, float_types,
                                             body<1, [](auto x) { return m::cos(x); }>(),
                                             rule1<[](V d, V x, V) { return neg(mul(d, sin(x))); }>);
constinit const OpDef tan_op = arithmetic<1, -12, 12>(
    {"tan", "The tangent of x radians."}, float_types, body<1, [](auto x) { return m::tan(x); }>(),
    rule1<[](V d, V, V y) { return mul(d, add(square(y), 1)); }>);
constinit const OpDef atan_op = arithmetic<1>({"atan", "The angle whose tangent is x, in radians."},
                                              float_types, body<1, [](auto x) { return m::atan(x); }>(),
                                              rule1<[](V d, V x, V) { return div(d, add(square(x), 1)); }>);
constinit const OpDef tanh_op = arithmetic<1>(
    {"tanh", "The hyperbolic tangent."}, float_types, body<1, [](auto x) { return m::tanh(x); }>(),
    rule1<[](V d, V, V y) { return mul(d, sub(ones_like(y), square(y))); }>);
constinit const OpDef erf_op =
    arithmetic<1>({"erf", "The error function."}, float_types, body<1, [](auto x) { return m::erf(x); }>(),
                  rule1<[](V d, V x, V) { return mul(mul(d, 1.1283791670955126), exp(neg(square(x)))); }>);
constinit const OpDef sigmoid_op = arithmetic<1, -60, 60>(
    {"sigmoid", "1 / (1 + exp(-x))."}, float_types,
    body<1, [](auto x) { return m::constant(x, 1) / (m::constant(x, 1) + m::exp(-x)); }>(),
    rule1<[](V d, V, V y) { return mul(d, mul(y, sub(ones_like(y), y))); }>);
constinit const OpDef softplus_op = arithmetic<1, -60, 60>(
    {"softplus", "log(1 + exp(x))."}, float_types,
    body<1, [](auto x) { return m::max(x, m::constant(x, 0)) + m::log1p(m::exp(-m::abs(x))); }>(),
    rule1<[](V d, V x, V) { return mul(d, sigmoid(x)); }>);
constinit const OpDef relu_op = arithmetic<1>(
    {"relu", "max(x, 0); its gradient at 0 is 0."}, number_types,
    body<1, [](auto x) { return m::max(x, m::constant(x, 0)); }>(),
    rule1<[](V d, V, V y) { return where(gt(y, zeros_like(y)), d); }>);  // of y: x need not be kept
constinit const OpDef floor_op = arithmetic<1>({"floor", "The next whole number below or at x."}, float_types,
                                               body<1, [](auto x) { return m::floor(x); }>(), zero_gradient);
constinit const OpDef ceil_op = arithmetic<1>({"ceil", "The next whole number above or at x."}, float_types,
                                              body<1, [](auto x) { return m::ceil(x); }>(), zero_gradient);
constinit const OpDef round_op =
    arithmetic<1>({"round", "The nearest whole number; halves go to the even one."}, float_types,
                  body<1, [](auto x) { return m::round(x); }>(), zero_gradient);
constinit const OpDef trunc_op = arithmetic<1>({"trunc", "x without its fraction."}, float_types,
                                               body<1, [](auto x) { return m::trunc(x); }>(), zero_gradient);
constinit const OpDef logical_not_op = elementwise_record(
    {"logical_not", "Not; on integers, every bit inverted."}, 1, bits, same_type,
    body<1, [](auto x) { return m::logical_not(x); }>(), ir::not_differentiable, sample_same<1, -9, 9>);
constinit const OpDef is_nan_op = predicate<1>({"is_nan", "Is x not a number?"}, float_types,
                                               body<1, [](auto x) { return m::is_nan(x); }>());

// Two operands.
constinit const OpDef add_op =
    arithmetic<2>({"add", "a + b."}, number_types, body<2, [](auto a, auto b) { return a + b; }>(),
                  rule2<[](V d, V, V, V) { return d; }, [](V d, V, V, V) { return d; }>);
constinit const OpDef sub_op =
    arithmetic<2>({"sub", "a - b."}, number_types, body<2, [](auto a, auto b) { return a - b; }>(),
                  rule2<[](V d, V, V, V) { return d; }, [](V d, V, V, V) { return neg(d); }>);
constinit const OpDef mul_op =
    arithmetic<2>({"mul", "a times b."}, number_types, body<2, [](auto a, auto b) { return a * b; }>(),
                  rule2<[](V d, V, V b, V) { return mul(d, b); }, [](V d, V a, V, V) { return mul(d, a); }>);
constinit const OpDef div_op = arithmetic<2, 2, 40>(
    {"div", "a / b; integers truncate, and division by zero gives 0."}, number_types,
    body<2, [](auto a, auto b) { return m::divide(a, b); }>(),
    rule2<[](V d, V, V b, V) { return div(d, b); }, [](V d, V, V b, V y) { return neg(div(mul(d, y), b)); }>);
constinit const OpDef rem_op = arithmetic<2, 3, 40>(
    {"rem", "The remainder of a / b with the sign of a; an integer remainder by 0 is 0."}, number_types,
    body<2, [](auto a, auto b) { return m::rem(a, b); }>(),
    rule2<[](V d, V, V, V) { return d; }, [](V d, V a, V b, V) { return neg(mul(d, trunc(div(a, b)))); }>);
constinit const OpDef pow_op = arithmetic<2, 2, 30>(
    {"pow",
     "a to the power b; integers wrap, negative integer powers truncate. The gradient of b is 0 where a <= "
     "0."},
    number_types, body<2, [](auto a, auto b) { return m::pow(a, b); }>(),
    rule2<[](V d, V a, V b, V) { return mul(d, where_not(eq(b, zeros_like(b)), mul(b, pow(a, sub(b, 1))))); },
          [](V d, V a, V, V y) {
            const Value positive = gt(a, zeros_like(a));
            return mul(d, where(positive, mul(y, log(select(positive, a, ones_like(a))))));
          }>);
constinit const OpDef max_op =
    arithmetic<2>({"max", "The larger; NaN where either is NaN; on bool, or. Ties give their gradient to a."},
                  ir::all_types, body<2, [](auto a, auto b) { return m::max(a, b); }>(),
                  rule2<[](V d, V a, V b, V) { return where(ge(a, b), d); },
                        [](V d, V a, V b, V) { return where_not(ge(a, b), d); }>);
constinit const OpDef min_op = arithmetic<2>(
    {"min", "The smaller; NaN where either is NaN; on bool, and. Ties give their gradient to a."},
    ir::all_types, body<2, [](auto a, auto b) { return m::min(a, b); }>(),
    rule2<[](V d, V a, V b, V) { return where(le(a, b), d); },
          [](V d, V a, V b, V) { return where_not(le(a, b), d); }>);
constinit const OpDef atan2_op = arithmetic<2, 2, 30>(
    {"atan2", "The angle of the point (b, a) in radians, in (-pi, pi]."}, float_types,
    body<2, [](auto a, auto b) { return m::atan2(a, b); }>(),
    rule2<[](V d, V a, V b, V) { return div(mul(d, b), add(square(a), square(b))); },
          [](V d, V a, V b, V) { return neg(div(mul(d, a), add(square(a), square(b)))); }>);
constinit const OpDef eq_op =
    predicate<2>({"eq", "a equals b."}, ir::all_types, body<2, [](auto a, auto b) { return a == b; }>());
constinit const OpDef ne_op = predicate<2>({"ne", "a differs from b."}, ir::all_types,
                                           body<2, [](auto a, auto b) { return a != b; }>());
constinit const OpDef lt_op =
    predicate<2>({"lt", "a is less than b."}, ir::all_types, body<2, [](auto a, auto b) { return a < b; }>());
constinit const OpDef le_op =
    predicate<2>({"le", "a is at most b."}, ir::all_types, body<2, [](auto a, auto b) { return a <= b; }>());
constinit const OpDef gt_op = predicate<2>({"gt", "a is greater than b."}, ir::all_types,
                                           body<2, [](auto a, auto b) { return (a > b); }>());
constinit const OpDef ge_op =
    predicate<2>({"ge", "a is at least b."}, ir::all_types, body<2, [](auto a, auto b) { return a >= b; }>());
constinit const OpDef logical_and_op =
    elementwise_record({"logical_and", "And; bitwise on integers."}, 2, bits, same_type,
                       body<2, [](auto a, auto b) { return m::logical_and(a, b); }>(), ir::not_differentiable,
                       sample_same<2, -9, 9>);
constinit const OpDef logical_or_op =
    elementwise_record({"logical_or", "Or; bitwise on integers."}, 2, bits, same_type,
                       body<2, [](auto a, auto b) { return m::logical_or(a, b); }>(), ir::not_differentiable,
                       sample_same<2, -9, 9>);
constinit const OpDef logical_xor_op =
    elementwise_record({"logical_xor", "Exclusive or; bitwise on integers."}, 2, bits, same_type,
                       body<2, [](auto a, auto b) { return m::logical_xor(a, b); }>(), ir::not_differentiable,
                       sample_same<2, -9, 9>);
constinit const OpDef shift_left_op = elementwise_record(
    {"shift_left", "a times 2 to the power b, wrapping; 0 for b < 0 or b >= the bits of a."}, 2,
    integer_types, same_type, body<2, [](auto a, auto b) { return m::shift_left(a, b); }>(),
    ir::not_differentiable, sample_same<2, -9, 9>);
constinit const OpDef shift_right_op = elementwise_record(
    {"shift_right",
     "a without its b lowest bits, keeping its sign; every bit goes for b < 0 or b >= the bits of a."},
    2, integer_types, same_type, body<2, [](auto a, auto b) { return m::shift_right(a, b); }>(),
    ir::not_differentiable, sample_same<2, -9, 9>);

// Three operands, and cast.
constinit const OpDef select_op = elementwise_record(
    {"select", "if_true where the condition holds, else if_false."}, 3, bool_type,
    [](const ir::InferCtx& c) -> std::vector<ir::Type> {
      const ir::Type& t = check_one_type(c, 1);
      if (c.in[0].dims != t.dims) c.fail("the condition has other dims than the values", "equal dims");
      return {t};
    },
    body<3, [](auto c, auto a, auto b) { return m::select(c, a, b); }>(), ir::rule([](const GradCtx& c) {
      std::vector<Value> d(3);
      if (c.needed[1]) d[1] = where(c.in(0), c.dout[0]);
      if (c.needed[2]) d[2] = where_not(c.in(0), c.dout[0]);
      return d;
    }),
    [](SampleRng& rng, Dtype dtype) {
      if (dtype == Dtype::boolean) dtype = static_cast<Dtype>(draw(rng, 0, ir::dtype_count - 1));
      Sample s = sample_same<3, -20, 20>(rng, dtype);
      s.inputs[0] = draw_array(rng, Dtype::boolean, s.inputs[0].dims());
      return s;
    });
constinit const OpDef clamp_op = elementwise_record(
    {"clamp", "min(max(x, low), high). Where x equals a bound the gradient is x's."}, 3, number_types,
    same_type, body<3, [](auto x, auto low, auto high) { return m::min(m::max(x, low), high); }>(),
    ir::rule([](const GradCtx& c) {
      const Value &x = c.in(0), &low = c.in(1), &high = c.in(2), &d = c.dout[0];
      const Value lifted = lt(x, low), cut = gt(max(x, low), high);
      return std::vector<Value>{c.needed[0] ? where_not(logical_or(lifted, cut), d) : Value(),
                                c.needed[1] ? where_not(cut, where(lifted, d)) : Value(),
                                c.needed[2] ? where(cut, d) : Value()};
    }),
    sample_same<3, -20, 20>);

constinit const OpDef cast_op{
    .name = "cast",
    .doc =
        "Another dtype: floats round to even (to bf16 and f16 by way of f32); floats to integers truncate "
        "and saturate, "
        "NaN gives 0; integers wrap; to bool, is it not 0?",
    .kind = ir::Kind::elementwise,
    .arity = {1, 1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<CastAttrs>(),
    .infer =
        [](const ir::InferCtx& c) {
          return std::vector<ir::Type>{{c.attrs.get<CastAttrs>().dtype, c.in[0].dims}};
        },
    .grad = ir::rule([](const GradCtx& c) -> std::vector<Value> {
      if (!is_float(c.in(0).dtype()) || !is_float(c.out().dtype())) return {Value()};
      return {cast(c.dout[0], c.in(0).dtype())};
    }),
    .expand = nullptr,
    .scalar = {},
    .eval = [](const ir::EvalCtx& c) { return std::vector{c.in[0].cast(c.attrs<CastAttrs>().dtype)}; },
    .sample =
        [](SampleRng& rng, Dtype dtype) {
          Sample s = sample_same<1, -3000, 3000>(rng, dtype);
          s.attrs = CastAttrs{draw_chance(rng, 0.3) ? dtype
                                                    : static_cast<Dtype>(draw(rng, 0, ir::dtype_count - 1))};
          s.differentiable = {static_cast<char>(s.attrs.get<CastAttrs>().dtype == Dtype::f64)};
          return s;
        },
};

std::span<const OpDef* const> elementwise_ops() {
  static constexpr const OpDef* ops[] = {
      &neg_op,         &abs_op,         &sign_op,       &exp_op,         &expm1_op,      &log_op,
      &log1p_op,       &sqrt_op,        &rsqrt_op,      &square_op,      &reciprocal_op, &sin_op,
      &cos_op,         &tan_op,         &atan_op,       &tanh_op,        &erf_op,        &sigmoid_op,
      &softplus_op,    &relu_op,        &floor_op,      &ceil_op,        &round_op,      &trunc_op,
      &logical_not_op, &is_nan_op,      &add_op,        &sub_op,         &mul_op,        &div_op,
      &rem_op,         &pow_op,         &max_op,        &min_op,         &atan2_op,      &eq_op,
      &ne_op,          &lt_op,          &le_op,         &gt_op,          &ge_op,         &logical_and_op,
      &logical_or_op,  &logical_xor_op, &shift_left_op, &shift_right_op, &select_op,     &clamp_op,
      &cast_op};
  return ops;
}

Value neg(Value x) { return make(neg_op, {std::move(x)}); }
Value abs(Value x) { return make(abs_op, {std::move(x)}); }
Value sign(Value x) { return make(sign_op, {std::move(x)}); }
Value exp(Value x) { return make(exp_op, {std::move(x)}); }
Value expm1(Value x) { return make(expm1_op, {std::move(x)}); }
Value log(Value x) { return make(log_op, {std::move(x)}); }
Value log1p(Value x) { return make(log1p_op, {std::move(x)}); }
Value sqrt(Value x) { return make(sqrt_op, {std::move(x)}); }
Value rsqrt(Value x) { return make(rsqrt_op, {std::move(x)}); }
Value square(Value x) { return make(square_op, {std::move(x)}); }
Value reciprocal(Value x) { return make(reciprocal_op, {std::move(x)}); }
Value sin(Value x) { return make(sin_op, {std::move(x)}); }
Value cos(Value x) { return make(cos_op, {std::move(x)}); }
Value tan(Value x) { return make(tan_op, {std::move(x)}); }
Value atan(Value x) { return make(atan_op, {std::move(x)}); }
Value tanh(Value x) { return make(tanh_op, {std::move(x)}); }
Value erf(Value x) { return make(erf_op, {std::move(x)}); }
Value sigmoid(Value x) { return make(sigmoid_op, {std::move(x)}); }
Value softplus(Value x) { return make(softplus_op, {std::move(x)}); }
Value relu(Value x) { return make(relu_op, {std::move(x)}); }
Value floor(Value x) { return make(floor_op, {std::move(x)}); }
Value ceil(Value x) { return make(ceil_op, {std::move(x)}); }
Value round(Value x) { return make(round_op, {std::move(x)}); }
Value trunc(Value x) { return make(trunc_op, {std::move(x)}); }
Value logical_not(Value x) { return make(logical_not_op, {std::move(x)}); }
Value is_nan(Value x) { return make(is_nan_op, {std::move(x)}); }
Value add(Value a, Value b) { return make(add_op, {std::move(a), std::move(b)}); }
Value sub(Value a, Value b) { return make(sub_op, {std::move(a), std::move(b)}); }
Value mul(Value a, Value b) { return make(mul_op, {std::move(a), std::move(b)}); }
Value div(Value a, Value b) { return make(div_op, {std::move(a), std::move(b)}); }
Value rem(Value a, Value b) { return make(rem_op, {std::move(a), std::move(b)}); }
Value pow(Value a, Value b) { return make(pow_op, {std::move(a), std::move(b)}); }
Value max(Value a, Value b) { return make(max_op, {std::move(a), std::move(b)}); }
Value min(Value a, Value b) { return make(min_op, {std::move(a), std::move(b)}); }
Value atan2(Value a, Value b) { return make(atan2_op, {std::move(a), std::move(b)}); }
Value eq(Value a, Value b) { return make(eq_op, {std::move(a), std::move(b)}); }
Value ne(Value a, Value b) { return make(ne_op, {std::move(a), std::move(b)}); }
Value lt(Value a, Value b) { return make(lt_op, {std::move(a), std::move(b)}); }
Value le(Value a, Value b) { return make(le_op, {std::move(a), std::move(b)}); }
Value gt(Value a, Value b) { return make(gt_op, {std::move(a), std::move(b)}); }
Value ge(Value a, Value b) { return make(ge_op, {std::move(a), std::move(b)}); }
Value logical_and(Value a, Value b) { return make(logical_and_op, {std::move(a), std::move(b)}); }
Value logical_or(Value a, Value b) { return make(logical_or_op, {std::move(a), std::move(b)}); }
Value logical_xor(Value a, Value b) { return make(logical_xor_op, {std::move(a), std::move(b)}); }
Value shift_left(Value a, Value b) { return make(shift_left_op, {std::move(a), std::move(b)}); }
Value shift_right(Value a, Value b) { return make(shift_right_op, {std::move(a), std::move(b)}); }
Value select(Value condition, Value if_true, Value if_false) {
  return make(select_op, {std::move(condition), std::move(if_true), std::move(if_false)});
}
Value clamp(Value x, Value low, Value high) {
  return make(clamp_op, {std::move(x), std::move(low), std::move(high)});
}
Value cast(Value x, Dtype dtype) {
  return x.dtype() == dtype ? x : make(cast_op, {std::move(x)}, CastAttrs{dtype});
}

Value full_like(const Value& like, double value) {
  return broadcast_in(ir::constant(like.dtype(), value), like.dims(), {});
}
Value zeros_like(const Value& like) { return full_like(like, 0); }
Value ones_like(const Value& like) { return full_like(like, 1); }
Value add(Value x, double b) { return add(x, full_like(x, b)); }
Value sub(Value x, double b) { return sub(x, full_like(x, b)); }
Value mul(Value x, double b) { return mul(x, full_like(x, b)); }
Value div(Value x, double b) { return div(x, full_like(x, b)); }

}  // namespace espalier::op
