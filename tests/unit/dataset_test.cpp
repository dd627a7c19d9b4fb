#include "data/dataset.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "data/fashion_mnist.h"
#include "support/errors.h"
#include "support/folder.h"

namespace espalier::data {
namespace {

using ir::Array;
using ir::Dtype;

TEST(Rng, IsAStreamOfItsOwnPerSeedEpochIndexAndPurpose) {
  std::set<uint32_t> firsts;
  for (uint64_t seed = 0; seed < 4; ++seed)
    for (uint64_t epoch = 0; epoch < 4; ++epoch)
      for (uint64_t index = 0; index < 4; ++index)
        for (const auto purpose : {Rng::Purpose::sample, Rng::Purpose::order})
          firsts.insert(Rng(seed, epoch, index, purpose).bits());
  EXPECT_EQ(firsts.size(), 128u);
  Rng a(1, 2, 3), b(1, 2, 3);
  for (int i = 0; i < 9; ++i) EXPECT_EQ(a.bits(), b.bits());
}

TEST(Rng, DrawsInItsRanges) {
  Rng rng(7, 0, 0);
  std::vector<int> counts(5);
  double sum = 0, squares = 0;
  for (int i = 0; i < 20000; ++i) {
    ++counts[rng.below(5)];
    const double u = rng.uniform(-2, 3), n = static_cast<double>(rng.normal());
    EXPECT_TRUE(u >= -2 && u < 3);
    sum += n, squares += n * n;
  }
  for (const int c : counts) EXPECT_NEAR(c, 4000, 250);
  EXPECT_NEAR(sum / 20000, 0, 0.03);
  EXPECT_NEAR(squares / 20000, 1, 0.05);
}

TEST(ArrayDataset, GivesRows) {
  const ArrayDataset d(
      {{"x", Array::of<float>({2, 3}, {0, 1, 2, 3, 4, 5})}, {"y", Array::of<int32_t>({2}, {8, 9})}});
  Rng rng(0, 0, 0);
  EXPECT_EQ(d.size(), 2);
  const Sample s = d.get(1, rng);
  EXPECT_EQ(s[0].value, (Array::of<float>({3}, {3, 4, 5})));
  EXPECT_EQ(s[1].name, "y");
  EXPECT_EQ(s[1].value, (Array::of<int32_t>({}, {9})));
  EXPECT_THROW(d.get(2, rng), UserError);
  EXPECT_THROW(d.get(-1, rng), UserError);
  EXPECT_THROW(ArrayDataset({}), UserError);
  EXPECT_THROW(ArrayDataset({{"x", Array(Dtype::f32, {2})}, {"y", Array(Dtype::f32, {3})}}), UserError);
  EXPECT_THROW(ArrayDataset({{"x", Array(Dtype::f32, {})}}), UserError);
}

TEST(FakeData, IsTheSameInEveryEpochAndInRange) {
  const FakeData d(10,
                   {{"image", {Dtype::f32, {4, 4, 3}}},
                    {"label", {Dtype::i32, {}}, 0, 9},
                    {"m", {Dtype::bf16, {5}}, -1, 1}},
                   3);
  Rng a(0, 0, 4), b(9, 1, 4);
  const Sample s = d.get(4, a), t = d.get(4, b), other = d.get(5, a);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(s[i].value, t[i].value);
  EXPECT_FALSE(s[0].value == other[0].value);
  std::set<double> labels;
  for (int64_t i = 0; i < 10; ++i) {
    const Sample one = d.get(i, a);
    labels.insert(one[1].value.at(0));
    for (int64_t k = 0; k < 48; ++k) EXPECT_TRUE(one[0].value.at(k) >= 0 && one[0].value.at(k) < 1);
    EXPECT_TRUE(one[1].value.at(0) >= 0 && one[1].value.at(0) <= 9);
  }
  EXPECT_GT(labels.size(), 3u);
  EXPECT_THROW(FakeData(-1, {}), UserError);
  EXPECT_THROW(FakeData(1, {{"x", {Dtype::f32, {ir::Dim::symbol("batch")}}}}), UserError);
  EXPECT_THROW(FakeData(1, {{"x", {Dtype::f32, {1}}, 2, 1}}), UserError);
}

TEST(Subset, AndMappedGiveWhatTheySay) {
  const auto base =
      std::make_shared<ArrayDataset>(std::vector<NamedArray>{{"x", Array::of<float>({3, 1}, {1, 2, 3})}});
  const auto picked = std::make_shared<Subset>(base, std::vector<int64_t>{2, 0});
  Rng rng(0, 0, 0);
  EXPECT_EQ(picked->get(0, rng)[0].value.at(0), 3);
  EXPECT_THROW(Subset(base, {3}), UserError);
  const Mapped twice(picked, [](Sample s, Rng&) {
    s[0].value = Array::of<double>({1, 1}, {2 * s[0].value.at(0)});
    return s;
  });
  EXPECT_EQ(twice.fields()[0].type, (ir::Type{Dtype::f64, {1, 1}}));
  EXPECT_EQ(twice.get(1, rng)[0].value.at(0), 2);
  const Mapped uneven(base, [](Sample s, Rng&) {
    s[0].value = Array(Dtype::f32, {static_cast<int64_t>(s[0].value.at(0))});
    return s;
  });
  try {
    uneven.get(1, rng);
    FAIL();
  } catch (const UserError& e) {
    EXPECT_STREQ(
        e.what(),
        "Mapped, sample 1: differs from sample 0 after the change (got x f32[2]; allowed: x f32[1])");
  }
}

class FashionFolder : public testing::Test {
 protected:
  test::TemporaryFolder temporary_;
  std::filesystem::path folder_ = temporary_.path();
  void write(int pictures, const std::string& labels) const {
    std::string images("\0\0\x08\3\0\0\0\0\0\0\0\2\0\0\0\2", 16);
    images[7] = static_cast<char>(pictures);
    write_file(folder_ / "train-images-idx3-ubyte",
               images + std::string(static_cast<size_t>(pictures) * 4, '\xff'));
    std::string header("\0\0\x08\1\0\0\0\0", 8);
    header[7] = static_cast<char>(labels.size());
    write_file(folder_ / "train-labels-idx1-ubyte", header + labels);
  }
  std::string refusal() const {
    return test::error_of([&] { FashionMnist(Part::train, folder_); });
  }
};

TEST_F(FashionFolder, ReadsPicturesAndLabels) {
  write(2, "\3\7");
  const FashionMnist d(Part::train, folder_);
  Rng rng(0, 0, 0);
  const Sample s = d.get(1, rng);
  EXPECT_EQ(s[0].value, (Array::of<float>({2, 2, 1}, {1, 1, 1, 1})));
  EXPECT_EQ(s[1].value, (Array::of<int32_t>({}, {7})));
  EXPECT_EQ(FashionMnist::class_names()[9], "ankle boot");
}

TEST_F(FashionFolder, NamesWhatDoesNotFit) {
  EXPECT_NE(refusal().find("apt install dataset-fashion-mnist"), std::string::npos) << refusal();
  write(2, "\3");
  EXPECT_NE(refusal().find("does not label the pictures (got u8[1]; allowed: u8[2])"), std::string::npos)
      << refusal();
  write(2, "\3\x0a");
  EXPECT_NE(refusal().find("element 1: label is out of range (got 10; allowed: 0 to 9)"), std::string::npos)
      << refusal();
}

TEST(FashionMnistReal, HasTenThousandTestPictures) {
  if (!std::filesystem::exists("/usr/share/datasets/fashion-mnist"))
    GTEST_SKIP() << "package dataset-fashion-mnist is not installed";
  const FashionMnist d(Part::test);
  EXPECT_EQ(d.size(), 10000);
  EXPECT_EQ(d.label(0), 9);
}

}  // namespace
}  // namespace espalier::data
