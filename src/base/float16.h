#pragma once
// The two 16-bit floats as storage types: arithmetic happens in float, rounding is to nearest even.
#include <bit>
#include <cstdint>
#include <type_traits>

namespace espalier {

/// bfloat16 bits of `x`, rounded to nearest even; NaN stays a quiet NaN.
constexpr uint16_t bf16_bits(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/// The float a bfloat16 stands for (exact).
constexpr float bf16_value(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

/// IEEE binary16 bits of `x`, rounded to nearest even, overflow to infinity, subnormals kept.
constexpr uint16_t f16_bits(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const auto sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((a >> 13) & 0x1ffu));
  if (a >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (a >= 0x38800000u) {
    const uint32_t r = a + 0xfffu + ((a >> 13) & 1u);
    return static_cast<uint16_t>(sign | ((r - 0x38000000u) >> 13));
  }
  if (a < 0x33000000u) return sign;
  const int shift = 126 - static_cast<int>(a >> 23);  // 14..24: bits dropped from the 24-bit significand
  const uint32_t m = (a & 0x7fffffu) | 0x800000u;
  const uint32_t half = 1u << (shift - 1), rest = m & ((1u << shift) - 1u);
  uint32_t q = m >> shift;
  if (rest > half || (rest == half && (q & 1u))) ++q;
  return static_cast<uint16_t>(sign | q);
}

/// The float an IEEE binary16 stands for (exact).
constexpr float f16_value(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16, e = (h >> 10) & 0x1fu, m = h & 0x3ffu;
  if (e == 31) return std::bit_cast<float>(sign | 0x7f800000u | (m << 13));
  if (e == 0) {
    const float v = static_cast<float>(m) * 0x1p-24f;
    return sign ? -v : v;
  }
  return std::bit_cast<float>(sign | ((e + 112u) << 23) | (m << 13));
}

/// bfloat16 as a value.
struct bf16 {
  uint16_t bits = 0;
  bf16() = default;
  constexpr explicit bf16(float x) : bits(bf16_bits(x)) {}
  constexpr explicit operator float() const { return bf16_value(bits); }
  bool operator==(const bf16&) const = default;
};

/// IEEE binary16 as a value.
struct f16 {
  uint16_t bits = 0;
  f16() = default;
  constexpr explicit f16(float x) : bits(f16_bits(x)) {}
  constexpr explicit operator float() const { return f16_value(bits); }
  bool operator==(const f16&) const = default;
};

template <class T>
inline constexpr bool is_float16 = std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

/// `v` as a T by static_cast; the 16-bit floats convert by way of float.
template <class T, class V>
constexpr T number_cast(V v) {
  if constexpr (is_float16<V> && !std::is_same_v<T, V>) return number_cast<T>(static_cast<float>(v));
  else if constexpr (is_float16<T> && !std::is_same_v<T, V>) return T(static_cast<float>(v));
  else return static_cast<T>(v);
}

}  // namespace espalier
