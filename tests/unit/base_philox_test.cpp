#include "base/philox.h"

#include <gtest/gtest.h>

#include <cmath>

namespace espalier {
namespace {

// Known answers published with the method (Random123, kat_vectors, philox4x32 with 10 rounds).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32(0, 0, 0), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32(~0ull, ~0ull, ~0ull), (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformStaysBelowOne) {
  EXPECT_EQ(uniform_of(0), 0.0f);
  for (int bits : {8, 11, 24}) EXPECT_LT(uniform_of(0xffffffffu, bits), 1.0f);
  EXPECT_LT(uniform53(0xffffffffu, 0xffffffffu), 1.0);
}

TEST(Philox, NormalsAreFiniteAndStandard) {
  double sum = 0, squares = 0, fourth = 0;
  const int blocks = 50000;
  for (uint64_t i = 0; i < blocks; ++i) {
    const PhiloxBlock w = philox4x32(philox_stream_key(7, 3), i, 1);
    for (const std::array<float, 2>& pair : {normal_pair(w[0], w[1]), normal_pair(w[2], w[3])})
      for (float x : pair) {
        ASSERT_TRUE(std::isfinite(x));
        sum += x;
        squares += x * x;
        fourth += std::pow(x, 4);
      }
  }
  const double n = 4.0 * blocks;  // each bound is about five standard errors
  EXPECT_NEAR(sum / n, 0.0, 0.0115);
  EXPECT_NEAR(squares / n, 1.0, 0.016);
  EXPECT_NEAR(fourth / n, 3.0, 0.11);
  EXPECT_TRUE(std::isfinite(normal_pair(0u, 0u)[0]));
  EXPECT_TRUE(std::isfinite(normal_pair(0xffffffffu, 0xffffffffu)[0]));
  EXPECT_TRUE(std::isfinite(normal_pair(PhiloxBlock{})[0]));
}

}  // namespace
}  // namespace espalier
