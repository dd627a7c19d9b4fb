#include "data/transforms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace espalier::data {
namespace {

using ir::Array;
using ir::Dtype;

Array picture(int64_t h, int64_t w, int64_t c) {
  Array a(Dtype::f32, {h, w, c});
  for (int64_t i = 0; i < a.size(); ++i) a.set(i, static_cast<double>(i));
  return a;
}
Array grey(int64_t h, int64_t w, std::initializer_list<float> values) {
  return Array::of<float>({h, w, 1}, values);
}

TEST(Transforms, Resize) {
  EXPECT_EQ(resize(picture(3, 4, 2), 3, 4, Interpolation::bilinear), picture(3, 4, 2));
  EXPECT_EQ(resize(grey(1, 2, {0, 4}), 1, 4, Interpolation::bilinear), grey(1, 4, {0, 1, 3, 4}));
  EXPECT_EQ(resize(grey(1, 2, {0, 4}), 2, 4, Interpolation::nearest), grey(2, 4, {0, 0, 4, 4, 0, 0, 4, 4}));
  EXPECT_EQ(resize(grey(2, 2, {0, 2, 4, 6}), 1, 1, Interpolation::bilinear), grey(1, 1, {3}));
  EXPECT_THROW(resize(picture(2, 2, 1), 0, 2, Interpolation::nearest), UserError);
  EXPECT_THROW(resize(Array(Dtype::u8, {2, 2, 1}), 2, 2, Interpolation::nearest), UserError);
}

TEST(Transforms, CropAndFlip) {
  const Array p = grey(3, 3, {0, 1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_EQ(crop(p, 1, 0, 2, 2), grey(2, 2, {3, 4, 6, 7}));
  EXPECT_EQ(center_crop(p, 1, 1), grey(1, 1, {4}));
  EXPECT_EQ(center_crop(p, 2, 2), grey(2, 2, {0, 1, 3, 4}));
  EXPECT_THROW(crop(p, 2, 0, 2, 2), UserError);
  EXPECT_THROW(crop(p, -1, 0, 2, 2), UserError);
  EXPECT_THROW(center_crop(p, 4, 4), UserError);
  EXPECT_EQ(flip_horizontal(p), grey(3, 3, {2, 1, 0, 5, 4, 3, 8, 7, 6}));
  EXPECT_EQ(flip_vertical(p), grey(3, 3, {6, 7, 8, 3, 4, 5, 0, 1, 2}));
  EXPECT_EQ(flip_horizontal(flip_horizontal(picture(3, 4, 2))), picture(3, 4, 2));
  bool seen[4] = {};
  for (uint64_t i = 0; i < 40; ++i) {
    Rng rng(0, 0, i);
    const auto v = static_cast<int>(random_crop(p, 2, 2, rng).at(0));
    ASSERT_TRUE(v == 0 || v == 1 || v == 3 || v == 4);
    seen[v / 3 * 2 + v % 3] = true;
  }
  for (const bool s : seen) EXPECT_TRUE(s);
  Rng rng(0, 0, 0);
  EXPECT_THROW(random_crop(p, 4, 4, rng), UserError);
}

TEST(Transforms, AffineMovesAboutTheCentre) {
  const Array p = grey(3, 3, {0, 1, 2, 3, 4, 5, 6, 7, 8});
  const Size2 size{3, 3};
  for (const Interpolation mode : {Interpolation::bilinear, Interpolation::nearest}) {
    EXPECT_EQ(affine(p, Warp{}.between(size, size), size, mode), p);
    Warp mirror;
    mirror.mirror = true;
    EXPECT_EQ(affine(p, mirror.between(size, size), size, mode), flip_horizontal(p));
    Warp shift;
    shift.shift_x = 1;
    EXPECT_EQ(affine(p, shift.between(size, size), size, mode, -1),
              grey(3, 3, {1, 2, -1, 4, 5, -1, 7, 8, -1}));
  }
  Warp turn;
  turn.degrees = 90;
  const Array turned = affine(p, turn.between(size, size), size, Interpolation::bilinear);
  for (int i = 0; i < 9; ++i) EXPECT_NEAR(turned.at(i), grey(3, 3, {2, 5, 8, 1, 4, 7, 0, 3, 6}).at(i), 1e-5);
  Warp large;
  large.scale = 2;
  EXPECT_NEAR(affine(p, large.between(size, size), size, Interpolation::bilinear).at(0), 2, 1e-6);
  Affine2 far;
  far.x0 = 1e300, far.y0 = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(affine(p, far, {1, 1}, Interpolation::nearest, 7).at(0), 7);
  EXPECT_EQ(affine(p, far, {1, 1}, Interpolation::bilinear, 7).at(0), 7);
  EXPECT_THROW(affine(p, far, {0, 1}, Interpolation::nearest), UserError);
}

TEST(Transforms, Rotate) {
  const Array p = grey(3, 3, {0, 1, 2, 3, 4, 5, 6, 7, 8});
  for (const Interpolation mode : {Interpolation::bilinear, Interpolation::nearest}) {
    EXPECT_EQ(rotate(p, 0, mode), p);
    for (int i = 0; i < 9; ++i) {
      EXPECT_NEAR(rotate(p, 90, mode).at(i), grey(3, 3, {2, 5, 8, 1, 4, 7, 0, 3, 6}).at(i), 1e-5);
      EXPECT_NEAR(rotate(p, -90, mode).at(i), grey(3, 3, {6, 3, 0, 7, 4, 1, 8, 5, 2}).at(i), 1e-5);
      EXPECT_NEAR(rotate(p, 540, mode).at(i), 8 - i, 1e-5);
    }
  }
  // By 90 degrees about the middle of 1 x 4 only the middle stays; the ends come from outside.
  EXPECT_EQ(rotate(grey(1, 4, {1, 2, 3, 4}), 90, Interpolation::nearest, 9).at(0), 9);
  // Half of a pixel's way at 45 degrees: the corner of a 3 x 3 picture reads sqrt(2) from the centre, on the axis.
  EXPECT_NEAR(rotate(p, 45, Interpolation::bilinear, -1).at(4), 4, 1e-5);
  EXPECT_NEAR(rotate(p, 45, Interpolation::bilinear, 0).at(1), 4 - 2 * std::sqrt(0.5), 1e-5);
  EXPECT_THROW(rotate(p, std::numeric_limits<double>::infinity(), Interpolation::nearest), UserError);
  double least = 90, most = -90;
  for (uint64_t i = 0; i < 60; ++i) {
    Rng rng(0, 0, i), again(0, 0, i);
    const double angle = again.uniform(-20, 20);
    EXPECT_EQ(random_rotate(p, 20, Interpolation::bilinear, rng), rotate(p, angle, Interpolation::bilinear));
    least = std::min(least, angle), most = std::max(most, angle);
  }
  EXPECT_LT(least, -15);
  EXPECT_GT(most, 15);
}

TEST(Transforms, WarpFollowsItsFormula) {
  Warp w{true, 8, 1.05, 3, -2};
  const Affine2 m = w.between({217, 181}, {192, 160});
  const double angle = 8 * 3.14159265358979323846 / 180, u = 100 - 79.5, v = 17 - 95.5;
  EXPECT_NEAR(m.x(17, 100), 90 + 3 - (u * std::cos(angle) - v * std::sin(angle)) / 1.05, 1e-9);
  EXPECT_NEAR(m.y(17, 100), 108 - 2 + (u * std::sin(angle) + v * std::cos(angle)) / 1.05, 1e-9);
  WarpRange range;
  int mirrored = 0;
  for (uint64_t i = 0; i < 200; ++i) {
    Rng rng(0, 0, i);
    const Warp d = range.draw(rng);
    mirrored += d.mirror;
    EXPECT_TRUE(std::abs(d.degrees) <= 10 && d.scale >= 0.9 && d.scale <= 1.1 && std::abs(d.shift_x) <= 8);
  }
  EXPECT_NEAR(mirrored, 100, 40);
}

TEST(Transforms, Values) {
  const Array p = Array::of<float>({1, 2, 2}, {1, 2, 3, 4});
  const float mean[] = {1, 2}, std[] = {1, 2}, one[] = {2}, zero[] = {0};
  EXPECT_EQ(normalise(p, mean, std), (Array::of<float>({1, 2, 2}, {0, 0, 2, 1})));
  EXPECT_EQ(normalise(p, one, one), (Array::of<float>({1, 2, 2}, {-0.5f, 0, 0.5f, 1})));
  EXPECT_THROW(normalise(p, one, zero), UserError);
  EXPECT_THROW(normalise(p, {}, one), UserError);
  EXPECT_EQ(brightness_contrast(p, 1, 2), (Array::of<float>({1, 2, 2}, {3, 5, 7, 9})));
  Rng rng(0, 0, 0);
  EXPECT_NEAR(random_brightness_contrast(p, 0.1f, rng).at(3), 4, 0.51);
}

TEST(Transforms, Pad) {
  const Array p = grey(1, 2, {1, 2});
  EXPECT_EQ(pad_to_multiple(p, 4, 9), grey(4, 4, {9, 9, 9, 9, 9, 1, 2, 9, 9, 9, 9, 9, 9, 9, 9, 9}));
  EXPECT_EQ(pad_to_multiple(p, 1), p);
  EXPECT_EQ(pad_to(p, {1, 5}), grey(1, 5, {0, 1, 2, 0, 0}));
  EXPECT_THROW(pad_to(p, {1, 1}), UserError);
  EXPECT_THROW(pad_to_multiple(p, 0), UserError);
}

}  // namespace
}  // namespace espalier::data
