#pragma once
// The numbers behind the elementary functions: minimax fits by Lawson's algorithm on the reduced ranges. One set for all
// targets, so that an f32 function is the same algorithm wherever a kernel runs.

namespace espalier::kernel::math_tables {

inline constexpr double log2_e = 1.44269504088896340736, ln2 = 0.693147180559945309417;
inline constexpr double ln2_high = 0.693145751953125,
                        ln2_low = 1.42860682030941723212e-6;  // high: few bits, so n*high is exact

// (e^r - 1 - r) / r^2 on |r| <= ln2/2, highest power first; errors in e^r: 3e-9, 1e-7, 6e-6.
inline constexpr double exp_full[] = {1.388251796e-03, 8.366538161e-03, 4.166720043e-02, 1.666654349e-01,
                                      4.999999815e-01};
inline constexpr double exp_middle[] = {8.374670290e-03, 4.189844627e-02, 1.666645694e-01, 4.999914576e-01};
inline constexpr double exp_brief[] = {4.192134834e-02, 1.675394746e-01, 4.999894971e-01};
// The same on ln2 * [-1/4, 3/4]; relative error in expm1 1.4e-8.
inline constexpr double exp_shifted[] = {1.602721798e-03, 8.282150506e-03, 4.166171013e-02, 1.666683978e-01,
                                         5.000000314e-01};
// (log(1+f) - f + f^2/2) / f^3 on [sqrt(1/2), sqrt(2)] - 1; relative errors in log: 6e-9, 2e-6.
inline constexpr double log_full[] = {-7.634493024e-02, 1.276157564e-01, -1.316018306e-01, 1.420175823e-01,
                                      -1.662335730e-01, 2.000122687e-01, -2.500082104e-01, 3.333333171e-01};
inline constexpr double log_brief[] = {1.178189021e-01, -1.840718918e-01, 2.044218901e-01, -2.494383277e-01,
                                       3.332086084e-01};
// erf(x)/x - 1 in x^2 for |x| <= 0.9277; relative errors 2e-8, 1.6e-5.
inline constexpr double erf_near_full[] = {-5.964252464e-04, 4.988003945e-03,  -2.676312415e-02,
                                           1.128172111e-01,  -3.761248476e-01, 1.283791482e-01};
inline constexpr double erf_near_brief[] = {-1.934573992e-02, 1.089930335e-01, -3.754704322e-01,
                                            1.283611117e-01};
// log(erfc(t)) on [0.9277, 3.93]; errors in erf: 1.5e-9, 2.4e-8.
inline constexpr double erf_far_full[] = {1.950454454e-04,  -3.034456631e-03, 2.219194117e-02,
                                          -1.038589031e-01, -6.372652353e-01, -1.127626242e+00,
                                          -2.076541226e-04};
inline constexpr double erf_far_brief[] = {-1.231994247e-03, 1.542536343e-02,  -9.063864592e-02,
                                           -6.514576594e-01, -1.119679245e+00, -2.023222937e-03};
// (sin x - x)/x^3 and (cos x - 1 + x^2/2)/x^4 in x^2 for |x| <= pi/4; errors 4e-9 and 1e-10.
inline constexpr double sine_near_zero[] = {-1.951528302e-04, 8.332160760e-03, -1.666665461e-01};
inline constexpr double cosine_near_zero[] = {2.443315688e-05, -1.388731625e-03, 4.166664568e-02};

// x = n * (unit of the last place of the magic number) + rest: adding it rounds to a whole number, held in the low bits.
inline constexpr double round_magic_f32 = 12582912.0;          // 1.5 * 2^23
inline constexpr double round_magic_f64 = 6755399441055744.0;  // 1.5 * 2^52
inline constexpr double two_over_pi = 0.63661977236758134308;
inline constexpr double half_pi_high = 1.5707963267948966, half_pi_low = 6.123233995736766e-17;
// ln2 = short (few bits) + rest.
inline constexpr double ln2_short = 0.693359375, ln2_rest = ln2 - ln2_short;
// 2 atanh(s) / ln2 = s * series(s^2): to 2^-40 for s of numbers in [sqrt(1/2), sqrt(2)].
inline constexpr double log2_wide_series[] = {
    2.0 * log2_e / 19, 2.0 * log2_e / 17, 2.0 * log2_e / 15, 2.0 * log2_e / 13, 2.0 * log2_e / 11,
    2.0 * log2_e / 9,  2.0 * log2_e / 7,  2.0 * log2_e / 5,  2.0 * log2_e / 3,  2.0 * log2_e};
// 2^f = series(f), ln2^k / k!, to 2^-36 for |f| <= 1/2.
inline constexpr double exp2_wide_series[] = {7.0549116208011209e-09,
                                              1.0178086009239696e-07,
                                              1.3215486790144305e-06,
                                              1.5252733804059838e-05,
                                              0.00015403530393381606,
                                              0.0013333558146428441,
                                              0.0096181291076284769,
                                              0.055504108664821576,
                                              0.24022650695910069,
                                              0.69314718055994529,
                                              1};
// (sin x - x)/x^3 and (cos x - 1 + x^2/2)/x^4 in x^2 for |x| <= pi/4, for results in f32: errors 7e-12 and 1e-10.
inline constexpr double sine_wide[] = {-1.0 / 39916800, 1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6};
inline constexpr double cosine_wide[] = {-1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24};

}  // namespace espalier::kernel::math_tables
