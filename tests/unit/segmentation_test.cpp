#include "data/segmentation.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "data/nifti.h"
#include "data/slices.h"
#include "support/errors.h"
#include "support/folder.h"

namespace espalier::data {
namespace {

using ir::Array;
using ir::Dtype;
namespace fs = std::filesystem;

#define EXPECT_SAYS(text, part)                            \
  do {                                                     \
    const std::string said = (text);                       \
    EXPECT_NE(said.find(part), std::string::npos) << said; \
  } while (false)

/// A volume of depth x 40 x 36 whose value is 1 + z + y/100 inside a box; the box is output 0, its left half output 1.
std::shared_ptr<LabelledVolumes> box(int64_t depth = 20) {
  auto volumes = std::make_shared<LabelledVolumes>(std::vector<std::string>{"box", "left"});
  Array values(Dtype::f32, {depth, 40, 36});
  std::vector<uint64_t> sets(static_cast<size_t>(values.size()));
  for (int64_t z = 2; z < depth - 2; ++z)
    for (int64_t y = 10; y < 30; ++y)
      for (int64_t x = 8; x < 28; ++x) {
        const int64_t i = (z * 40 + y) * 36 + x;
        values.write<float>()[i] = static_cast<float>(1 + z) + static_cast<float>(y) / 100;
        sets[static_cast<size_t>(i)] = x < 18 ? 3 : 1;
      }
  volumes->add("box", values, sets);
  return volumes;
}

TEST(LabelledVolumes, KnowsItsVoxels) {
  const auto v = box();
  EXPECT_EQ(v->volumes()[0].labelled, (SliceRange{2, 17}));
  EXPECT_EQ(v->volumes()[0].background, 0);
  EXPECT_NEAR(v->volumes()[0].mean, 10.5 + 0.195, 1e-5);
  EXPECT_TRUE(v->holds(0, 1, 5, 20, 10));
  EXPECT_FALSE(v->holds(0, 1, 5, 20, 20));
  EXPECT_TRUE(v->holds(0, 0, 5, 20, 20));
  EXPECT_FALSE(v->holds(0, 0, 1, 20, 20));
}

TEST(LabelledVolumes, RefusesWhatIsNoVolume) {
  LabelledVolumes v({"a"});
  const std::vector<uint64_t> sets(8);
  Array values(Dtype::f32, {2, 2, 2});
  EXPECT_SAYS(test::error_of([&] { v.add("flat", values, sets); }),
              "volume \"flat\": all voxels have one value (got 0");
  values.write<float>()[3] = std::numeric_limits<float>::infinity();
  EXPECT_SAYS(test::error_of([&] { v.add("inf", values, sets); }), "voxel (1, 1, 0) is not finite");
  EXPECT_SAYS(test::error_of([&] { v.add("x", values, std::span(sets).first(7)); }),
              "labels for another number of voxels");
  EXPECT_SAYS(test::error_of([&] { v.add("x", Array(Dtype::f32, {8}), sets); }), "is no volume");
  EXPECT_SAYS(test::error_of([] { LabelledVolumes({}); }), "number of outputs (got 0; allowed: 1 to 64)");
}

TEST(SliceSplit, SlabsKeepTheirGuard) {
  const auto v = box(60);
  constexpr SliceRange slabs[] = {{20, 22}, {40, 40}};
  const SliceSplit s = split_by_slabs(*v, 0, slabs, 3);
  EXPECT_EQ(s.held_out, (std::vector<SliceRef>{{0, 20}, {0, 21}, {0, 22}, {0, 40}}));
  EXPECT_EQ(s.text, "held out: slices 20-22, 40 of box, 3 slices beside each left out");
  EXPECT_EQ(s.train.size(), 56u - 4 - 12);
  for (const SliceRef& t : s.train)
    for (const SliceRef& h : s.held_out) EXPECT_GT(std::abs(t.z - h.z), 3);
  constexpr SliceRange outside[] = {{1, 3}};
  EXPECT_SAYS(test::error_of([&] { split_by_slabs(*v, 0, outside, 3); }),
              "slab lies outside the labelled slices (got 1-3; allowed: 2-57)");
  constexpr SliceRange everything[] = {{2, 57}};
  EXPECT_SAYS(test::error_of([&] { split_by_slabs(*v, 0, everything, 3); }), "leaves no slice");
  const SliceSplit even = split_by_even_slabs(*v, 0, 3);
  EXPECT_EQ(even.held_out.size(), 6u);
  EXPECT_EQ(split_by_even_slabs(*box(16), 0, 3).held_out.size(), 1u);
  EXPECT_SAYS(test::error_of([] { split_by_even_slabs(*box(15), 0, 3); }), "too few labelled slices (got 11");
}

TEST(SliceDataset, WholeSlicesArePaddedAndNormalised) {
  const SliceDataset d = SliceDataset::whole(box(), {{0, 5}, {0, 0}});
  EXPECT_EQ(d.sample_size(), (Size2{64, 64}));
  EXPECT_EQ(d.window(0), (SliceDataset::Window{12, 14, 40, 36}));
  Rng rng(0, 0, 0);
  const Sample s = d.get(0, rng);
  const LabelledVolumes::Volume& v = d.volumes().volumes()[0];
  const auto image = [&](const Sample& one, int64_t y, int64_t x, int64_t c) {
    return one[0].value.at((y * 64 + x) * 3 + c);
  };
  for (int64_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(image(s, 12 + 20, 14 + 10, c), (1 + 4 + static_cast<double>(c) + 0.2 - v.mean) / v.std, 1e-5);
    EXPECT_NEAR(image(s, 0, 0, c), (0 - v.mean) / v.std, 1e-5);
  }
  EXPECT_EQ(s[1].value.at(((12 + 20) * 64 + 14 + 10) * 2 + 1), 1);
  EXPECT_EQ(s[1].value.at(((12 + 20) * 64 + 14 + 20) * 2 + 1), 0);
  EXPECT_EQ(s[1].value.at(0), 0);
  const Sample edge = d.get(1, rng);  // the slice before the first counts as background
  EXPECT_NEAR(image(edge, 32, 24, 0), (0 - v.mean) / v.std, 1e-5);
}

TEST(SliceDataset, WithoutAWarpTheMiddleIsCut) {
  SliceAugmentation still;
  still.warp = {.mirror = 0, .degrees = 0, .scale_low = 1, .scale_high = 1, .shift = 0};
  still.intensity = 0;
  still.middle = Size2{32, 32};
  const auto volumes = box();
  const SliceDataset cut = SliceDataset::augmented(volumes, {{0, 5}}, still),
                     whole = SliceDataset::whole(volumes, {{0, 5}});
  EXPECT_EQ(cut.sample_size(), (Size2{32, 32}));
  Rng rng(0, 0, 0);
  const Sample a = cut.get(0, rng), b = whole.get(0, rng);
  for (int64_t y = 0; y < 32; ++y)
    for (int64_t x = 0; x < 32; ++x) {
      const int64_t from = (y + 16) * 64 + x + 16, to = y * 32 + x;
      EXPECT_NEAR(a[0].value.at(to * 3 + 1), b[0].value.at(from * 3 + 1), 1e-5);
      EXPECT_EQ(a[1].value.at(to * 2), b[1].value.at(from * 2));
    }
}

/// A depth x height x width volume whose output is one row at the lower border.
void add_bordered(LabelledVolumes& volumes, int64_t height, int64_t width) {
  Array values(Dtype::f32, {3, height, width});
  std::vector<uint64_t> sets(static_cast<size_t>(values.size()));
  for (int64_t i = 0; i < values.size(); ++i) {
    values.set(i, static_cast<double>(i % 5));
    sets[static_cast<size_t>(i)] = i / width % height == height - 1;
  }
  volumes.add(fmt::format("{}x{}", height, width), values, sets);
}

TEST(SliceDataset, ViewsHoldEverySliceToItsBorder) {
  SliceAugmentation still;
  still.warp = {.mirror = 0, .degrees = 0, .scale_low = 1, .scale_high = 1, .shift = 0};
  const auto labelled = [](const Sample& s) {
    double sum = 0;
    for (int64_t i = 0; i < s[1].value.size(); ++i) sum += s[1].value.at(i);
    return sum;
  };
  const auto volumes = std::make_shared<LabelledVolumes>(std::vector<std::string>{"border"});
  add_bordered(*volumes, 63, 63);
  const SliceDataset one = SliceDataset::augmented(volumes, {{0, 1}}, still);
  EXPECT_EQ(one.sample_size(), (Size2{64, 64}));
  Rng rng(0, 0, 0);
  EXPECT_NEAR(labelled(one.get(0, rng)), 63, 2);  // the middle of 63 in 64 lies between pixels

  add_bordered(*volumes, 20, 20);  // a small subject shrinks nobody's views
  add_bordered(*volumes, 100, 100);
  const SliceDataset all = SliceDataset::augmented(volumes, {{0, 1}, {1, 1}, {2, 1}}, still);
  EXPECT_EQ(all.sample_size(), (Size2{128, 128}));
  for (int64_t i = 0; i < 3; ++i) EXPECT_EQ(labelled(all.get(i, rng)) > 0, true) << i;
}

TEST(SliceDataset, ViewsOfLongSlicesLieAnywhere) {
  SliceAugmentation still;
  still.warp = {.mirror = 0, .degrees = 0, .scale_low = 1, .scale_high = 1, .shift = 0};
  still.intensity = 0;
  const auto volumes = std::make_shared<LabelledVolumes>(std::vector<std::string>{"border"});
  Array rows(Dtype::f32, {1, 420, 40});
  for (int64_t i = 0; i < rows.size(); ++i) rows.set(i, static_cast<double>(i / 40));
  volumes->add("rows", rows, std::vector<uint64_t>(static_cast<size_t>(rows.size()), 1));
  const SliceDataset d = SliceDataset::augmented(volumes, {{0, 0}}, still, 0);
  EXPECT_EQ(d.sample_size(), (Size2{320, 64}));
  const LabelledVolumes::Volume& v = volumes->volumes()[0];
  double least = 420, most = 0;
  for (uint64_t i = 0; i < 60; ++i) {
    Rng rng(0, i, 0);
    const double top =
        d.get(0, rng)[0].value.at(32) * v.std + v.mean;  // the row of the slice that it shows first
    least = std::min(least, top), most = std::max(most, top);
  }
  EXPECT_GE(least, -1e-3);
  EXPECT_LT(least, 15);
  EXPECT_LE(most, 100 + 1e-3);
  EXPECT_GT(most, 85);
}

TEST(SliceDataset, AugmentationDependsOnSeedEpochAndIndexAlone) {
  const SliceDataset d = SliceDataset::augmented(box(), {{0, 5}, {0, 6}});
  Rng a(1, 2, 0), b(1, 2, 0), c(1, 3, 0);
  const Sample first = d.get(0, a);
  EXPECT_EQ(first[0].value, d.get(0, b)[0].value);
  EXPECT_FALSE(first[0].value == d.get(0, c)[0].value);
  EXPECT_THROW(SliceDataset::augmented(box(), {}), UserError);
  EXPECT_THROW(SliceDataset::augmented(box(), {{0, 20}}), UserError);
  EXPECT_THROW(SliceDataset::augmented(box(), {{1, 2}}), UserError);
}

class Folder : public testing::Test {
 protected:
  test::TemporaryFolder temporary_;
  fs::path folder_ = temporary_.path();
  Folder() {
    fs::create_directories(folder_ / "images");
    fs::create_directories(folder_ / "masks");
  }

  void write(const std::string& image_file, const std::string& mask_file, int label = 1,
             int64_t depth = 30) const {
    Array image(Dtype::f32, {depth, 34, 33}), mask(Dtype::u8, {depth, 34, 33});
    for (int64_t i = 0; i < image.size(); ++i) {
      image.set(i, static_cast<double>(i % 1000));
      if (i % 33 > 20) mask.set(i, label);
    }
    save_nifti(folder_ / "images" / image_file, image, {});
    save_nifti(folder_ / "masks" / mask_file, mask, {});
  }
  std::string why() const {
    return test::error_of([&] { folder_task(folder_); });
  }
};

TEST_F(Folder, OneSubjectIsSplitBySlabs) {
  write("a.nii.gz", "a.nii", 7);
  const SegmentationTask t = folder_task(folder_);
  EXPECT_EQ(t.volumes->outputs(), (std::vector<std::string>{"label_7"}));
  EXPECT_EQ(t.split.held_out.size(), 3u);
  EXPECT_EQ(t.split.train.size(), 30u - 3 - 6);
}

TEST_F(Folder, TheOnlyLabelledSubjectIsSplitBySlabs) {
  write("a.nii", "a.nii", 7);
  write("b.nii", "b.nii", 0);
  const SegmentationTask t = folder_task(folder_);
  EXPECT_EQ(t.split.held_out.size(), 3u);
  for (const SliceRef& s : t.split.held_out) EXPECT_EQ(s.volume, 0);
  EXPECT_SAYS(t.split.text, "a, 3 slices beside each left out; no other volume has labels");
}

TEST_F(Folder, SubjectsAreHeldOutWhole) {
  for (int i = 0; i < 6; ++i)
    write(std::string(1, static_cast<char>('a' + i)) + ".nii",
          std::string(1, static_cast<char>('a' + i)) + ".nii", 1 + i % 2, 4);
  const SegmentationTask t = folder_task(folder_);
  EXPECT_EQ(t.volumes->outputs(), (std::vector<std::string>{"label_1", "label_2"}));
  EXPECT_EQ(t.split.held_out.size(), 4u);
  EXPECT_EQ(t.split.train.size(), 20u);
  for (const SliceRef& s : t.split.train) EXPECT_NE(s.volume, t.split.held_out[0].volume);
  EXPECT_EQ(folder_task(folder_).split.held_out, t.split.held_out);
}

TEST_F(Folder, NamesWhatIsWrong) {
  EXPECT_SAYS(test::error_of([] { folder_task("/nowhere"); }), "does not exist");
  EXPECT_SAYS(why(), "images/ holds no volume");
  write("a.nii", "b.nii");
  EXPECT_SAYS(why(), "image has no mask (got a.nii; allowed: masks/a.nii or .nii.gz)");
  write("a.nii", "a.nii");
  EXPECT_SAYS(why(), "mask has no image (got b.nii");
  fs::remove(folder_ / "masks/b.nii");
  ASSERT_EQ(why(), "no error");
  save_nifti(folder_ / "masks/a.nii", Array(Dtype::u8, {30, 34, 33}), {});
  EXPECT_SAYS(why(), "no mask holds a label");
  save_nifti(folder_ / "masks/a.nii", Array::full(Dtype::f32, {30, 34, 33}, 0.5), {});
  EXPECT_SAYS(why(), "masks/a.nii, voxel (0, 0, 0): is no label (got 0.5");
  save_nifti(folder_ / "masks/a.nii", Array::full(Dtype::i32, {30, 34, 33}, -1), {});
  EXPECT_SAYS(why(), "is no label (got -1");
  save_nifti(folder_ / "masks/a.nii", Array::full(Dtype::u8, {30, 34, 32}, 1), {});
  EXPECT_SAYS(why(), "masks/a.nii: grid differs from that of");
  NiftiGeometry turned;
  turned.pixdim[1] = 2;
  save_nifti(folder_ / "masks/a.nii", Array::full(Dtype::u8, {30, 34, 33}, 1), turned);
  EXPECT_SAYS(why(), "orientation or place differs");
  save_nifti(folder_ / "masks/a.nii", Array::full(Dtype::u8, {2, 30, 34, 33}, 1), {});
  EXPECT_SAYS(why(), "is no single volume");
  write_file(folder_ / "masks/a.nii", read_file(folder_ / "images/a.nii").substr(0, 5000));
  EXPECT_SAYS(why(), "masks/a.nii");
  write("a.nii", "a.nii");
  write("a.nii.gz", "a.nii.gz");
  EXPECT_SAYS(why(), "holds one name twice");
}

TEST(BrainReal, IsTheRecipe) {
  if (!fs::exists("/usr/share/mricron/templates/aal.nii.gz"))
    GTEST_SKIP() << "package mricron-data is not installed";
  const SegmentationTask t = brain_task();
  const LabelledVolumes::Volume& v = t.volumes->volumes()[0];
  EXPECT_NEAR(v.mean, 76.392, 1e-3);
  EXPECT_NEAR(v.std, 36.302, 1e-3);
  EXPECT_EQ(v.labelled, (SliceRange{4, 155}));
  EXPECT_EQ(t.split.train.size(), 116u);
  EXPECT_EQ(t.split.held_out.size(), 20u);
  const SliceDataset whole = SliceDataset::whole(t.volumes, t.split.held_out);
  EXPECT_EQ(whole.sample_size(), (Size2{224, 192}));
  EXPECT_EQ(whole.window(0), (SliceDataset::Window{3, 5, 217, 181}));
  EXPECT_SAYS(test::error_of([] { brain_task("/nowhere"); }), "apt install mricron-data");
}

}  // namespace
}  // namespace espalier::data
