// Every elementary function of the emitter against the C library in long double: ulp over wide ranges, and special values.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "kernel/loop_nest.h"
#include "target/cpu/compile.h"

namespace espalier::target::cpu {
namespace {

using ir::Dtype;
using ir::ScalarCode;
using kernel::Affine;
using kernel::Instr;
using kernel::LoopNest;

Instr load_of(int buffer, Dtype dtype) {
  Instr in;
  in.kind = Instr::Kind::load;
  in.dtype = dtype;
  in.buffer = buffer;
  in.address = Affine::var(0);
  return in;
}

/// y[i] = code(x0[i], x1[i]) for n elements.
LoopNest function_nest(ScalarCode code, int arity, Dtype dtype, Dtype out, int64_t n) {
  LoopNest nest;
  nest.extents = {n};
  nest.outer = {0};
  kernel::Stage stage;
  Instr call;
  call.kind = Instr::Kind::scalar;
  call.code = code;
  call.dtype = dtype;
  for (int i = 0; i < arity; ++i) {
    nest.buffers.push_back({kernel::Role::input, dtype, n});
    stage.body.push_back(load_of(i, dtype));
    call.operand[static_cast<size_t>(i)] = i;
  }
  nest.buffers.push_back({kernel::Role::output, out, n});
  stage.body.push_back(call);
  stage.stores.push_back({arity, Affine::var(0), arity});
  nest.stages.push_back(stage);
  kernel::verify(nest);
  return nest;
}

void run(const CompiledKernel& k, std::vector<const void*> in, void* out) {
  std::vector<void*> buffers;
  for (const void* p : in) buffers.push_back(const_cast<void*>(p));
  buffers.push_back(out);
  for (int64_t c = 0; c < k.chunks; ++c) k.fn(buffers.data(), c);
}

/// Distance in units of the last place of the exact result (denormals count as the smallest normal's).
double ulp_error(float got, long double exact) {
  if (std::isnan(exact)) return std::isnan(got) ? 0 : 1e30;
  const float rounded = static_cast<float>(exact);
  if (std::isinf(rounded) || std::isinf(got))
    return rounded == got ? 0 : (std::isinf(rounded) && std::fabs(got) > 3.3e38f) ? 1 : 1e30;
  int e;
  std::frexp(rounded, &e);
  const double unit = std::ldexp(1.0, std::max(e, -125) - 24);
  return std::fabs(static_cast<double>(got - exact)) / unit;
}

std::vector<float> special_values() {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> v{0.f,     -0.f,      inf,     -inf,    nan,      1.f,   -1.f,   1e-45f,
                       -1e-45f, 1e-38f,    -1e-38f, 3.4e38f, -3.4e38f, 88.7f, 88.73f, 89.f,
                       -87.3f,  -88.f,     -103.f,  -104.f,  -150.f,   0.5f,  2.f,    1e-8f,
                       -1e-8f,  0x1p-126f, 1e20f,   -1e20f,  0.9277f,  3.93f, 4.f,    -4.f};
  return v;
}

struct Function {
  ScalarCode code;
  long double (*exact)(long double);
  float low, high;
  double max_ulp;
};

const Function functions[] = {
    {ScalarCode::exp, expl, -105.f, 89.f, 1.0},
    {ScalarCode::expm1, expm1l, -20.f, 89.f, 2.0},
    {ScalarCode::log, logl, 0.f, 1e30f, 1.0},
    {ScalarCode::log1p, log1pl, -1.f, 100.f, 2.0},
    {ScalarCode::tanh, tanhl, -10.f, 10.f, 2.05},
    {ScalarCode::erf, erfl, -4.5f, 4.5f, 2.0},
    {ScalarCode::sin, sinl, -1000.f, 1000.f, 1.6},
    {ScalarCode::cos, cosl, -1000.f, 1000.f, 1.6},
    {ScalarCode::sqrt, sqrtl, 0.f, 1e10f, 0.51},
    {ScalarCode::floor, floorl, -1e6f, 1e6f, 0.0},
    {ScalarCode::ceil, ceill, -1e6f, 1e6f, 0.0},
    {ScalarCode::round, nearbyintl, -1e6f, 1e6f, 0.0},
    {ScalarCode::trunc, truncl, -1e6f, 1e6f, 0.0},
    {ScalarCode::tan, tanl, -10.f, 10.f, 1.0},
    {ScalarCode::atan, atanl, -100.f, 100.f, 1.0},
    {ScalarCode::rsqrt, [](long double x) { return 1 / sqrtl(x); }, 0.f, 1e10f, 1.5},
};

/// Uniform in the range, plus random exponents, plus special values; a length that is no multiple of any vector.
std::vector<float> arguments(const Function& f, int64_t n) {
  std::mt19937 rng(17);
  std::uniform_real_distribution<float> uniform(f.low, f.high);
  std::vector<float> x = special_values();
  while (static_cast<int64_t>(x.size()) < n) {
    x.push_back(uniform(rng));
    const float wide = std::bit_cast<float>(static_cast<uint32_t>(rng()));
    if (f.code != ScalarCode::tan) x.push_back(wide);
    if (f.low <= 1 && f.high > 1) x.push_back(1.f + 0.1f * uniform(rng) / f.high);
  }
  x.resize(static_cast<size_t>(n));
  return x;
}

class VectorMathTest : public testing::TestWithParam<const char*> {
 protected:
  CpuFeatures features() const { return masked(detect_cpu(), GetParam()); }
};

TEST_P(VectorMathTest, f32_within_ulp) {
  constexpr int64_t n = 60007;
  for (const Function& f : functions) {
    const std::vector<float> x = arguments(f, n);
    std::vector<float> y(n, -77.f);
    run(compile(function_nest(f.code, 1, Dtype::f32, Dtype::f32, n), features()), {x.data()}, y.data());
    double worst = 0;
    float where = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double e = ulp_error(y[i], f.exact(x[i]));
      if (e > worst) worst = e, where = x[i];
    }
    EXPECT_LE(worst, f.max_ulp) << scalar_code_name(f.code) << " at " << where << " gives " << [&] {
      for (size_t i = 0; i < x.size(); ++i)
        if (std::bit_cast<uint32_t>(x[i]) == std::bit_cast<uint32_t>(where)) return y[i];
      return 0.f;
    }() << ", not " << static_cast<double>(f.exact(where));
  }
}

TEST_P(VectorMathTest, signed_zeros_stay) {
  for (const ScalarCode code :
       {ScalarCode::expm1, ScalarCode::log1p, ScalarCode::tanh, ScalarCode::erf, ScalarCode::sin,
        ScalarCode::sqrt, ScalarCode::floor, ScalarCode::round, ScalarCode::sign}) {
    std::vector<float> x(16, -0.f), y(16, 5.f);
    run(compile(function_nest(code, 1, Dtype::f32, Dtype::f32, 16), features()), {x.data()}, y.data());
    EXPECT_TRUE(y[3] == 0 && std::signbit(y[3])) << scalar_code_name(code) << " " << y[3];
  }
}

TEST_P(VectorMathTest, pow_within_ulp) {
  std::mt19937 rng(3);
  std::vector<float> x, y;
  for (float a : special_values())
    for (float b : special_values()) x.push_back(a), y.push_back(b);
  for (float a : {2.f, -2.f, 0.f, -0.f, -8.f})
    for (float b : {3.f, 2.f, -3.f, -2.f, 0.5f, 1.f / 3, 16777217.f, -1.f}) x.push_back(a), y.push_back(b);
  std::uniform_real_distribution<float> base(0.f, 10.f), exponent(-30.f, 30.f);
  while (x.size() < 40003) x.push_back(base(rng)), y.push_back(exponent(rng));
  std::vector<float> z(x.size());
  const auto n = static_cast<int64_t>(x.size());
  run(compile(function_nest(ScalarCode::pow, 2, Dtype::f32, Dtype::f32, n), features()), {x.data(), y.data()},
      z.data());
  for (size_t i = 0; i < x.size(); ++i)
    ASSERT_LE(ulp_error(z[i], powl(x[i], y[i])), 1.0) << x[i] << " ^ " << y[i] << " = " << z[i];
}

TEST_P(VectorMathTest, f64_is_the_library) {
  constexpr int64_t n = 101;
  std::mt19937 rng(9);
  std::uniform_real_distribution<double> uniform(-5, 5);
  for (const Function& f : functions) {
    std::vector<double> x(n), y(n);
    for (double& v : x) v = uniform(rng);
    run(compile(function_nest(f.code, 1, Dtype::f64, Dtype::f64, n), features()), {x.data()}, y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const long double e = f.exact(x[i]);
      if (std::isnan(e)) EXPECT_TRUE(std::isnan(y[i]));
      else
        EXPECT_NEAR(y[i], static_cast<double>(e), 2e-15 * std::max(1.0L, std::fabs(e)))
            << scalar_code_name(f.code) << x[i];
    }
  }
}

TEST_P(VectorMathTest, bf16_results_have_their_digits) {
  constexpr int64_t n = 4099;
  for (const Function& f : functions) {
    const std::vector<float> wide = arguments(f, n);
    std::vector<bf16> x(n), y(n);
    for (size_t i = 0; i < x.size(); ++i) x[i] = bf16(wide[i]);
    run(compile(function_nest(f.code, 1, Dtype::bf16, Dtype::bf16, n), features()), {x.data()}, y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const auto got = static_cast<float>(y[i]);
      const long double exact = f.exact(static_cast<float>(x[i]));
      if (std::isnan(exact)) EXPECT_TRUE(std::isnan(got));
      else if (std::fabs(exact) > 3e38L || std::fabs(exact) < 1e-37L) continue;
      else
        EXPECT_NEAR(got, static_cast<double>(exact), std::fabs(static_cast<double>(exact)) * 0x1.08p-8)
            << scalar_code_name(f.code) << " of " << static_cast<float>(x[i]);
    }
  }
}

std::vector<const char*> levels() {
  const CpuFeatures host = detect_cpu();
  return host.avx512 ? std::vector<const char*>{"native", "avx512", "avx2"}
                     : std::vector<const char*>{"avx2"};
}

INSTANTIATE_TEST_SUITE_P(Levels, VectorMathTest, testing::ValuesIn(levels()),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace espalier::target::cpu
