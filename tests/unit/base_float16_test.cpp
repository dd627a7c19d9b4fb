#include "base/float16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace espalier {
namespace {

TEST(Float16, EveryF16IsAFloatAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto h = static_cast<uint16_t>(bits);
    const float value = f16_value(h);
    if (std::isnan(value)) EXPECT_TRUE(std::isnan(f16_value(f16_bits(value)))) << bits;
    else EXPECT_EQ(f16_bits(value), h);
  }
}

TEST(Float16, EveryBf16IsAFloatAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto b = static_cast<uint16_t>(bits);
    const float value = bf16_value(b);
    if (std::isnan(value)) EXPECT_TRUE(std::isnan(bf16_value(bf16_bits(value)))) << bits;
    else EXPECT_EQ(bf16_bits(value), b);
  }
}

TEST(Float16, ValuesOfTheStandard) {
  EXPECT_EQ(f16_value(0x3c00), 1.0f);
  EXPECT_EQ(f16_value(0x7bff), 65504.0f);
  EXPECT_EQ(f16_value(0x0001), 0x1p-24f);
  EXPECT_EQ(f16_value(0x0400), 0x1p-14f);
  EXPECT_EQ(f16_value(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_EQ(bf16_value(0x3f80), 1.0f);
  EXPECT_EQ(bf16_value(0xc040), -3.0f);
}

/// Rounds to the nearest of the neighbours `below` and `above`, ties to the even one, judged in double.
template <auto to_bits, auto to_value>
void expect_nearest_even(float x) {
  const uint16_t got = to_bits(x);
  const double error = std::abs(double{to_value(got)} - x);
  for (int step : {-1, 1}) {
    const auto other = static_cast<uint16_t>(got + step);
    const float value = to_value(other);
    if (!std::isfinite(value) || std::signbit(value) != std::signbit(x)) continue;
    const double other_error = std::abs(double{value} - x);
    EXPECT_LE(error, other_error) << x;
    if (error == other_error) EXPECT_EQ(got % 2, 0) << x;
  }
}

TEST(Float16, RoundsToNearestEven) {
  std::mt19937 random(1);
  std::uniform_int_distribution<uint32_t> bits;
  for (int i = 0; i < 100000; ++i) {
    const float x = std::bit_cast<float>(bits(random));
    if (!std::isfinite(x)) continue;
    if (std::abs(x) < 65504.0f) expect_nearest_even<f16_bits, f16_value>(x);
    if (std::abs(x) < 3e38f) expect_nearest_even<bf16_bits, bf16_value>(x);
  }
  EXPECT_EQ(f16_bits(1.0f + 0x1p-11f), f16_bits(1.0f));
  EXPECT_EQ(f16_bits(1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(bf16_bits(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(bf16_bits(1.0f + 3 * 0x1p-8f), 0x3f82);
}

TEST(Float16, EdgesOfTheRange) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(f16_value(f16_bits(65519.0f)), 65504.0f);
  EXPECT_EQ(f16_value(f16_bits(65520.0f)), infinity);
  EXPECT_EQ(f16_value(f16_bits(-1e30f)), -infinity);
  EXPECT_EQ(f16_bits(0x1p-25f), 0);
  EXPECT_EQ(f16_bits(0x1.000002p-25f), 1);
  EXPECT_EQ(f16_bits(-0.0f), 0x8000);
  EXPECT_EQ(bf16_value(bf16_bits(std::numeric_limits<float>::max())), infinity);
  EXPECT_TRUE(std::isnan(bf16_value(bf16_bits(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(f16_value(f16_bits(std::bit_cast<float>(0xff800001u)))));
}

}  // namespace
}  // namespace espalier
