#include "base/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"

namespace espalier {
namespace {

using testing::HasSubstr;

TEST(Text, QuoteReadsBack) {
  std::string every;
  for (int c = 0; c < 256; ++c) every += static_cast<char>(c);
  for (const std::string& text : {std::string(), std::string("plain"), std::string("a\"b\\c\nd"), every}) {
    const std::string quoted = quote(text);
    TextReader in(quoted, "test");
    EXPECT_EQ(in.string(), text) << quoted;
    EXPECT_TRUE(in.at_end());
  }
}

TEST(Text, NumbersReadBackToTheSameBits) {
  std::mt19937_64 random(1);
  std::vector<double> numbers{0.0,
                              -0.0,
                              1.0,
                              0.1,
                              1e300,
                              5e-324,
                              std::numeric_limits<double>::infinity(),
                              -std::numeric_limits<double>::infinity()};
  for (int i = 0; i < 2000; ++i) {
    const double x = std::bit_cast<double>(random());
    if (std::isfinite(x)) numbers.push_back(x);
  }
  for (double x : numbers) {
    const std::string text = number_text(x);
    TextReader in(text, "test");
    EXPECT_EQ(std::bit_cast<uint64_t>(in.number()), std::bit_cast<uint64_t>(x)) << text;
  }
  const std::string nan = number_text(std::nan(""));
  EXPECT_TRUE(std::isnan(TextReader(nan, "test").number()));
}

TEST(Text, IntegersAreChecked) {
  EXPECT_EQ(TextReader("-9223372036854775808", "test").integer(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(TextReader(" 9223372036854775807 ", "test").integer(), std::numeric_limits<int64_t>::max());
  for (const char* bad : {"", "-", "x", "9223372036854775808"})
    EXPECT_THROW(TextReader(bad, "test").integer(), UserError) << bad;
}

TEST(Text, ErrorsNameTheFileAndTheLine) {
  TextReader in("one # a comment\n  two\n three", "notes");
  EXPECT_EQ(in.word(), "one");
  EXPECT_EQ(in.word(), "two");
  try {
    in.expect("four");
    FAIL() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("notes"));
    EXPECT_THAT(error.what(), HasSubstr("3"));
    EXPECT_THAT(error.what(), HasSubstr("four"));
  }
}

TEST(Text, BadStringsAreRefused) {
  for (const char* bad : {"", "x", "\"", "\"a", "\"\\", "\"\\x\"", "\"\\x4\"", "\"\\q\""})
    EXPECT_THROW(TextReader(bad, "test").string(), UserError) << bad;
}

TEST(Text, JoinAndBytes) {
  EXPECT_EQ(join(std::vector<int64_t>{1, -2, 3}), "1,-2,3");
  EXPECT_EQ(join(std::vector<std::string>{"a", "b"}, " and "), "a and b");
  EXPECT_EQ(join(std::vector<int64_t>{}), "");
  EXPECT_EQ(bytes_text(3 * 512 * 1024), "1.5 MiB");
}

}  // namespace
}  // namespace espalier
