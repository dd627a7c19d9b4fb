#include "target/cpu/emit/vector_math.h"

#include <cmath>
#include <limits>

namespace espalier::target::cpu {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(),
                 nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double log2_e = 1.44269504088896340736, ln2 = 0.693147180559945309417;
constexpr double ln2_high = 0.693145751953125,
                 ln2_low = 1.42860682030941723212e-6;  // high: few bits, so n*high is exact

// (e^r - 1 - r) / r^2 on |r| <= ln2/2, highest power first; errors in e^r: 3e-9, 1e-7, 6e-6.
constexpr double exp_full[] = {1.388251796e-03, 8.366538161e-03, 4.166720043e-02, 1.666654349e-01,
                               4.999999815e-01};
constexpr double exp_middle[] = {8.374670290e-03, 4.189844627e-02, 1.666645694e-01, 4.999914576e-01};
constexpr double exp_brief[] = {4.192134834e-02, 1.675394746e-01, 4.999894971e-01};
// The same on ln2 * [-1/4, 3/4]; relative error in expm1 1.4e-8.
constexpr double exp_shifted[] = {1.602721798e-03, 8.282150506e-03, 4.166171013e-02, 1.666683978e-01,
                                  5.000000314e-01};
// (log(1+f) - f + f^2/2) / f^3 on [sqrt(1/2), sqrt(2)] - 1; relative errors in log: 6e-9, 2e-6.
constexpr double log_full[] = {-7.634493024e-02, 1.276157564e-01, -1.316018306e-01, 1.420175823e-01,
                               -1.662335730e-01, 2.000122687e-01, -2.500082104e-01, 3.333333171e-01};
constexpr double log_brief[] = {1.178189021e-01, -1.840718918e-01, 2.044218901e-01, -2.494383277e-01,
                                3.332086084e-01};
// erf(x)/x - 1 in x^2 for |x| <= 0.9277; relative errors 2e-8, 1.6e-5.
constexpr double erf_near_full[] = {-5.964252464e-04, 4.988003945e-03,  -2.676312415e-02,
                                    1.128172111e-01,  -3.761248476e-01, 1.283791482e-01};
constexpr double erf_near_brief[] = {-1.934573992e-02, 1.089930335e-01, -3.754704322e-01, 1.283611117e-01};
// log(erfc(t)) on [0.9277, 3.93]; errors in erf: 1.5e-9, 2.4e-8.
constexpr double erf_far_full[] = {1.950454454e-04,  -3.034456631e-03, 2.219194117e-02, -1.038589031e-01,
                                   -6.372652353e-01, -1.127626242e+00, -2.076541226e-04};
constexpr double erf_far_brief[] = {-1.231994247e-03, 1.542536343e-02,  -9.063864592e-02,
                                    -6.514576594e-01, -1.119679245e+00, -2.023222937e-03};
// (sin x - x)/x^3 and (cos x - 1 + x^2/2)/x^4 in x^2 for |x| <= pi/4; errors 4e-9 and 1e-10.
constexpr double sine_near_zero[] = {-1.951528302e-04, 8.332160760e-03, -1.666665461e-01};
constexpr double cosine_near_zero[] = {2.443315688e-05, -1.388731625e-03, 4.166664568e-02};

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
  const Val magic = c(x, 12582912.0);  // 1.5 * 2^23
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
  y = fma(e, c(x, ln2 - 0.693359375), y);
  y = fma(q, c(x, -0.5), y);
  const Val r = fma(e, c(x, 0.693359375), add(f, y));
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
  const Val magic = c(wide, 6755399441055744.0);  // 1.5 * 2^52
  const Val t = fma(wide, c(wide, 0.63661977236758134308), magic);
  const Val n = sub(t, magic);
  const Val r64 = fma(n, c(wide, -6.123233995736766e-17), fma(n, c(wide, -1.5707963267948966), wide));
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
  const Val near = sine_near(x, quarter);
  const Val far = w_.fcmp("ugt", abs(x), c(x, 0x1p50));
  const Val slot = w_.slot(x.type);
  w_.store_slot(slot, quarter == 0 ? w_.select(w_.fcmp("oeq", x, c(x, 0.0)), x, near) : near);
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
  std::vector<double> series;
  for (int n = 19; n >= 1; n -= 2) series.push_back(2.0 * log2_e / n);
  const Val k32 = w_.convert("trunc", k, ir_i32);
  return fma(horner(z, series), s, w_.convert("sitofp", k32, ir_f64));
}

/// 2^x for |x| < 1000 in f64, to 2^-36.
Val VectorMath::exp2_wide(const Val& x) {
  const Val magic = c(x, 6755399441055744.0), t = add(x, magic), n = sub(t, magic), f = sub(x, n);
  std::vector<double> series;
  for (int k = 10; k >= 0; --k) series.push_back(std::pow(ln2, k) / std::tgamma(k + 1.0));
  return mul(horner(f, series), power_of_two(w_.binary("sub", bits(t), bits(magic)), 1023, 52));
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
