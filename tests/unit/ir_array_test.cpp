#include "ir/array.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace espalier::ir {
namespace {

const std::vector<Dtype> all_dtypes{Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16,    Dtype::i64,
                                    Dtype::i32, Dtype::i8,  Dtype::u8,   Dtype::boolean};

TEST(Dtypes, NamesReadBack) {
  for (Dtype d : all_dtypes) EXPECT_EQ(dtype_of_name(dtype_name(d)), d);
  EXPECT_THROW(dtype_of_name("f31"), UserError);
  EXPECT_THROW(dtype_of_name(""), UserError);
}

TEST(Dims, ProductsQuotientsAndSums) {
  const Dim batch = Dim::symbol("batch"), other = Dim::symbol("other");
  EXPECT_EQ((batch * 4).text(), "4*batch");
  EXPECT_EQ(batch * 4 / 2, batch * 2);
  EXPECT_EQ(batch * 4 / batch, Dim(4));
  EXPECT_EQ(batch + batch, batch * 2);
  EXPECT_EQ(batch * 0, Dim(0));
  EXPECT_EQ(Dim::symbol("batch"), batch);
  EXPECT_THROW(batch * other, UserError);
  EXPECT_THROW(batch + other, UserError);
  EXPECT_THROW(batch + 1, UserError);
  EXPECT_THROW(batch * 3 / 2, UserError);
  EXPECT_THROW(batch / 0, UserError);
  EXPECT_THROW(batch.value(), InternalError);
  EXPECT_THROW(count(Dims{Dim(int64_t{1} << 40), Dim(int64_t{1} << 40)}), UserError);
}

TEST(Arrays, StartAtZeroAndAreAligned) {
  for (Dtype d : all_dtypes) {
    const Array a(d, {3, 5});
    EXPECT_EQ(a.bytes(), 15 * dtype_size(d));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data()) % 64, 0u);
    for (int64_t i = 0; i < a.size(); ++i) EXPECT_EQ(a.at(i), 0.0);
  }
  EXPECT_EQ(Array(Dtype::f32, {0, 5}).size(), 0);
  EXPECT_EQ(Array(Dtype::f32, {}).size(), 1);
}

TEST(Arrays, ImpossibleSizesAreRefused) {
  EXPECT_THROW(Array(Dtype::f32, {-1}), UserError);
  EXPECT_THROW(Array(Dtype::f32, {int64_t{1} << 62, 4}), UserError);
  EXPECT_THROW(Array(Dtype::f64, {int64_t{1} << 61}), UserError);
  EXPECT_THROW(Array::of<float>({2}, {1.0f, 2.0f, 3.0f}), UserError);
  EXPECT_THROW(Array(Dtype::f32, {4}).reshaped({3}), UserError);
}

TEST(Arrays, CastsRoundAndSaturate) {
  const double infinity = std::numeric_limits<double>::infinity();
  const Array values = Array::of<double>({7}, {1.9, -1.9, 300.0, -300.0, std::nan(""), infinity, -infinity});
  const auto expect = [&](Dtype d, const std::vector<double>& wanted) {
    const Array cast = values.cast(d);
    for (size_t i = 0; i < wanted.size(); ++i)
      EXPECT_EQ(cast.at(static_cast<int64_t>(i)), wanted[i]) << dtype_name(d) << i;
  };
  expect(Dtype::i8, {1, -1, 127, -128, 0, 127, -128});
  expect(Dtype::u8, {1, 0, 255, 0, 0, 255, 0});
  expect(Dtype::i32, {1, -1, 300, -300, 0, 2147483647.0, -2147483648.0});
  expect(Dtype::boolean, {1, 1, 1, 1, 1, 1, 1});
  EXPECT_EQ(Array::scalar(Dtype::bf16, 1.0 + 0x1p-8).at(0), 1.0);
  EXPECT_EQ(Array::scalar(Dtype::f16, 65520.0).at(0), infinity);
  EXPECT_EQ(Array::of<int64_t>({1}, {INT64_MAX}).cast(Dtype::i64).data<int64_t>()[0], INT64_MAX);
}

TEST(Arrays, EqualByBytes) {
  const Array a = Array::of<float>({2}, {std::nanf(""), 0.0f}),
              b = Array::of<float>({2}, {std::nanf(""), 0.0f});
  EXPECT_TRUE(a == b);
  EXPECT_EQ(a.hash(), b.hash());
  EXPECT_FALSE(a == Array::of<float>({2}, {std::nanf(""), -0.0f}));
  EXPECT_FALSE(a == a.reshaped({1, 2}));
  EXPECT_FALSE(Array::full(Dtype::i8, {2}, 1) == Array::full(Dtype::u8, {2}, 1));
}

TEST(Arrays, CopiesShareBorrowedBytesAndKeepTheirOwner) {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3});
  const std::weak_ptr<std::vector<float>> watch = owner;
  Array a = Array::borrow(Dtype::f32, {3}, owner->data(), owner);
  owner.reset();
  const Array b = a;
  a = Array();
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(b.at(2), 3.0);
}

}  // namespace
}  // namespace espalier::ir
