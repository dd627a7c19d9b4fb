#include "target/cpu/emit/scalar_ops.h"

#include <cmath>
#include <limits>

#include "base/error.h"

namespace espalier::target::cpu {

using ir::Dtype;
using ir::ScalarCode;

namespace {

bool is_signed(Dtype d) { return d != Dtype::u8 && d != Dtype::boolean; }

}  // namespace

IrType register_type(Dtype d) {
  switch (d) {
    case Dtype::f64: return ir_f64;
    case Dtype::f32:
    case Dtype::bf16:
    case Dtype::f16: return ir_f32;
    case Dtype::i64: return ir_i64;
    case Dtype::i32: return ir_i32;
    case Dtype::i8:
    case Dtype::u8: return ir_i8;
    case Dtype::boolean: break;
  }
  return ir_i1;
}

IrType memory_type(Dtype d) {
  return d == Dtype::bf16      ? ir_i16
         : d == Dtype::f16     ? ir_f16
         : d == Dtype::boolean ? ir_i8
                               : register_type(d);
}

Val ScalarOps::from_memory(const Val& x, Dtype d) {
  if (d == Dtype::boolean) return w_.icmp("ne", x, IrWriter::zero(x.type));
  if (d == Dtype::f16) return w_.convert("fpext", x, ir_f32);
  if (d != Dtype::bf16) return x;
  const Val wide = w_.convert("zext", x, ir_i32);
  return w_.convert("bitcast", w_.binary("shl", wide, IrWriter::integer(wide.type, 16)), ir_f32);
}

/// The 16 bits of bfloat16, to nearest even; NaN stays a quiet NaN.
Val ScalarOps::round_bf16(const Val& x) {
  if (features_.avx512_bf16 && x.type.lanes == 16) {
    const Val y = w_.fresh({'i', 16, 16});
    Val z = w_.fresh({'i', 16, 16});
    const std::string type = "<16 x bfloat>";
    w_.declare("declare " + type + " @llvm.x86.avx512bf16.cvtneps2bf16.512(<16 x float>)");
    w_.raw(y.name + " = call " + type + " @llvm.x86.avx512bf16.cvtneps2bf16.512(<16 x float> " + x.name +
           ")");
    w_.raw(z.name + " = bitcast " + type + " " + y.name + " to <16 x i16>");
    return z;
  }
  const Val b = w_.convert("bitcast", x, ir_i32);
  const auto i = [&](int64_t v) { return IrWriter::integer(b.type, v); };
  const Val even = w_.binary("and", w_.binary("lshr", b, i(16)), i(1));
  const Val rounded = w_.binary("lshr", w_.binary("add", w_.binary("add", b, i(0x7fff)), even), i(16));
  const Val quiet = w_.binary("or", w_.binary("lshr", b, i(16)), i(0x40));
  return w_.convert("trunc", w_.select(w_.fcmp("uno", x, x), quiet, rounded), ir_i16);
}

Val ScalarOps::to_memory(const Val& x, Dtype d) {
  if (d == Dtype::boolean) return w_.convert("zext", x, ir_i8);
  if (d == Dtype::f16) return w_.convert("fptrunc", x, ir_f16);
  return d == Dtype::bf16 ? round_bf16(x) : x;
}

Val ScalarOps::float_to_integer(const Val& x, Dtype to) {
  const bool narrow = to == Dtype::i8 || to == Dtype::u8;
  const int bits = static_cast<int>(ir::dtype_size(to)) * 8;
  const double low = to == Dtype::u8 ? 0.0 : -std::ldexp(1.0, bits - 1);
  const double high = to == Dtype::u8 ? 255.0 : std::ldexp(1.0, bits - 1) - (narrow ? 1.0 : 0.0);
  const auto c = [&](double v) { return IrWriter::real(x.type, v); };
  Val y = w_.select(w_.fcmp("uno", x, x), c(0.0), x);
  y = w_.select(w_.fcmp("olt", y, c(low)), c(low), y);
  if (narrow) {
    y = w_.select(w_.fcmp("ogt", y, c(high)), c(high), y);
    return w_.convert("trunc", w_.convert("fptosi", y, ir_i32), ir_i8);
  }
  const Val above = w_.fcmp("oge", y, c(high));  // `high` itself is 2^31 or 2^63
  const Val n = w_.convert("fptosi", w_.select(above, c(0.0), y), register_type(to));
  const int64_t most =
      to == Dtype::i32 ? std::numeric_limits<int32_t>::max() : std::numeric_limits<int64_t>::max();
  return w_.select(above, IrWriter::integer(n.type, most), n);
}

Val ScalarOps::cast(const Val& x, Dtype from, Dtype to) {
  const IrType target = register_type(to);
  if (to == Dtype::boolean) {
    if (from == Dtype::boolean) return x;
    return ir::is_float(from) ? w_.fcmp("une", x, IrWriter::zero(x.type))
                              : w_.icmp("ne", x, IrWriter::zero(x.type));
  }
  if (ir::is_float(from)) {
    if (!ir::is_float(to)) return float_to_integer(x, to);
    const Val y = w_.convert(x.type.bits < target.bits ? "fpext" : "fptrunc", x, target);
    const bool exact = from == to || (to != Dtype::bf16 && to != Dtype::f16);
    return exact ? y : from_memory(to_memory(y, to), to);
  }
  if (ir::is_float(to)) {
    const Val y = w_.convert(is_signed(from) ? "sitofp" : "uitofp", x, target);
    return to == Dtype::bf16 || to == Dtype::f16 ? from_memory(to_memory(y, to), to) : y;
  }
  return w_.convert(x.type.bits > target.bits ? "trunc" : is_signed(from) ? "sext" : "zext", x, target);
}

/// A bool where a number of dtype `of` is expected: 0 or 1.
Val ScalarOps::as_number(const Val& x, Dtype of) {
  const bool is_bool = x.type.kind == 'i' && x.type.bits == 1;
  return is_bool && of != Dtype::boolean ? cast(x, Dtype::boolean, of) : x;
}

Val ScalarOps::scalar(ScalarCode code, Dtype of, std::vector<Val> x, bool brief) {
  if (code == ScalarCode::select) {
    const Val c = x[0].type.bits == 1 ? x[0] : cast(x[0], of, Dtype::boolean);
    return w_.select(c, as_number(x[1], of), as_number(x[2], of));
  }
  for (Val& v : x) v = as_number(v, of);
  if (x.size() == 1) return unary(code, of, x[0], brief);
  if (code >= ScalarCode::eq && code <= ScalarCode::ge) return compare(code, of, x[0], x[1]);
  return binary(code, of, x[0], x[1]);
}

Val ScalarOps::library(const char* name, std::vector<Val> x) {
  const std::string prefix = x[0].type.bits == 64 ? "esp_f64_" : "esp_f32_";
  return w_.call_lanes(prefix + name, x[0].type.with_lanes(1), x);
}

Val ScalarOps::float_unary(ScalarCode code, const Val& x, bool brief) {
  const bool wide = x.type.bits == 64;
  switch (code) {
    case ScalarCode::neg: return w_.fneg(x);
    case ScalarCode::abs: return w_.intrinsic("llvm.fabs", {x});
    case ScalarCode::sqrt: return w_.intrinsic("llvm.sqrt", {x});
    case ScalarCode::rsqrt:
      return w_.binary("fdiv", IrWriter::real(x.type, 1.0), w_.intrinsic("llvm.sqrt", {x}));
    case ScalarCode::floor: return w_.intrinsic("llvm.floor", {x});
    case ScalarCode::ceil: return w_.intrinsic("llvm.ceil", {x});
    case ScalarCode::round: return w_.intrinsic("llvm.roundeven", {x});
    case ScalarCode::trunc: return w_.intrinsic("llvm.trunc", {x});
    case ScalarCode::is_nan: return w_.fcmp("uno", x, x);
    case ScalarCode::logical_not: return w_.fcmp("oeq", x, IrWriter::zero(x.type));
    case ScalarCode::exp: return wide ? library("exp", {x}) : math_.exp(x, brief);
    case ScalarCode::expm1: return wide ? library("expm1", {x}) : math_.expm1(x);
    case ScalarCode::log: return wide ? library("log", {x}) : math_.log(x, brief);
    case ScalarCode::log1p: return wide ? library("log1p", {x}) : math_.log1p(x, brief);
    case ScalarCode::tanh: return wide ? library("tanh", {x}) : math_.tanh(x, brief);
    case ScalarCode::erf: return wide ? library("erf", {x}) : math_.erf(x, brief);
    case ScalarCode::sin: return wide ? library("sin", {x}) : math_.sin(x);
    case ScalarCode::cos: return wide ? library("cos", {x}) : math_.cos(x);
    case ScalarCode::tan: return library("tan", {x});
    case ScalarCode::atan: return library("atan", {x});
    case ScalarCode::sign: {
      const Val one = w_.intrinsic("llvm.copysign", {IrWriter::real(x.type, 1.0), x});
      return w_.select(w_.fcmp("one", x, IrWriter::zero(x.type)), one, x);
    }
    default:
      throw InternalError("scalar operation " + std::string(scalar_code_name(code)) + " takes more operands");
  }
}

Val ScalarOps::unary(ScalarCode code, Dtype of, const Val& x, bool brief) {
  if (ir::is_float(of)) return float_unary(code, x, brief);
  const Val zero = IrWriter::zero(x.type);
  if (of == Dtype::boolean) {
    ESPALIER_CHECK(code == ScalarCode::logical_not, "bool operand of " + std::string(scalar_code_name(code)));
    return w_.binary("xor", x, IrWriter::integer(x.type, 1));
  }
  const bool minus = is_signed(of);
  switch (code) {
    case ScalarCode::neg: return w_.binary("sub", zero, x);
    case ScalarCode::abs: return minus ? w_.select(w_.icmp("slt", x, zero), w_.binary("sub", zero, x), x) : x;
    case ScalarCode::sign: {
      const Val positive = w_.convert("zext", w_.icmp(minus ? "sgt" : "ugt", x, zero), register_type(of));
      return minus ? w_.select(w_.icmp("slt", x, zero), IrWriter::integer(x.type, -1), positive) : positive;
    }
    case ScalarCode::logical_not: return w_.binary("xor", x, IrWriter::integer(x.type, -1));
    case ScalarCode::is_nan: return IrWriter::zero(ir_i1.with_lanes(x.type.lanes));
    case ScalarCode::floor:
    case ScalarCode::ceil:
    case ScalarCode::round:
    case ScalarCode::trunc: return x;
    default: break;  // functions of reals go through f64, as the reference's do
  }
  const Val real = float_unary(code, cast(x, of, Dtype::f64), false);
  return cast(cast(real, Dtype::f64, Dtype::i64), Dtype::i64, of);
}

Val ScalarOps::compare(ScalarCode code, Dtype of, const Val& x, const Val& y) {
  static constexpr const char* ordered[] = {"oeq", "une", "olt", "ole", "ogt", "oge"};
  static constexpr const char* with_sign[] = {"eq", "ne", "slt", "sle", "sgt", "sge"};
  static constexpr const char* without[] = {"eq", "ne", "ult", "ule", "ugt", "uge"};
  const auto i = static_cast<size_t>(code) - static_cast<size_t>(ScalarCode::eq);
  if (ir::is_float(of)) return w_.fcmp(ordered[i], x, y);
  return w_.icmp(is_signed(of) ? with_sign[i] : without[i], x, y);
}

/// As the reference: a if a is NaN, b if b is NaN, else the larger, b where they are equal.
Val ScalarOps::extreme(bool max, Dtype of, const Val& a, const Val& b) {
  if (of == Dtype::boolean) return w_.binary(max ? "or" : "and", a, b);
  if (!ir::is_float(of)) {
    const std::string base = std::string("llvm.") + (is_signed(of) ? "s" : "u") + (max ? "max" : "min");
    return w_.intrinsic(base, {a, b});
  }
  const bool b_is_number = b.name[0] != '%' && b.name.find("0x7FF8") == std::string::npos;
  if (b_is_number) return w_.select(w_.fcmp(max ? "ole" : "oge", a, b), b, a);
  const Val best = w_.select(w_.fcmp(max ? "ogt" : "olt", a, b), a, b);  // b where unordered
  return w_.select(w_.fcmp("uno", a, a), a, best);
}

/// Exponents that are constants 1, 2, 3, -1 are products: as exact, and far cheaper.
Val ScalarOps::float_pow(const Val& x, const Val& y) {
  const auto exponent = [&](double v) { return y.name == IrWriter::real(y.type, v).name; };
  if (exponent(1.0)) return x;
  if (exponent(2.0)) return w_.binary("fmul", x, x);
  if (exponent(-1.0)) return w_.binary("fdiv", IrWriter::real(x.type, 1.0), x);
  return x.type.bits == 64 ? library("pow", {x, y}) : math_.pow(x, y);
}

Val ScalarOps::binary(ScalarCode code, Dtype of, const Val& x, const Val& y) {
  if (code == ScalarCode::max || code == ScalarCode::min) return extreme(code == ScalarCode::max, of, x, y);
  if (!ir::is_float(of)) return integer_binary(code, is_signed(of), x, y);
  switch (code) {
    case ScalarCode::add: return w_.binary("fadd", x, y);
    case ScalarCode::sub: return w_.binary("fsub", x, y);
    case ScalarCode::mul: return w_.binary("fmul", x, y);
    case ScalarCode::div: return w_.binary("fdiv", x, y);
    case ScalarCode::pow: return float_pow(x, y);
    case ScalarCode::rem: return library("rem", {x, y});
    case ScalarCode::atan2: return library("atan2", {x, y});
    default: throw InternalError("scalar operation " + std::string(scalar_code_name(code)) + " on floats");
  }
}

/// Division by 0 gives 0; the one overflow wraps; a remainder by 0 or -1 is 0.
Val ScalarOps::integer_divide(bool remainder, bool sign, const Val& x, const Val& y) {
  const IrType type = x.type.lanes > y.type.lanes ? x.type : y.type;
  const Val zero = IrWriter::zero(type), one = IrWriter::integer(type, 1),
            minus_one = IrWriter::integer(type, -1);
  Val unsafe = w_.icmp("eq", y, zero);
  const Val by_zero = unsafe;
  if (sign) unsafe = w_.binary("or", unsafe, w_.icmp("eq", y, minus_one));
  const Val q =
      w_.binary(std::string(sign ? "s" : "u") + (remainder ? "rem" : "div"), x, w_.select(unsafe, one, y));
  if (remainder) return w_.select(unsafe, zero, q);
  const Val negated = sign ? w_.select(w_.icmp("eq", y, minus_one), w_.binary("sub", zero, x), q) : q;
  return w_.select(by_zero, zero, negated);
}

Val ScalarOps::integer_binary(ScalarCode code, bool sign, const Val& x, const Val& y) {
  switch (code) {
    case ScalarCode::add: return w_.binary("add", x, y);
    case ScalarCode::sub: return w_.binary("sub", x, y);
    case ScalarCode::mul: return w_.binary("mul", x, y);
    case ScalarCode::div: return integer_divide(false, sign, x, y);
    case ScalarCode::rem: return integer_divide(true, sign, x, y);
    case ScalarCode::logical_and: return w_.binary("and", x, y);
    case ScalarCode::logical_or: return w_.binary("or", x, y);
    case ScalarCode::logical_xor: return w_.binary("xor", x, y);
    default: break;
  }
  const IrType narrow = x.type.with_lanes(1);
  const auto widen = [&](const Val& v) { return w_.convert(sign ? "sext" : "zext", v, ir_i64); };
  Val a = widen(x), b = widen(y);
  const auto i = [&](const Val& like, int64_t v) { return IrWriter::integer(like.type, v); };
  if (code == ScalarCode::pow) {
    const std::vector<Val> both{a, b};
    const Val r = w_.call_lanes("esp_i64_pow", ir_i64, both);
    return w_.convert("trunc", r, narrow);
  }
  const Val outside = w_.icmp("ugt", b, i(b, 63));
  Val r;
  if (code == ScalarCode::shift_left)
    r = w_.select(outside, i(a, 0), w_.binary("shl", a, w_.select(outside, i(b, 0), b)));
  else if (code == ScalarCode::shift_right) r = w_.binary("ashr", a, w_.select(outside, i(b, 63), b));
  else throw InternalError("scalar operation " + std::string(scalar_code_name(code)) + " on integers");
  return w_.convert("trunc", r, narrow);
}

}  // namespace espalier::target::cpu
