#pragma once
// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", 2011): random numbers from a
// key and a counter, with no state. Element i of a draw depends only on (key, counter, stream, i), so a seed gives the
// same numbers on any device and any number of threads. Pure functions, safe from any thread.
#include <array>
#include <cmath>
#include <cstdint>

namespace espalier {

using PhiloxBlock = std::array<uint32_t, 4>;

/// Ten rounds over the 128-bit counter (`high`, `low`) under a 64-bit key: four independent uniform words.
constexpr PhiloxBlock philox4x32(uint64_t key, uint64_t low, uint64_t high) {
  uint32_t c0 = static_cast<uint32_t>(low), c1 = static_cast<uint32_t>(low >> 32);
  uint32_t c2 = static_cast<uint32_t>(high), c3 = static_cast<uint32_t>(high >> 32);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

/// The key of one stream of a seed, so that draws with the same seed and counter but other streams are independent.
constexpr uint64_t philox_stream_key(uint64_t seed, uint64_t stream) {
  const PhiloxBlock b = philox4x32(seed, stream, ~uint64_t{0});
  return b[0] | uint64_t{b[1]} << 32;
}

/// Uniform in [0, 1): the top `bits` bits (at most 24) of a word, a multiple of 2^-bits. A float format of that precision
/// holds it exactly: 24 for f32, 11 for f16, 8 for bf16.
constexpr float uniform_of(uint32_t word, int bits = 24) {
  return static_cast<float>(word >> (32 - bits)) / static_cast<float>(1u << bits);
}
/// Uniform in [0, 1) with 53 bits.
constexpr double uniform53(uint32_t low, uint32_t high) {
  return static_cast<double>((uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}

/// Two independent standard normals from two words (Box and Muller 1958), computed in f32: the even element, the odd one.
inline std::array<float, 2> normal_pair(uint32_t a, uint32_t b) {
  const float u = static_cast<float>(a) * 0x1p-32f + 0x1p-33f;  // in (0, 1]
  const float r = std::sqrt(-2.0f * std::log(u)), angle = 6.28318530717958647692f * uniform_of(b);
  return {r * std::cos(angle), r * std::sin(angle)};
}
/// The same from a whole block, computed in f64.
inline std::array<double, 2> normal_pair(const PhiloxBlock& w) {
  const double u = uniform53(w[0], w[1]) + 0x1p-54;
  const double r = std::sqrt(-2.0 * std::log(u)), angle = 6.28318530717958647692 * uniform53(w[2], w[3]);
  return {r * std::cos(angle), r * std::sin(angle)};
}

// Which words element i of a draw reads, with k = philox_stream_key(key, stream) and c = counter:
//   f32, f16, bf16   block philox4x32(k, i / 4, c): uniform: word i % 4; normal: words 2*(i/2 % 2) and +1, pair[i % 2]
//   f64              block philox4x32(k, i / 2, c): uniform: words 2*(i % 2) and +1; normal: normal_pair(block)[i % 2]

}  // namespace espalier
