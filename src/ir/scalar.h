#pragma once
// The mathematics of an elementwise op, written once as a generic lambda:
//
//     .scalar = body<1, [](auto x) { return math::exp(x); }>(),
//
// instantiated for float, double and int64_t (reference, constant folding) and for Expr, a recorder whose ScalarProgram
// the code generators read. Names such as exp and select stand in `espalier::ir::math` for all of these.
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/dtype.h"

namespace espalier::ir {

/// The primitive scalar operations: all a code generator must know.
enum class ScalarCode : uint8_t {
  argument,
  constant,  // leaves: `index`, `value`
  neg,
  abs,
  sign,
  exp,
  expm1,
  log,
  log1p,
  sqrt,
  rsqrt,
  sin,
  cos,
  tan,
  tanh,
  erf,
  floor,
  ceil,
  round,
  trunc,
  logical_not,
  is_nan,
  atan,  // one operand (round: half to even)
  add,
  sub,
  mul,
  div,
  rem,
  pow,
  max,
  min,
  atan2,  // two (max, min: NaN if either is NaN)
  eq,
  ne,
  lt,
  le,
  gt,
  ge,  // two, giving bool
  logical_and,
  logical_or,
  logical_xor,
  shift_left,
  shift_right,  // two (bitwise on integers)
  select,       // condition, if true, if false
};
/// "add", "select", ...
ESPALIER_API std::string_view scalar_code_name(ScalarCode code);

struct ScalarInstr {
  ScalarCode code = ScalarCode::constant;
  std::array<int, 3> operand{-1, -1, -1};  ///< indices of earlier instructions
  int index = 0;                           ///< argument: which
  double value = 0;                        ///< constant
  bool operator==(const ScalarInstr&) const = default;
};

/// A scalar function as a list; every value has the op's compute dtype, comparisons give bool. The last is the result.
struct ScalarProgram {
  std::vector<ScalarInstr> instrs;
  std::string text() const;  ///< "mul(a0, exp(neg(a1)))": for messages and goldens
};

/// Records what a scalar lambda does.
class Expr {
 public:
  Expr(double value);  // NOLINT: a number is an expression
  static Expr argument(int index);
  static Expr make(ScalarCode code, std::span<const Expr> operands);
  ScalarProgram program() const;

  friend Expr operator+(const Expr& a, const Expr& b) { return make(ScalarCode::add, std::array{a, b}); }
  friend Expr operator-(const Expr& a, const Expr& b) { return make(ScalarCode::sub, std::array{a, b}); }
  friend Expr operator*(const Expr& a, const Expr& b) { return make(ScalarCode::mul, std::array{a, b}); }
  friend Expr operator/(const Expr& a, const Expr& b) { return make(ScalarCode::div, std::array{a, b}); }
  friend Expr operator-(const Expr& a) { return make(ScalarCode::neg, std::array{a}); }
  friend Expr operator<(const Expr& a, const Expr& b) { return make(ScalarCode::lt, std::array{a, b}); }
  friend Expr operator<=(const Expr& a, const Expr& b) { return make(ScalarCode::le, std::array{a, b}); }
  friend Expr operator>(const Expr& a, const Expr& b) { return make(ScalarCode::gt, std::array{a, b}); }
  friend Expr operator>=(const Expr& a, const Expr& b) { return make(ScalarCode::ge, std::array{a, b}); }
  friend Expr operator==(const Expr& a, const Expr& b) { return make(ScalarCode::eq, std::array{a, b}); }
  friend Expr operator!=(const Expr& a, const Expr& b) { return make(ScalarCode::ne, std::array{a, b}); }
  friend Expr operator!(const Expr& a) { return make(ScalarCode::logical_not, std::array{a}); }
  friend Expr operator&(const Expr& a, const Expr& b) {
    return make(ScalarCode::logical_and, std::array{a, b});
  }
  friend Expr operator|(const Expr& a, const Expr& b) {
    return make(ScalarCode::logical_or, std::array{a, b});
  }
  friend Expr operator^(const Expr& a, const Expr& b) {
    return make(ScalarCode::logical_xor, std::array{a, b});
  }

 private:
  struct Item;
  explicit Expr(std::shared_ptr<const Item> item) : item_(std::move(item)) {}
  std::shared_ptr<const Item> item_;
};

#define ESPALIER_EXPR_UNARY(name) \
  inline Expr name(const Expr& a) { return Expr::make(ScalarCode::name, std::array{a}); }
ESPALIER_EXPR_UNARY(abs)
ESPALIER_EXPR_UNARY(sign) ESPALIER_EXPR_UNARY(exp) ESPALIER_EXPR_UNARY(expm1) ESPALIER_EXPR_UNARY(log)
    ESPALIER_EXPR_UNARY(log1p) ESPALIER_EXPR_UNARY(sqrt) ESPALIER_EXPR_UNARY(rsqrt) ESPALIER_EXPR_UNARY(sin)
        ESPALIER_EXPR_UNARY(cos) ESPALIER_EXPR_UNARY(tan) ESPALIER_EXPR_UNARY(tanh) ESPALIER_EXPR_UNARY(erf)
            ESPALIER_EXPR_UNARY(floor) ESPALIER_EXPR_UNARY(ceil) ESPALIER_EXPR_UNARY(round)
                ESPALIER_EXPR_UNARY(trunc) ESPALIER_EXPR_UNARY(is_nan) ESPALIER_EXPR_UNARY(atan)
                    ESPALIER_EXPR_UNARY(logical_not)
#undef ESPALIER_EXPR_UNARY
#define ESPALIER_EXPR_BINARY(name) \
  inline Expr name(const Expr& a, const Expr& b) { return Expr::make(ScalarCode::name, std::array{a, b}); }
                        ESPALIER_EXPR_BINARY(rem) ESPALIER_EXPR_BINARY(pow) ESPALIER_EXPR_BINARY(max)
                            ESPALIER_EXPR_BINARY(min) ESPALIER_EXPR_BINARY(atan2)
                                ESPALIER_EXPR_BINARY(shift_left) ESPALIER_EXPR_BINARY(shift_right)
                                    ESPALIER_EXPR_BINARY(logical_and) ESPALIER_EXPR_BINARY(logical_or)
                                        ESPALIER_EXPR_BINARY(logical_xor)
#undef ESPALIER_EXPR_BINARY
                                            inline Expr select(const Expr& c, const Expr& a, const Expr& b) {
  return Expr::make(ScalarCode::select, std::array{c, a, b});
}

inline Expr divide(const Expr& a, const Expr& b) { return a / b; }
inline Expr constant(const Expr&, double value) { return Expr(value); }

/// The same names for numbers (and for Expr, so that a body may say math::exp). Functions of reals are instantiated for int64_t too, where the op's dtypes exclude them;
/// they then go through double.
namespace math {
template <class T>
concept Number = std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, int64_t>;

#define ESPALIER_MATH_UNARY(name, expression)                            \
  template <Number T>                                                    \
  T name(T t) {                                                          \
    using R = std::conditional_t<std::is_same_v<T, int64_t>, double, T>; \
    const R x = static_cast<R>(t);                                       \
    return static_cast<T>(expression);                                   \
  }
ESPALIER_MATH_UNARY(exp, std::exp(x))
ESPALIER_MATH_UNARY(expm1, std::expm1(x)) ESPALIER_MATH_UNARY(log, std::log(x))
    ESPALIER_MATH_UNARY(log1p, std::log1p(x)) ESPALIER_MATH_UNARY(sqrt, std::sqrt(x))
        ESPALIER_MATH_UNARY(rsqrt, R(1) / std::sqrt(x)) ESPALIER_MATH_UNARY(sin, std::sin(x))
            ESPALIER_MATH_UNARY(cos, std::cos(x)) ESPALIER_MATH_UNARY(tan, std::tan(x))
                ESPALIER_MATH_UNARY(tanh, std::tanh(x)) ESPALIER_MATH_UNARY(erf, std::erf(x))
                    ESPALIER_MATH_UNARY(floor, std::floor(x)) ESPALIER_MATH_UNARY(ceil, std::ceil(x))
                        ESPALIER_MATH_UNARY(round, std::nearbyint(x))
                            ESPALIER_MATH_UNARY(trunc, std::trunc(x)) ESPALIER_MATH_UNARY(atan, std::atan(x))
#undef ESPALIER_MATH_UNARY

                                template <Number T>
                                T abs(T x) {
  if constexpr (std::is_same_v<T, int64_t>)
    return x < 0 ? static_cast<int64_t>(-static_cast<uint64_t>(x)) : x;
  else return std::fabs(x);
}
/// -1, 0 or 1; NaN stays NaN, a zero keeps its sign.
template <Number T>
T sign(T x) {
  return x > T(0) ? T(1) : x < T(0) ? T(-1) : x;
}
template <Number T>
bool is_nan(T x) {
  return x != x;
}
template <Number T>
T max(T a, T b) {
  return a != a ? a : b != b ? b : a > b ? a : b;
}
template <Number T>
T min(T a, T b) {
  return a != a ? a : b != b ? b : a < b ? a : b;
}
template <Number T>
T pow(T a, T b) {
  if constexpr (std::is_same_v<T, int64_t>) {  // integer power, wrapping; negative exponents give 0, 1 or -1
    if (b < 0) return a == 1 ? 1 : a == -1 ? ((b & 1) ? -1 : 1) : 0;
    uint64_t r = 1, base = static_cast<uint64_t>(a);
    for (uint64_t e = static_cast<uint64_t>(b); e; e >>= 1, base *= base)
      if (e & 1) r *= base;
    return static_cast<int64_t>(r);
  } else return std::pow(a, b);
}
/// Remainder with the sign of the dividend (C's); integer remainder by 0 gives 0.
template <Number T>
T rem(T a, T b) {
  if constexpr (std::is_same_v<T, int64_t>) return b == 0 || b == -1 ? 0 : a % b;
  else return std::fmod(a, b);
}
template <Number T>
T atan2(T a, T b) {
  return static_cast<T>(std::atan2(static_cast<double>(a), static_cast<double>(b)));
}
template <Number T>
T shift_left(T a, T b) {
  if constexpr (std::is_same_v<T, int64_t>)
    return b < 0 || b > 63 ? 0 : static_cast<int64_t>(static_cast<uint64_t>(a) << b);
  else return a;
}
template <Number T>
T shift_right(T a, T b) {
  if constexpr (std::is_same_v<T, int64_t>) return a >> (b < 0 || b > 63 ? 63 : b);
  else return a;
}
template <Number T>
T select(bool c, T a, T b) {
  return c ? a : b;
}
/// Integer division truncates; by 0 it gives 0; the one overflow wraps. Used by the div op's body.
template <Number T>
T divide(T a, T b) {
  if constexpr (std::is_same_v<T, int64_t>)
    return b == 0 ? 0 : b == -1 ? static_cast<int64_t>(-static_cast<uint64_t>(a)) : a / b;
  else return a / b;
}
/// A number of the same kind as `like` (an Expr, float, double or int64_t).
template <Number T>
T constant(T, double value) {
  return static_cast<T>(value);
}
/// Bitwise on integers. Bools are 0 and 1 as integers: what stores one keeps the lowest bit.
template <Number T>
T logical_and(T a, T b) {
  if constexpr (std::is_same_v<T, int64_t>) return a & b;
  else return T(a != 0 && b != 0);
}
template <Number T>
T logical_or(T a, T b) {
  if constexpr (std::is_same_v<T, int64_t>) return a | b;
  else return T(a != 0 || b != 0);
}
template <Number T>
T logical_xor(T a, T b) {
  if constexpr (std::is_same_v<T, int64_t>) return a ^ b;
  else return T((a != 0) != (b != 0));
}
template <Number T>
T logical_not(T a) {
  if constexpr (std::is_same_v<T, int64_t>) return ~a;
  else return T(a == 0);
}

using ir::abs, ir::sign, ir::exp, ir::expm1, ir::log, ir::log1p, ir::sqrt, ir::rsqrt, ir::sin, ir::cos,
    ir::tan, ir::tanh, ir::erf, ir::floor, ir::ceil, ir::round, ir::trunc, ir::is_nan, ir::atan, ir::rem,
    ir::pow, ir::max, ir::min, ir::atan2, ir::shift_left, ir::shift_right, ir::logical_and, ir::logical_or,
    ir::logical_xor, ir::logical_not, ir::select, ir::divide, ir::constant;
}  // namespace math

/// The instantiations of one scalar lambda; all null for ops that have none. Bool operands are 0 and 1.
struct Scalar {
  float (*f32)(const float*) = nullptr;
  double (*f64)(const double*) = nullptr;
  int64_t (*i64)(const int64_t*) = nullptr;
  Expr (*record)(const Expr*) = nullptr;
  constexpr explicit operator bool() const { return record != nullptr; }
  /// The recorded program over `arity` arguments.
  ScalarProgram program(int arity) const;
};

namespace detail {
template <auto F, class T, size_t... I>
auto apply_scalar(const T* x, std::index_sequence<I...>) {
  return F(x[I]...);
}
template <int N, auto F, class T, class R = T>
R scalar_entry(const T* x) {
  return static_cast<R>(apply_scalar<F>(x, std::make_index_sequence<N>{}));
}
template <int N, auto F>
Expr record_entry(const Expr* x) {
  return apply_scalar<F>(x, std::make_index_sequence<N>{});
}
}  // namespace detail

/// The scalar body of an op of N operands, for all number types.
template <int N, auto F>
constexpr Scalar body() {
  return {detail::scalar_entry<N, F, float>, detail::scalar_entry<N, F, double>,
          detail::scalar_entry<N, F, int64_t>, detail::record_entry<N, F>};
}

}  // namespace espalier::ir
