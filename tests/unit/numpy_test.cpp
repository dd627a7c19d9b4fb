#include "format/numpy.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "support/errors.h"
#include "support/folder.h"

namespace espalier::format {
namespace {

using ir::Array;
using ir::Dtype;

std::string npy(std::string_view header, std::string_view data, int major = 1) {
  std::string out{"\x93NUMPY", 6};
  out += {static_cast<char>(major), '\0', static_cast<char>(header.size() & 0xff),
          static_cast<char>(header.size() >> 8)};
  if (major > 1) out += {'\0', '\0'};
  return out.append(header).append(data);
}

std::string refusal(std::string_view bytes) {
  return test::error_of([&] { parse_npy(bytes, "x.npy"); });
}

TEST(Numpy, EveryDtypeComesBackBitForBit) {
  const test::TemporaryFolder folder;
  const auto path = folder / "x.npy";
  for (int d = 0; d < ir::dtype_count; ++d) {
    for (const std::vector<int64_t>& dims : {std::vector<int64_t>{}, {5}, {2, 0, 3}, {2, 3, 4}}) {
      Array a(static_cast<Dtype>(d), dims);
      for (int64_t i = 0; i < a.size(); ++i) a.set(i, static_cast<double>(i % 7));
      save_npy(path, a);
      EXPECT_EQ(load_npy(path), a) << a.type().text();
    }
  }
}

TEST(Numpy, TheHeaderIsWhatNumpyWrites) {
  const std::string header = npy_header(Array(Dtype::f32, {3, 4}));
  EXPECT_EQ(header.size() % 64, 0u);
  EXPECT_EQ(header.substr(10, 59), "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }");
  EXPECT_NE(npy_header(Array(Dtype::bf16, {4})).find("'<V2', 'fortran_order': False, 'shape': (4,), }"),
            std::string::npos);
  EXPECT_NE(npy_header(Array(Dtype::u8, {})).find("'|u1', 'fortran_order': False, 'shape': (), }"),
            std::string::npos);
}

TEST(Numpy, ReadsFortranOrderBigEndianAndLaterVersions) {
  const std::string fortran =
      npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }\n", {"\0\3\1\4\2\5", 6}, 2);
  EXPECT_EQ(parse_npy(fortran, ""), Array::of<uint8_t>({2, 3}, {0, 1, 2, 3, 4, 5}));
  const std::string deep =
      npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 1, 2), }\n", {"\0\2\1\3", 4});
  EXPECT_EQ(parse_npy(deep, ""), Array::of<uint8_t>({2, 1, 2}, {0, 1, 2, 3}));
  const std::string big = npy("{\"shape\": (2,), \"descr\": \">i4\", \"fortran_order\": False}",
                              {"\0\0\1\2\xff\xff\xff\xfe", 8}, 3);
  EXPECT_EQ(parse_npy(big, ""), Array::of<int32_t>({2}, {258, -2}));
  const std::string bf16_bits =
      npy("{'descr': '|V2', 'fortran_order': False, 'shape': (1,), }", {"\x80\x3f", 2});
  EXPECT_EQ(parse_npy(bf16_bits, ""), Array::of<bf16>({1}, {bf16(1.0f)}));
}

TEST(Numpy, RefusesWithTheFieldNamed) {
  const auto header = [](std::string_view descr, std::string_view shape) {
    return "{'descr': " + std::string(descr) + ", 'fortran_order': False, 'shape': " + std::string(shape) +
           ", }\n";
  };
  EXPECT_NE(refusal("").find("npy x.npy: is no .npy file"), std::string::npos);
  EXPECT_NE(refusal("PK\3\4 a zip of arrays").find("is no .npy file"), std::string::npos);
  EXPECT_NE(refusal(npy(header("'<f4'", "(1,)"), "abcd", 9)).find("version: is unknown (got 9.0"),
            std::string::npos);
  EXPECT_NE(refusal(npy(header("'<f4'", "(2,)"), "abcd"))
                .find("data: file is truncated (got 4 bytes; allowed: 8 bytes"),
            std::string::npos);
  EXPECT_NE(refusal(npy(header("'<f4'", "(1,)"), "abcde")).find("more bytes than the shape says"),
            std::string::npos);
  EXPECT_NE(refusal(npy(header("'<u2'", "(1,)"), "ab")).find("descr: dtype is not supported (got \"<u2\""),
            std::string::npos);
  EXPECT_NE(refusal(npy(header("'<O'", "(1,)"), "ab")).find("dtype is not supported"), std::string::npos);
  EXPECT_NE(refusal(npy(header("''", "(1,)"), "ab")).find("dtype is not supported"), std::string::npos);
  EXPECT_NE(refusal(npy(header("[('a', '<f4')]", "(1,)"), "abcd")).find("structured dtypes"),
            std::string::npos);
  EXPECT_NE(refusal(npy(header("'<f4'", "(-1,)"), "")).find("malformed dictionary"), std::string::npos);
  EXPECT_NE(refusal(npy(header("'<f4'", "(99999999999999999999,)"), "")).find("shape: dim is too large"),
            std::string::npos);
  EXPECT_NE(
      refusal(npy(header("'<f4'", "(4611686018427387904, 4611686018427387904)"), "")).find("over 2^64 bytes"),
      std::string::npos);
  EXPECT_NE(refusal(npy("{'descr': '<f4', 'shape': (1,), }", "abcd"))
                .find("key is missing (allowed: fortran_order)"),
            std::string::npos);
  EXPECT_NE(refusal(npy("{'descr': '<f4', 'descr': '<f4', }", "abcd")).find("key stands twice"),
            std::string::npos);
  EXPECT_NE(refusal(npy("{'descr': '<f4'", "")).find("malformed dictionary"), std::string::npos);
  EXPECT_NE(refusal(npy(header("'|b1'", "(2,)"), "\1\2")).find("element 1: is no bool (got 2"),
            std::string::npos);
  EXPECT_NE(refusal(std::string("\x93NUMPY\1\0\xff\xff", 10)).find("header is longer than the file"),
            std::string::npos);
  EXPECT_THROW(load_npy("/nowhere/x.npy"), UserError);
}

TEST(Numpy, EveryTruncationIsRefused) {
  const std::string whole = npy_header(Array(Dtype::f64, {2, 2})) + std::string(32, 'a');
  ASSERT_EQ(refusal(whole), "no error");
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_NE(refusal(whole.substr(0, n)), "no error") << n;
}

}  // namespace
}  // namespace espalier::format
