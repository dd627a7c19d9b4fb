#pragma once
// When two arrays are equal but for rounding.
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "base/text.h"
#include "ir/array.h"

namespace espalier::test {

/// |got - want| <= absolute + relative * |want|, or at most `ulps` representable values apart.
struct Tolerance {
  double relative = 0, absolute = 0;
  int64_t ulps = 0;
  /// The same bounds, `factor` times as wide.
  Tolerance operator*(double factor) const {
    return {relative * factor, absolute * factor, static_cast<int64_t>(static_cast<double>(ulps) * factor)};
  }
};

/// Results of one or a few operations that round once each: about four units in the last place; exact for integers.
inline Tolerance tolerance_of(ir::Dtype dtype) {
  switch (dtype) {
    case ir::Dtype::f64: return {1e-12, 1e-13, 4};
    case ir::Dtype::f32: return {1e-5, 1e-6, 4};
    case ir::Dtype::bf16: return {0x1p-6, 1e-3, 2};
    case ir::Dtype::f16: return {0x1p-9, 1e-4, 2};
    default: return {};
  }
}

/// Representable values between two finite f64, f32, bf16 or f16 numbers.
inline int64_t ulp_distance(ir::Dtype dtype, double a, double b) {
  const auto ordered = [&](double v) -> int64_t {
    int64_t bits = 0, sign = 0;
    if (dtype == ir::Dtype::f64) bits = std::bit_cast<int64_t>(v), sign = std::numeric_limits<int64_t>::min();
    else if (dtype == ir::Dtype::f32)
      bits = std::bit_cast<uint32_t>(static_cast<float>(v)), sign = 0x80000000;
    else if (dtype == ir::Dtype::bf16) bits = bf16_bits(static_cast<float>(v)), sign = 0x8000;
    else bits = f16_bits(static_cast<float>(v)), sign = 0x8000;
    return (bits & sign) ? -(bits & ~sign) : bits;
  };
  const int64_t x = ordered(a), y = ordered(b);
  int64_t d = 0;
  return __builtin_sub_overflow(x, y, &d) ? std::numeric_limits<int64_t>::max() : std::abs(d);
}

/// Does one element pass? NaN equals NaN, infinities equal themselves.
inline bool close_element(ir::Dtype dtype, double got, double want, const Tolerance& t) {
  if (std::isnan(want) || std::isnan(got)) return std::isnan(want) && std::isnan(got);
  if (got == want) return true;
  if (std::isinf(want) || std::isinf(got)) return false;
  if (std::fabs(got - want) <= t.absolute + t.relative * std::fabs(want)) return true;
  return is_float(dtype) && t.ulps > 0 && ulp_distance(dtype, got, want) <= t.ulps;
}

/// Which element is off the most, in words; "" where all are close.
inline std::string difference(const ir::Array& got, const ir::Array& want, const Tolerance& t) {
  if (got.type() != want.type()) return "got " + got.type().text() + ", want " + want.type().text();
  int64_t wrong = 0, worst = -1;
  double worst_by = -1;
  for (int64_t i = 0; i < got.size(); ++i) {
    const bool same_integer =
        got.dtype() == ir::Dtype::i64 && got.data<int64_t>()[i] == want.data<int64_t>()[i];
    if (same_integer ||
        (got.dtype() != ir::Dtype::i64 && close_element(got.dtype(), got.at(i), want.at(i), t)))
      continue;
    ++wrong;
    const double by =
        std::fabs(got.at(i) - want.at(i)) / (1e-30 + t.absolute + t.relative * std::fabs(want.at(i)));
    if (worst < 0 || by > worst_by || std::isnan(by)) worst = i, worst_by = by;
  }
  if (wrong == 0) return "";
  return std::to_string(wrong) + " of " + std::to_string(got.size()) + " elements of " + got.type().text() +
         " differ; worst at " + std::to_string(worst) + ": got " + number_text(got.at(worst)) + ", want " +
         number_text(want.at(worst));
}

}  // namespace espalier::test
