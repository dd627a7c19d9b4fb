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

inline Expr abs(const Expr& a) { return Expr::make(ScalarCode::abs, std::array{a}); }
inline Expr sign(const Expr& a) { return Expr::make(ScalarCode::sign, std::array{a}); }
inline Expr exp(const Expr& a) { return Expr::make(ScalarCode::exp, std::array{a}); }
inline Expr expm1(const Expr& a) { return Expr::make(ScalarCode::expm1, std::array{a}); }
inline Expr log(const Expr& a) { return Expr::make(ScalarCode::log, std::array{a}); }
inline Expr log1p(const Expr& a) { return Expr::make(ScalarCode::log1p, std::array{a}); }
inline Expr sqrt(const Expr& a) { return Expr::make(ScalarCode::sqrt, std::array{a}); }
inline Expr rsqrt(const Expr& a) { return Expr::make(ScalarCode::rsqrt, std::array{a}); }
inline Expr sin(const Expr& a) { return Expr::make(ScalarCode::sin, std::array{a}); }
inline Expr cos(const Expr& a) { return Expr::make(ScalarCode::cos, std::array{a}); }
inline Expr tan(const Expr& a) { return Expr::make(ScalarCode::tan, std::array{a}); }
inline Expr tanh(const Expr& a) { return Expr::make(ScalarCode::tanh, std::array{a}); }
inline Expr erf(const Expr& a) { return Expr::make(ScalarCode::erf, std::array{a}); }
inline Expr floor(const Expr& a) { return Expr::make(ScalarCode::floor, std::array{a}); }
inline Expr ceil(const Expr& a) { return Expr::make(ScalarCode::ceil, std::array{a}); }
inline Expr round(const Expr& a) { return Expr::make(ScalarCode::round, std::array{a}); }
inline Expr trunc(const Expr& a) { return Expr::make(ScalarCode::trunc, std::array{a}); }
inline Expr is_nan(const Expr& a) { return Expr::make(ScalarCode::is_nan, std::array{a}); }
inline Expr atan(const Expr& a) { return Expr::make(ScalarCode::atan, std::array{a}); }
inline Expr logical_not(const Expr& a) { return Expr::make(ScalarCode::logical_not, std::array{a}); }
inline Expr rem(const Expr& a, const Expr& b) { return Expr::make(ScalarCode::rem, std::array{a, b}); }
inline Expr pow(const Expr& a, const Expr& b) { return Expr::make(ScalarCode::pow, std::array{a, b}); }
inline Expr max(const Expr& a, const Expr& b) { return Expr::make(ScalarCode::max, std::array{a, b}); }
inline Expr min(const Expr& a, const Expr& b) { return Expr::make(ScalarCode::min, std::array{a, b}); }
inline Expr atan2(const Expr& a, const Expr& b) { return Expr::make(ScalarCode::atan2, std::array{a, b}); }
inline Expr shift_left(const Expr& a, const Expr& b) {
  return Expr::make(ScalarCode::shift_left, std::array{a, b});
}
inline Expr shift_right(const Expr& a, const Expr& b) {
  return Expr::make(ScalarCode::shift_right, std::array{a, b});
}
inline Expr logical_and(const Expr& a, const Expr& b) {
  return Expr::make(ScalarCode::logical_and, std::array{a, b});
}
inline Expr logical_or(const Expr& a, const Expr& b) {
  return Expr::make(ScalarCode::logical_or, std::array{a, b});
}
inline Expr logical_xor(const Expr& a, const Expr& b) {
  return Expr::make(ScalarCode::logical_xor, std::array{a, b});
}
inline Expr select(const Expr& c, const Expr& a, const Expr& b) {
  return Expr::make(ScalarCode::select, std::array{c, a, b});
}

inline Expr divide(const Expr& a, const Expr& b) { return a / b; }
inline Expr constant(const Expr&, double value) { return Expr(value); }

/// The same names for numbers (and for Expr, so that a body may say math::exp). Functions of reals are instantiated for
/// int64_t too, where the op's dtypes exclude them; they then go through double.
namespace math {
template <class T>
concept Number = std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, int64_t>;

/// f(t) in T's own precision, or in double for int64_t.
template <Number T, class F>
T real_function(T t, F f) {
  using R = std::conditional_t<std::is_same_v<T, int64_t>, double, T>;
  return static_cast<T>(f(static_cast<R>(t)));
}
template <Number T>
T exp(T x) {
  return real_function(x, [](auto r) { return std::exp(r); });
}
template <Number T>
T expm1(T x) {
  return real_function(x, [](auto r) { return std::expm1(r); });
}
template <Number T>
T log(T x) {
  return real_function(x, [](auto r) { return std::log(r); });
}
template <Number T>
T log1p(T x) {
  return real_function(x, [](auto r) { return std::log1p(r); });
}
template <Number T>
T sqrt(T x) {
  return real_function(x, [](auto r) { return std::sqrt(r); });
}
template <Number T>
T rsqrt(T x) {
  return real_function(x, [](auto r) { return 1 / std::sqrt(r); });
}
template <Number T>
T sin(T x) {
  return real_function(x, [](auto r) { return std::sin(r); });
}
template <Number T>
T cos(T x) {
  return real_function(x, [](auto r) { return std::cos(r); });
}
template <Number T>
T tan(T x) {
  return real_function(x, [](auto r) { return std::tan(r); });
}
template <Number T>
T tanh(T x) {
  return real_function(x, [](auto r) { return std::tanh(r); });
}
template <Number T>
T erf(T x) {
  return real_function(x, [](auto r) { return std::erf(r); });
}
template <Number T>
T floor(T x) {
  return real_function(x, [](auto r) { return std::floor(r); });
}
template <Number T>
T ceil(T x) {
  return real_function(x, [](auto r) { return std::ceil(r); });
}
template <Number T>
T round(T x) {
  return real_function(x, [](auto r) { return std::nearbyint(r); });
}
template <Number T>
T trunc(T x) {
  return real_function(x, [](auto r) { return std::trunc(r); });
}
template <Number T>
T atan(T x) {
  return real_function(x, [](auto r) { return std::atan(r); });
}

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
