#pragma once
// The elementary functions in tests: nests of one function, what is exact, hard arguments.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernel/loop_nest.h"
#include "target/cpu/compile.h"

namespace espalier::test {

using ir::Dtype;
using ir::ScalarCode;
using kernel::Affine;
using kernel::Instr;
using kernel::LoopNest;

inline Instr load_of(int buffer, Dtype dtype) {
  Instr in;
  in.kind = Instr::Kind::load;
  in.dtype = dtype;
  in.buffer = buffer;
  in.address = Affine::var(0);
  return in;
}

/// y[i] = code(x0[i], x1[i]) for n elements.
inline LoopNest function_nest(ScalarCode code, int arity, Dtype dtype, Dtype out, int64_t n) {
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

inline void run(const target::cpu::CompiledKernel& k, std::vector<const void*> in, void* out) {
  std::vector<void*> buffers;
  for (const void* p : in) buffers.push_back(const_cast<void*>(p));
  buffers.push_back(out);
  for (int64_t c = 0; c < k.chunks; ++c) k.fn(buffers.data(), c);
}

/// Distance in units of the last place of the exact result (denormals count as the smallest normal's).
inline double ulp_error(float got, long double exact) {
  if (std::isnan(exact)) return std::isnan(got) ? 0 : 1e30;
  const float rounded = static_cast<float>(exact);
  if (std::isinf(rounded) || std::isinf(got))
    return rounded == got ? 0 : (std::isinf(rounded) && std::fabs(got) > 3.3e38f) ? 1 : 1e30;
  int e;
  std::frexp(rounded, &e);
  const double unit = std::ldexp(1.0, std::max(e, -125) - 24);
  return std::fabs(static_cast<double>(got - exact)) / unit;
}

inline std::vector<float> special_values() {
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

inline const Function functions[] = {
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
inline std::vector<float> arguments(const Function& f, int64_t n) {
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

}  // namespace espalier::test
