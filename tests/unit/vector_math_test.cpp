// Every elementary function of the emitter against the C library in long double: ulp over wide ranges, and special values.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "support/functions.h"
#include "target/cpu/compile.h"

namespace espalier::target::cpu {
namespace {

using ir::Dtype;
using ir::ScalarCode;
using test::arguments;
using test::Function;
using test::function_nest;
using test::functions;
using test::run;
using test::special_values;
using test::ulp_error;

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
    x[5] = 1e20f;  // a lane that goes another way
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
