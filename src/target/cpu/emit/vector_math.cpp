#include "target/cpu/emit/vector_math.h"

#include <limits>

#include "kernel/math_tables.h"

namespace espalier::target::cpu {

using namespace kernel::math_tables;  // NOLINT: tables of this file's functions

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(),
                 nan_value = std::numeric_limits<double>::quiet_NaN();

}  // namespace

Val VectorMath::horner(const Val& x, std::span<const double> k) {
  Val r = c(x, k[0]);
  for (size_t i = 1; i < k.size(); ++i) r = fma(r, x, c(x, k[i]));
  return r;
}

Val VectorMath::at_most(Val x, double high) {
  return w_.select(w_.fcmp("ogt", x, c(x, high)), c(x, high), x);
}
Val VectorMath::at_least(Val x, double low) { return w_.select(w_.fcmp("olt", x, c(x, low)), c(x, low), x); }

/// The integer n comes from the low bits after adding a number whose unit in the last place is 1, so NaN needs no care.
VectorMath::Reduced VectorMath::reduce_exp(const Val& x, double shift) {
  const Val magic = c(x, round_magic_f32);
  const Val t = shift == 0 ? fma(x, c(x, log2_e), magic) : add(fma(x, c(x, log2_e), c(x, -shift)), magic);
  const Val n = sub(t, magic);
  const Val r = fma(n, c(x, -ln2_low), fma(n, c(x, -ln2_high), x));
  return {n, w_.binary("sub", bits(t), bits(magic)), r};
}

Val VectorMath::exp_minus_one_of(const Val& r, int degree) {
  const std::span<const double> k = degree >= 6   ? std::span<const double>(exp_full)
                                    : degree == 5 ? std::span<const double>(exp_middle)
                                                  : std::span<const double>(exp_brief);
  return fma(horner(r, k), mul(r, r), r);
}

Val VectorMath::power_of_two(const Val& n, int bias, int shift) {
  return real_of_bits(w_.binary("shl", w_.binary("add", n, IrWriter::integer(n.type, bias)),
                                IrWriter::integer(n.type, shift)));
}

/// p * 2^n for n in [-151, 129], rounded once: in one instruction, or by two factors, the first of which is exact.
Val VectorMath::scale(const Val& p, const Reduced& k) {
  if (features_.avx512 && p.type.lanes == 16) {
    const IrType mask{'i', 16};
    return w_.call("llvm.x86.avx512.mask.scalef.ps.512", p.type,
                   std::vector<Val>{p, k.n, IrWriter::zero(p.type), IrWriter::integer(mask, -1),
                                    IrWriter::integer(ir_i32, 4)});
  }
  const Val half = w_.binary("ashr", k.n_int, IrWriter::integer(k.n_int.type, 1));
  const Val rest = w_.binary("sub", k.n_int, half);
  return mul(mul(p, power_of_two(half, 127, 23)), power_of_two(rest, 127, 23));
}

Val VectorMath::exp(Val x, bool brief) {
  const Reduced k = reduce_exp(at_least(at_most(std::move(x), 89.0), -104.1));
  return scale(add(exp_minus_one_of(k.r, brief ? 4 : 6), c(k.r, 1.0)), k);
}

Val VectorMath::expm1(Val x) {
  const Reduced k = reduce_exp(at_least(at_most(x, 88.8), -20.0));
  const Val e = exp_minus_one_of(k.r, 6);
  const Val half = power_of_two(k.n_int, 126, 23);  // 2^(n-1), so that 2^128 is not needed
  const Val sum = fma(e, half, sub(half, c(x, 0.5)));
  const Val tiny = w_.fcmp("olt", abs(x), c(x, 1e-9));
  return w_.select(tiny, x, add(sum, sum));
}

/// t / (t + 2) with t = e^2|x| - 1; the range is shifted so that n is 0, and t exact to its last digits, for small x.
Val VectorMath::tanh(Val x, bool brief) {
  const Val a = at_most(abs(x), 10.0);
  const Reduced k = reduce_exp(add(a, a), brief ? 0 : 0.25);
  const Val e = brief ? exp_minus_one_of(k.r, 5) : fma(horner(k.r, exp_shifted), mul(k.r, k.r), k.r);
  const Val s = power_of_two(k.n_int, 127, 23);
  const Val t = fma(e, s, sub(s, c(x, 1.0)));
  return with_sign(div(t, add(t, c(x, 2.0))), x);
}

Val VectorMath::log(Val x, bool brief) {
  const Val small = w_.fcmp("olt", x, c(x, 0x1p-126));
  const Val scaled = w_.select(small, mul(x, c(x, 0x1p23)), x);
  const Val b = bits(scaled);
  const auto i = [&](int64_t v) { return IrWriter::integer(b.type, v); };
  const Val k = w_.binary("ashr", w_.binary("sub", b, i(0x3f3504f3)), i(23));  // 0x3f3504f3: sqrt(1/2)
  const Val m = real_of_bits(w_.binary("sub", b, w_.binary("shl", k, i(23))));
  const Val e = add(w_.convert("sitofp", k, ir_f32), w_.select(small, c(x, -23.0), c(x, 0.0)));
  const Val f = sub(m, c(x, 1.0)), q = mul(f, f);
  const Val p = horner(f, brief ? std::span<const double>(log_brief) : std::span<const double>(log_full));
  Val y = mul(mul(p, f), q);
  y = fma(e, c(x, ln2_rest), y);
  y = fma(q, c(x, -0.5), y);
  const Val r = fma(e, c(x, ln2_short), add(f, y));
  const Val edge = w_.select(w_.fcmp("oeq", x, c(x, 0.0)), c(x, -infinity), c(x, nan_value));
  const Val right = w_.select(w_.fcmp("ogt", x, c(x, 0.0)), r, edge);
  return w_.select(w_.fcmp("oeq", x, c(x, infinity)), x, right);
}

/// log(1+x) with what rounding 1+x lost put back.
Val VectorMath::log1p(Val x, bool brief) {
  const Val one = c(x, 1.0), u = add(one, x);
  const Val l = log(u, brief);
  const Val fixed = add(l, div(sub(x, sub(u, one)), u));
  const Val plain = w_.binary("or", w_.fcmp("oeq", x, c(x, infinity)), w_.fcmp("ule", x, c(x, -1.0)));
  return w_.select(w_.fcmp("oeq", u, one), x, w_.select(plain, l, fixed));
}

Val VectorMath::erf(Val x, bool brief) {
  const Val a = abs(x), z = mul(x, x);
  using Span = std::span<const double>;
  const Val near = fma(x, horner(z, brief ? Span(erf_near_brief) : Span(erf_near_full)), x);
  const Val q = horner(at_most(a, 3.93), brief ? Span(erf_far_brief) : Span(erf_far_full));
  const Reduced k = reduce_exp(q);
  const Val e = mul(add(exp_minus_one_of(k.r, brief ? 4 : 6), c(x, 1.0)), power_of_two(k.n_int, 127, 23));
  const Val far = with_sign(sub(c(x, 1.0), e), x);
  return w_.select(w_.fcmp("ogt", a, c(x, 0.9277)), far, near);
}

/// sin(x + quarter * pi/2) for |x| < 2^50: the multiple of pi/2 is taken off in f64, in two steps.
Val VectorMath::sine_near(const Val& x, int quarter) {
  const Val wide = w_.convert("fpext", x, ir_f64);
  const Val magic = c(wide, round_magic_f64);
  const Val t = fma(wide, c(wide, two_over_pi), magic);
  const Val n = sub(t, magic);
  const Val r64 = fma(n, c(wide, -half_pi_low), fma(n, c(wide, -half_pi_high), wide));
  const Val r = w_.convert("fptrunc", r64, ir_f32);
  const Val turns = w_.binary("add", w_.convert("trunc", bits(t), ir_i32),
                              IrWriter::integer({'i', 32, x.type.lanes}, quarter));
  const auto i = [&](int64_t v) { return IrWriter::integer(turns.type, v); };
  const Val z = mul(r, r);
  const Val s = fma(mul(horner(z, sine_near_zero), z), r, r);
  const Val k = fma(mul(horner(z, cosine_near_zero), z), z, fma(z, c(x, -0.5), c(x, 1.0)));
  const Val odd = w_.icmp("ne", w_.binary("and", turns, i(1)), i(0));
  const Val flip = w_.binary("shl", w_.binary("and", turns, i(2)), i(30));
  return real_of_bits(w_.binary("xor", bits(w_.select(odd, k, s)), flip));
}

Val VectorMath::sine(Val x, int quarter) {
  Val near = sine_near(x, quarter);
  if (quarter == 0) near = w_.select(w_.fcmp("oeq", x, c(x, 0.0)), x, near);  // keeps the sign
  const Val far = w_.fcmp("ugt", abs(x), c(x, 0x1p50));
  const Val slot = w_.slot(x.type);
  w_.store_slot(slot, near);
  Val any = far;
  if (x.type.lanes > 1)
    any = w_.call("llvm.vector.reduce.or." + far.type.mangled(), ir_i1, std::vector<Val>{far});
  w_.if_else(any, [&] {
    const Val slow = w_.call_lanes(quarter == 0 ? "esp_f32_sin" : "esp_f32_cos", ir_f32, std::vector<Val>{x});
    w_.store_slot(slot, w_.select(far, slow, near));
  });
  return w_.load_slot(slot, x.type);
}

/// log2 of a positive finite f32 held as f64, to 2^-40: 2 atanh(s) with s = (m-1)/(m+1).
Val VectorMath::log2_wide(const Val& x) {
  const Val b = bits(x);
  const auto i = [&](int64_t v) { return IrWriter::integer(b.type, v); };
  const Val k = w_.binary("ashr", w_.binary("sub", b, i(0x3fe6a09e667f3bcd)), i(52));
  const Val m = real_of_bits(w_.binary("sub", b, w_.binary("shl", k, i(52))));
  const Val s = div(sub(m, c(x, 1.0)), add(m, c(x, 1.0))), z = mul(s, s);
  const Val k32 = w_.convert("trunc", k, ir_i32);
  return fma(horner(z, log2_wide_series), s, w_.convert("sitofp", k32, ir_f64));
}

/// 2^x for |x| < 1000 in f64, to 2^-36.
Val VectorMath::exp2_wide(const Val& x) {
  const Val magic = c(x, round_magic_f64), t = add(x, magic), n = sub(t, magic), f = sub(x, n);
  return mul(horner(f, exp2_wide_series), power_of_two(w_.binary("sub", bits(t), bits(magic)), 1023, 52));
}

/// x^y through f64, with C's special cases.
Val VectorMath::pow(Val x, Val y) {
  if (x.type.lanes < y.type.lanes) x = w_.splat(x, y.type.lanes);
  if (y.type.lanes < x.type.lanes) y = w_.splat(y, x.type.lanes);
  const Val a = abs(x), zero = c(x, 0.0), one = c(x, 1.0);
  Val l = log2_wide(w_.convert("fpext", a, ir_f64));
  l = w_.select(w_.fcmp("oeq", a, zero), c(l, -infinity), l);
  l = w_.select(w_.fcmp("oeq", a, c(x, infinity)), c(l, infinity), l);
  const Val e = mul(l, w_.convert("fpext", y, ir_f64));
  const Val size = w_.convert("fptrunc", exp2_wide(at_least(at_most(e, 200.0), -200.0)), ir_f32);
  const Val whole = w_.fcmp("oeq", w_.intrinsic("llvm.trunc", {y}), y);
  const Val half = mul(y, c(x, 0.5));
  const Val odd = w_.binary("and", whole, w_.fcmp("une", w_.intrinsic("llvm.trunc", {half}), half));
  const Val negative = w_.icmp("slt", bits(x), IrWriter::zero(int_type(x)));
  Val r = w_.select(w_.binary("and", negative, odd), w_.fneg(size), size);
  const Val finite = w_.fcmp("olt", a, c(x, infinity));
  const Val invalid = w_.binary("and", w_.binary("and", w_.fcmp("olt", x, zero), finite),
                                w_.fcmp("une", w_.intrinsic("llvm.trunc", {y}), y));
  r = w_.select(invalid, c(x, nan_value), r);
  r = w_.select(w_.fcmp("uno", x, y), c(x, nan_value), r);
  const Val infinite = w_.binary("and", w_.fcmp("oeq", a, one), w_.fcmp("oeq", abs(y), c(x, infinity)));
  const Val unit =
      w_.binary("or", w_.binary("or", w_.fcmp("oeq", x, one), w_.fcmp("oeq", y, zero)), infinite);
  return w_.select(unit, one, r);
}

}  // namespace espalier::target::cpu
