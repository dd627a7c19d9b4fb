#include "target/cuda/emit/scalar.h"

#include <fmt/format.h>

#include <limits>

#include "base/error.h"
#include "target/cuda/port.h"

namespace espalier::target::cuda {

using ir::ScalarCode;

namespace {

bool is_16_bit(Dtype d) { return d == Dtype::bf16 || d == Dtype::f16; }

std::string integer_literal(Dtype d, int64_t n) {
  switch (d) {
    case Dtype::i64:
      if (n == std::numeric_limits<int64_t>::min()) return "(-9223372036854775807ll - 1)";
      return n < 0 ? fmt::format("({}ll)", n) : fmt::format("{}ll", n);
    case Dtype::i32: {
      const auto x = static_cast<int32_t>(n);
      if (x == std::numeric_limits<int32_t>::min()) return "(-2147483647 - 1)";
      return x < 0 ? fmt::format("({})", x) : fmt::format("{}", x);
    }
    case Dtype::i8: return fmt::format("static_cast<signed char>({})", static_cast<int8_t>(n));
    case Dtype::u8: return fmt::format("static_cast<unsigned char>({})", static_cast<uint8_t>(n));
    default: return n & 1 ? "true" : "false";
  }
}

std::string call(const char* name, const std::string& x) { return fmt::format("{}({})", name, x); }
std::string call(const char* name, const std::string& x, const std::string& y) {
  return fmt::format("{}({}, {})", name, x, y);
}
std::string infix(const std::string& x, const char* op, const std::string& y) {
  return fmt::format("({} {} {})", x, op, y);
}
/// A function named "esp_NAME" with a template over integers.
std::string wrapping(const char* name, Dtype d, const std::string& arguments) {
  return fmt::format("esp_{}<{}>({})", name, register_type(d), arguments);
}

/// A bool where a number of dtype `of` is expected: 0 or 1.
Val as_number(const Val& x, Dtype of) {
  if (x.dtype != Dtype::boolean || of == Dtype::boolean) return x;
  return {cast(x, of), of, of == Dtype::i64};
}

[[noreturn]] void no_operation(ScalarCode code, const char* on) {
  throw InternalError("scalar operation " + std::string(scalar_code_name(code)) + " on " + on);
}

/// f32 functions are the port's, f64 functions CUDA's own.
std::string float_function(const char* name, bool wide, const std::string& x) {
  return wide ? call(name, x) : fmt::format("esp_{}({})", name, x);
}

std::string float_unary(ScalarCode code, bool wide, const std::string& x) {
  const std::string one = wide ? "1.0" : "1.0f", zero = wide ? "0.0" : "0.0f";
  const auto builtin = [&](const char* name) { return fmt::format("{}{}({})", name, wide ? "" : "f", x); };
  switch (code) {
    case ScalarCode::neg: return fmt::format("(-{})", x);
    case ScalarCode::abs: return builtin("fabs");
    case ScalarCode::sqrt: return builtin("sqrt");
    case ScalarCode::rsqrt: return fmt::format("({} / {})", one, builtin("sqrt"));
    case ScalarCode::floor: return builtin("floor");
    case ScalarCode::ceil: return builtin("ceil");
    case ScalarCode::round: return builtin("rint");
    case ScalarCode::trunc: return builtin("trunc");
    case ScalarCode::sign: return call("esp_sign", x);
    case ScalarCode::is_nan: return infix(x, "!=", x);
    case ScalarCode::logical_not: return infix(x, "==", zero);
    case ScalarCode::exp:
    case ScalarCode::expm1:
    case ScalarCode::log:
    case ScalarCode::log1p:
    case ScalarCode::sin:
    case ScalarCode::cos:
    case ScalarCode::tan:
    case ScalarCode::tanh:
    case ScalarCode::erf:
    case ScalarCode::atan: return float_function(std::string(scalar_code_name(code)).c_str(), wide, x);
    default: no_operation(code, "one float");
  }
}

Val unary(ScalarCode code, Dtype of, const Val& x) {
  const bool truth = code == ScalarCode::is_nan || (code == ScalarCode::logical_not && is_float(of));
  if (is_float(of)) return {float_unary(code, of == Dtype::f64, x.text), truth ? Dtype::boolean : of};
  if (of == Dtype::boolean) {
    if (code != ScalarCode::logical_not) no_operation(code, "a bool");
    return {fmt::format("(!{})", x.text), of};
  }
  switch (code) {
    case ScalarCode::neg: return {wrapping("neg", of, x.text), of};
    case ScalarCode::abs: return {wrapping("abs", of, x.text), of};
    case ScalarCode::sign: return {wrapping("sign", of, x.text), of};
    case ScalarCode::logical_not: return {fmt::format("static_cast<{}>(~{})", register_type(of), x.text), of};
    case ScalarCode::is_nan: return {"false", Dtype::boolean};
    case ScalarCode::floor:
    case ScalarCode::ceil:
    case ScalarCode::round:
    case ScalarCode::trunc: return x;
    default: break;  // functions of reals go through f64, as the reference's do
  }
  const Val real{float_unary(code, true, cast(x, Dtype::f64)), Dtype::f64};
  return {cast({cast(real, Dtype::i64), Dtype::i64}, of), of};
}

const char* operator_of(ScalarCode code) {
  switch (code) {
    case ScalarCode::add: return "+";
    case ScalarCode::sub: return "-";
    case ScalarCode::mul: return "*";
    case ScalarCode::div: return "/";
    case ScalarCode::eq: return "==";
    case ScalarCode::ne: return "!=";
    case ScalarCode::lt: return "<";
    case ScalarCode::le: return "<=";
    case ScalarCode::gt: return ">";
    case ScalarCode::ge: return ">=";
    case ScalarCode::logical_and: return "&";
    case ScalarCode::logical_or: return "|";
    case ScalarCode::logical_xor: return "^";
    default: return nullptr;
  }
}

/// Exponents that are constants 1, 2, -1 are products, as on the CPU.
std::string float_pow(bool wide, const std::string& x, const std::string& y) {
  const auto exponent = [&](double v) { return y == constant(wide ? Dtype::f64 : Dtype::f32, v, 0).text; };
  if (exponent(1.0)) return x;
  if (exponent(2.0)) return infix(x, "*", x);
  if (exponent(-1.0)) return fmt::format("({} / {})", wide ? "1.0" : "1.0f", x);
  return call(wide ? "pow" : "esp_pow", x, y);
}

std::string float_binary(ScalarCode code, bool wide, const std::string& x, const std::string& y) {
  switch (code) {
    case ScalarCode::add:
    case ScalarCode::sub:
    case ScalarCode::mul:
    case ScalarCode::div: return infix(x, operator_of(code), y);
    case ScalarCode::max: return call("esp_max", x, y);
    case ScalarCode::min: return call("esp_min", x, y);
    case ScalarCode::pow: return float_pow(wide, x, y);
    case ScalarCode::rem: return call(wide ? "fmod" : "fmodf", x, y);
    case ScalarCode::atan2: return call(wide ? "atan2" : "esp_atan2", x, y);
    default: no_operation(code, "floats");
  }
}

std::string bool_binary(ScalarCode code, const std::string& x, const std::string& y) {
  switch (code) {
    case ScalarCode::logical_and:
    case ScalarCode::min: return infix(x, "&&", y);
    case ScalarCode::logical_or:
    case ScalarCode::max: return infix(x, "||", y);
    case ScalarCode::logical_xor: return infix(x, "!=", y);
    default: no_operation(code, "bools");
  }
}

/// Does `code` of numbers that fit 32 bits fit them too?
bool stays_below_2_32(ScalarCode code, const Val& x, const Val& y) {
  if (code == ScalarCode::logical_and) return x.below_2_32 || y.below_2_32;
  if (code == ScalarCode::shift_right) return x.below_2_32;
  const bool bitwise = code == ScalarCode::logical_or || code == ScalarCode::logical_xor;
  return (bitwise || code == ScalarCode::rem) && x.below_2_32 && y.below_2_32;
}

Val integer_binary(ScalarCode code, Dtype of, const Val& x, const Val& y) {
  const std::string both = x.text + ", " + y.text;
  const bool small = of == Dtype::i64 && stays_below_2_32(code, x, y);
  switch (code) {
    case ScalarCode::mul:
      if (of == Dtype::i64 && x.below_2_32 && y.below_2_32)
        return {
            fmt::format("esp_mul_wide(static_cast<unsigned>({}), static_cast<unsigned>({}))", x.text, y.text),
            of};
      return {wrapping("mul", of, both), of};
    case ScalarCode::logical_and:
    case ScalarCode::logical_or:
    case ScalarCode::logical_xor:
      return {fmt::format("static_cast<{}>({} {} {})", register_type(of), x.text, operator_of(code), y.text),
              of, small};
    case ScalarCode::add:
    case ScalarCode::sub:
    case ScalarCode::div:
    case ScalarCode::rem:
    case ScalarCode::pow:
    case ScalarCode::max:
    case ScalarCode::min:
    case ScalarCode::shift_left:
    case ScalarCode::shift_right:
      return {wrapping(std::string(scalar_code_name(code)).c_str(), of, both), of, small};
    default: no_operation(code, "integers");
  }
}

}  // namespace

const char* register_type(Dtype d) {
  switch (d) {
    case Dtype::f64: return "double";
    case Dtype::f32:
    case Dtype::bf16:
    case Dtype::f16: return "float";
    case Dtype::i64: return "long long";
    case Dtype::i32: return "int";
    case Dtype::i8: return "signed char";
    case Dtype::u8: return "unsigned char";
    case Dtype::boolean: break;
  }
  return "bool";
}

const char* memory_type(Dtype d) {
  return is_16_bit(d) ? "unsigned short" : d == Dtype::boolean ? "unsigned char" : register_type(d);
}

Val constant(Dtype d, double value, int64_t integer) {
  if (d == Dtype::f64) return {literal(value), d};
  if (is_float(d)) return {literal(static_cast<float>(value)), d};
  return {integer_literal(d, integer), d, d == Dtype::i64 && integer >= 0 && integer <= 0xffffffffll};
}

std::string from_memory(const std::string& x, Dtype d) {
  if (d == Dtype::boolean) return fmt::format("({} != 0)", x);
  if (d == Dtype::f16) return call("esp_f16_value", x);
  return d == Dtype::bf16 ? call("esp_bf16_value", x) : x;
}

std::string to_memory(const std::string& x, Dtype d) {
  if (d == Dtype::boolean) return fmt::format("static_cast<unsigned char>({})", x);
  if (d == Dtype::f16) return call("esp_f16_bits", x);
  return d == Dtype::bf16 ? call("esp_bf16_bits", x) : x;
}

std::string cast(const Val& x, Dtype to) {
  if (x.dtype == to) return x.text;
  const auto plain = [&](const std::string& text) {
    return fmt::format("static_cast<{}>({})", register_type(to), text);
  };
  if (to == Dtype::boolean) return fmt::format("({} != 0)", x.text);
  if (is_float(x.dtype) && is_integer(to)) {
    const char* name = to == Dtype::i64   ? "esp_i64_of"
                       : to == Dtype::i32 ? "esp_i32_of"
                       : to == Dtype::i8  ? "esp_i8_of"
                                          : "esp_u8_of";
    return call(name, x.text);
  }
  const bool same_register = std::string_view(register_type(x.dtype)) == register_type(to);
  const std::string y = same_register ? x.text : plain(x.text);
  return is_16_bit(to) ? from_memory(to_memory(y, to), to) : y;
}

Val scalar(ScalarCode code, Dtype of, const std::vector<Val>& operands) {
  if (code == ScalarCode::select) {
    const Val a = as_number(operands[1], of), b = as_number(operands[2], of);
    return {fmt::format("({} ? {} : {})", cast(operands[0], Dtype::boolean), a.text, b.text), of,
            a.below_2_32 && b.below_2_32};
  }
  const Val x = as_number(operands[0], of);
  if (operands.size() == 1) return unary(code, of, x);
  const Val y = as_number(operands[1], of);
  if (code >= ScalarCode::eq && code <= ScalarCode::ge)
    return {infix(x.text, operator_of(code), y.text), Dtype::boolean};
  if (is_float(of)) return {float_binary(code, of == Dtype::f64, x.text, y.text), of};
  if (of == Dtype::boolean) return {bool_binary(code, x.text, y.text), of};
  return integer_binary(code, of, x, y);
}

}  // namespace espalier::target::cuda
