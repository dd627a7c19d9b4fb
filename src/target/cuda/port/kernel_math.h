// Elementary functions of f32: the CPU's algorithms (target/cpu/emit/vector_math.cpp) over the same tables, so with fma only
// where it is written the same bits; sin, cos and tan of arguments above 2^50 by exact reduction. No stack, no table in memory
// but that of 2/pi. The polynomials esp_poly_NAME and the numbers esp_NAME stand before this text, printed from
// kernel/math_tables.h. f64 functions are those of the CUDA library.
K_DEV int esp_bits(float x) { return __float_as_int(x); }
K_DEV float esp_real(int bits) { return __int_as_float(bits); }
K_DEV float esp_at_most(float x, float high) { return x > high ? high : x; }  // NaN stays
K_DEV float esp_at_least(float x, float low) { return x < low ? low : x; }
K_DEV float esp_pow2(int n, int bias) {
  return esp_real(static_cast<int>(static_cast<unsigned>(n + bias) << 23));
}
K_DEV float esp_inf() { return esp_real(0x7f800000); }
K_DEV float esp_nan() { return esp_real(0x7fc00000); }

struct EspReduced {  // x = n ln2 + r
  int n;
  float r;
};
K_DEV EspReduced esp_reduced_of(float x, float t) {
  const float n = t - esp_round_magic_f32;
  return {esp_bits(t) - esp_bits(esp_round_magic_f32), fmaf(n, -esp_ln2_low, fmaf(n, -esp_ln2_high, x))};
}
K_DEV EspReduced esp_reduce_exp(float x) {
  return esp_reduced_of(x, fmaf(x, esp_log2_e, esp_round_magic_f32));
}
K_DEV float esp_exp_minus_one(float r) { return fmaf(esp_poly_exp_full(r), r * r, r); }

K_DEV float esp_exp(float x) {
  const EspReduced k = esp_reduce_exp(esp_at_least(esp_at_most(x, 89.0f), -104.1f));
  const int half = k.n >> 1;
  return (esp_exp_minus_one(k.r) + 1.0f) * esp_pow2(half, 127) * esp_pow2(k.n - half, 127);
}

K_DEV float esp_expm1(float x) {
  const EspReduced k = esp_reduce_exp(esp_at_least(esp_at_most(x, 88.8f), -20.0f));
  const float half = esp_pow2(k.n, 126);  // 2^(n-1), so that 2^128 is not needed
  const float sum = fmaf(esp_exp_minus_one(k.r), half, half - 0.5f);
  return fabsf(x) < 1e-9f ? x : sum + sum;
}

K_DEV float esp_tanh(float x) {
  const float a = esp_at_most(fabsf(x), 10.0f), twice = a + a;
  const EspReduced k = esp_reduced_of(twice, fmaf(twice, esp_log2_e, -0.25f) + esp_round_magic_f32);
  const float e = fmaf(esp_poly_exp_shifted(k.r), k.r * k.r, k.r), s = esp_pow2(k.n, 127);
  const float t = fmaf(e, s, s - 1.0f);
  return copysignf(t / (t + 2.0f), x);
}

K_DEV float esp_log(float x) {
  const bool small = x < 0x1p-126f;
  const int b = esp_bits(small ? x * 0x1p23f : x);
  const int k = static_cast<int>(static_cast<unsigned>(b) - 0x3f3504f3u) >> 23;  // 0x3f3504f3: sqrt(1/2)
  const float m = esp_real(static_cast<int>(static_cast<unsigned>(b) - (static_cast<unsigned>(k) << 23)));
  const float e = static_cast<float>(k) + (small ? -23.0f : 0.0f), f = m - 1.0f, q = f * f;
  float y = esp_poly_log_full(f) * f * q;
  y = fmaf(e, esp_ln2_rest, y);
  y = fmaf(q, -0.5f, y);
  const float r = fmaf(e, esp_ln2_short, f + y);
  return x == esp_inf() ? x : x > 0.0f ? r : x == 0.0f ? -esp_inf() : esp_nan();
}

// log(1+x) with what rounding 1+x lost put back.
K_DEV float esp_log1p(float x) {
  const float u = 1.0f + x, l = esp_log(u), fixed = l + (x - (u - 1.0f)) / u;
  const bool plain = x == esp_inf() || !(x > -1.0f);
  return u == 1.0f ? x : plain ? l : fixed;
}

K_DEV float esp_erf(float x) {
  const float a = fabsf(x);
  const float near = fmaf(x, esp_poly_erf_near_full(x * x), x);
  const EspReduced k = esp_reduce_exp(esp_poly_erf_far_full(esp_at_most(a, 3.93f)));
  const float e = (esp_exp_minus_one(k.r) + 1.0f) * esp_pow2(k.n, 127);
  return a > 0.9277f ? copysignf(1.0f - e, x) : near;
}

// The bits of 2/pi behind the point, 32 to a word.
static __device__ const unsigned esp_two_over_pi_words[] = {
    0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu, 0xdebbc561u};
K_DEV unsigned esp_word_of_two_over_pi(int bit) {  // 32 bits from `bit` on
  const int word = bit >> 5, shift = bit & 31;
  const unsigned long long two =
      static_cast<unsigned long long>(esp_two_over_pi_words[word]) << 32 | esp_two_over_pi_words[word + 1];
  return static_cast<unsigned>(two << shift >> 32);
}

struct EspTurns {  // x = turns * pi/2 + rest
  int turns;
  double rest;
};
// |x| < 2^50: the multiple of pi/2 is taken off in f64, in two steps.
K_DEV EspTurns esp_reduce_near(float x) {
  const double wide = x, t = fma(wide, esp_two_over_pi, esp_round_magic_f64);
  const double n = t - esp_round_magic_f64;
  return {static_cast<int>(__double_as_longlong(t)),
          fma(n, -esp_half_pi_low, fma(n, -esp_half_pi_high, wide))};
}
// x = m * 2^k with whole m: the bits of 2/pi that make multiples of 4 are left out, 96 bits of the product remain (Payne, Hanek
// 1983).
K_DEV EspTurns esp_reduce_far(float x) {
  const int bits = esp_bits(x), k = (bits >> 23 & 255) - 150;
  const unsigned m = (static_cast<unsigned>(bits) & 0x7fffffu) | 0x800000u;
  const int first = k - 2;
  const unsigned long long low = static_cast<unsigned long long>(m) * esp_word_of_two_over_pi(first + 64);
  const unsigned long long middle =
      static_cast<unsigned long long>(m) * esp_word_of_two_over_pi(first + 32) + (low >> 32);
  const unsigned high = m * esp_word_of_two_over_pi(first) + static_cast<unsigned>(middle >> 32);
  const unsigned long long turn = static_cast<unsigned long long>(high) << 32 | (middle & 0xffffffffu);
  const unsigned long long quarter = (turn + 0x2000000000000000u) >> 62;
  const long long rest = static_cast<long long>(turn - (quarter << 62));
  const double r = static_cast<double>(rest) * 0x1p-62 * esp_half_pi_high;
  return bits < 0 ? EspTurns{-static_cast<int>(quarter), -r} : EspTurns{static_cast<int>(quarter), r};
}
K_DEV EspTurns esp_reduce_turns(float x) {
  if (fabsf(x) > 0x1p50f && fabsf(x) < esp_inf()) return esp_reduce_far(x);
  return esp_reduce_near(x);
}

K_DEV float esp_sine(float x, int quarter) {  // sin(x + quarter * pi/2)
  const EspTurns t = esp_reduce_turns(x);
  const float r = static_cast<float>(t.rest), z = r * r;
  const int turns = t.turns + quarter;
  const float s = fmaf(esp_poly_sine_near_zero(z) * z, r, r);
  const float k = fmaf(esp_poly_cosine_near_zero(z) * z, z, fmaf(z, -0.5f, 1.0f));
  const int flip = static_cast<int>((static_cast<unsigned>(turns) & 2u) << 30);
  const float y = esp_real(esp_bits(turns & 1 ? k : s) ^ flip);
  return fabsf(x) < esp_inf() ? y : esp_nan();
}
K_DEV float esp_sin(float x) { return x == 0.0f ? x : esp_sine(x, 0); }
K_DEV float esp_cos(float x) { return esp_sine(x, 1); }

K_DEV float esp_tan(float x) {
  const EspTurns t = esp_reduce_turns(x);
  const double z = t.rest * t.rest;
  const double s = fma(esp_poly_sine_wide(z) * z, t.rest, t.rest);
  const double k = fma(esp_poly_cosine_wide(z) * z, z, fma(z, -0.5, 1.0));
  const double y = t.turns & 1 ? -k / s : s / k;
  return x == 0.0f ? x : fabsf(x) < esp_inf() ? static_cast<float>(y) : esp_nan();
}
K_DEV float esp_atan(float x) { return static_cast<float>(atan(static_cast<double>(x))); }
K_DEV float esp_atan2(float y, float x) {
  return static_cast<float>(atan2(static_cast<double>(y), static_cast<double>(x)));
}

// log2 of a positive finite f32 held as f64, to 2^-40: 2 atanh(s) with s = (m-1)/(m+1).
K_DEV double esp_log2_wide(double x) {
  const long long b = __double_as_longlong(x);
  const long long k = (b - 0x3fe6a09e667f3bcdll) >> 52;
  const double m = __longlong_as_double(static_cast<long long>(static_cast<unsigned long long>(b) -
                                                               (static_cast<unsigned long long>(k) << 52)));
  const double s = (m - 1.0) / (m + 1.0);
  return fma(esp_poly_log2_wide_series(s * s), s, static_cast<double>(static_cast<int>(k)));
}
// 2^x for |x| < 1000, to 2^-36.
K_DEV double esp_exp2_wide(double x) {
  const double t = x + esp_round_magic_f64, f = x - (t - esp_round_magic_f64);
  const long long n = __double_as_longlong(t) - __double_as_longlong(esp_round_magic_f64);
  return esp_poly_exp2_wide_series(f) *
         __longlong_as_double(static_cast<long long>(static_cast<unsigned long long>(n + 1023) << 52));
}
// x^y through f64, with C's special cases.
K_DEV float esp_pow(float x, float y) {
  const float a = fabsf(x);
  double l = esp_log2_wide(static_cast<double>(a));
  if (a == 0.0f) l = -static_cast<double>(esp_inf());
  if (a == esp_inf()) l = static_cast<double>(esp_inf());
  double e = l * static_cast<double>(y);
  e = e > 200.0 ? 200.0 : e;
  e = e < -200.0 ? -200.0 : e;
  const float size = static_cast<float>(esp_exp2_wide(e)), half = y * 0.5f;
  const bool whole = truncf(y) == y, odd = whole && truncf(half) != half;
  float r = esp_bits(x) < 0 && odd ? -size : size;
  if (x < 0.0f && a < esp_inf() && !whole) r = esp_nan();
  if (x != x || y != y) r = esp_nan();
  const bool unit = x == 1.0f || y == 0.0f || (a == 1.0f && fabsf(y) == esp_inf());
  return unit ? 1.0f : r;
}
K_DEV float esp_sign(float x) { return x < 0.0f || x > 0.0f ? copysignf(1.0f, x) : x; }
K_DEV double esp_sign(double x) { return x < 0.0 || x > 0.0 ? copysign(1.0, x) : x; }
