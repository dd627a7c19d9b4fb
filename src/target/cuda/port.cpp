#include "target/cuda/port.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <span>

#include <fmt/format.h>

#include <device_text.h>
#include "kernel/math_tables.h"

namespace espalier::target::cuda {
namespace {

namespace tables = kernel::math_tables;

struct Polynomial {
  const char* name;
  std::span<const double> coefficients;
  bool wide = false;
};
const Polynomial polynomials[] = {
    {"exp_full", tables::exp_full},
    {"exp_shifted", tables::exp_shifted},
    {"log_full", tables::log_full},
    {"erf_near_full", tables::erf_near_full},
    {"erf_far_full", tables::erf_far_full},
    {"sine_near_zero", tables::sine_near_zero},
    {"cosine_near_zero", tables::cosine_near_zero},
    {"sine_wide", tables::sine_wide, true},
    {"cosine_wide", tables::cosine_wide, true},
    {"log2_wide_series", tables::log2_wide_series, true},
    {"exp2_wide_series", tables::exp2_wide_series, true},
};

struct NamedNumber {
  const char* name;
  double value;
  bool wide = false;
};
const NamedNumber named_numbers[] = {
    {"log2_e", tables::log2_e},
    {"ln2_high", tables::ln2_high},
    {"ln2_low", tables::ln2_low},
    {"ln2_short", tables::ln2_short},
    {"ln2_rest", tables::ln2_rest},
    {"round_magic_f32", tables::round_magic_f32},
    {"round_magic_f64", tables::round_magic_f64, true},
    {"two_over_pi", tables::two_over_pi, true},
    {"half_pi_high", tables::half_pi_high, true},
    {"half_pi_low", tables::half_pi_low, true},
};

std::string literal_of(double value, bool wide) {
  return wide ? literal(value) : literal(static_cast<float>(value));
}

/// The tables: numbers as constants, polynomials as functions by Horner's rule.
std::string tables_text() {
  std::string text;
  for (const NamedNumber& n : named_numbers)
    text += fmt::format("constexpr {} esp_{} = {};\n", n.wide ? "double" : "float", n.name,
                        literal_of(n.value, n.wide));
  for (const Polynomial& p : polynomials) {
    const char* type = p.wide ? "double" : "float";
    text += fmt::format("K_DEV {0} esp_poly_{1}({0} x) {{\n  {0} r = {2};\n", type, p.name,
                        literal_of(p.coefficients[0], p.wide));
    for (const double c : p.coefficients.subspan(1))
      text += fmt::format("  r = {}(r, x, {});\n", p.wide ? "fma" : "fmaf", literal_of(c, p.wide));
    text += "  return r;\n}\n";
  }
  return text;
}

}  // namespace

std::string literal(float value) {
  if (!std::isfinite(value)) return fmt::format("__int_as_float(0x{:08x})", std::bit_cast<uint32_t>(value));
  return fmt::format("{:a}f", value);
}

std::string literal(double value) {
  if (!std::isfinite(value))
    return fmt::format("__longlong_as_double(0x{:016x}ll)", std::bit_cast<uint64_t>(value));
  return fmt::format("{:a}", value);
}

const std::string& port_text() {
  static const std::string text = std::string(kernel_port_text) + tables_text() + kernel_math_text;
  return text;
}

}  // namespace espalier::target::cuda
