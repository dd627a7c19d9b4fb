#include "target/cpu/jit/math_symbols.h"

#include <cstdint>
#include <cstring>

#include "ir/scalar.h"

namespace espalier::target::cpu {
namespace {

template <auto F>
double real(double x) {
  return F(x);
}
template <auto F>
double real2(double x, double y) {
  return F(x, y);
}
template <auto F>
float single(float x) {
  return F(x);
}
template <auto F>
float single2(float x, float y) {
  return F(x, y);
}

template <class F>
const void* address(F* f) {
  return reinterpret_cast<const void*>(f);
}

namespace math = ir::math;

const ExternalSymbol symbols[] = {
    {"memcpy", address<void*(void*, const void*, size_t)>(std::memcpy)},
    {"memset", address<void*(void*, int, size_t)>(std::memset)},
    {"esp_f64_exp", address(real<math::exp<double>>)},
    {"esp_f64_expm1", address(real<math::expm1<double>>)},
    {"esp_f64_log", address(real<math::log<double>>)},
    {"esp_f64_log1p", address(real<math::log1p<double>>)},
    {"esp_f64_sin", address(real<math::sin<double>>)},
    {"esp_f64_cos", address(real<math::cos<double>>)},
    {"esp_f64_tan", address(real<math::tan<double>>)},
    {"esp_f64_tanh", address(real<math::tanh<double>>)},
    {"esp_f64_erf", address(real<math::erf<double>>)},
    {"esp_f64_atan", address(real<math::atan<double>>)},
    {"esp_f64_pow", address(real2<math::pow<double>>)},
    {"esp_f64_rem", address(real2<math::rem<double>>)},
    {"esp_f64_atan2", address(real2<math::atan2<double>>)},
    {"esp_f32_sin", address(single<math::sin<float>>)},
    {"esp_f32_cos", address(single<math::cos<float>>)},
    {"esp_f32_tan", address(single<math::tan<float>>)},
    {"esp_f32_atan", address(single<math::atan<float>>)},
    {"esp_f32_pow", address(single2<math::pow<float>>)},
    {"esp_f32_rem", address(single2<math::rem<float>>)},
    {"esp_f32_atan2", address(single2<math::atan2<float>>)},
    {"esp_i64_pow", address(math::pow<int64_t>)},
};

}  // namespace

std::span<const ExternalSymbol> kernel_symbols() { return symbols; }

}  // namespace espalier::target::cpu
