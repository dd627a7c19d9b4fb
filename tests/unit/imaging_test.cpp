// Scores, overlays and the report of apps/imaging.
#include <gtest/gtest.h>

#include "apps/imaging/overlay.h"
#include "apps/imaging/report.h"
#include "apps/imaging/score.h"
#include "base/error.h"

namespace espalier::imaging {
namespace {

using ir::Array;
using ir::Dtype;

/// One volume of 3 slices of 40 x 36 voxels; output 0 fills rows 10-19, output 1 columns 5-9.
data::SliceDataset slices() {
  const int64_t depth = 3, height = 40, width = 36;
  Array image(Dtype::f32, {depth, height, width});
  std::vector<uint64_t> sets(static_cast<size_t>(image.size()));
  for (int64_t i = 0; i < image.size(); ++i) {
    const int64_t y = i / width % height, x = i % width;
    image.set(i, static_cast<double>(i % 7));
    sets[static_cast<size_t>(i)] = (y >= 10 && y < 20 ? 1u : 0u) | (x >= 5 && x < 10 ? 2u : 0u);
  }
  const auto volumes = std::make_shared<data::LabelledVolumes>(std::vector<std::string>{"rows", "columns"});
  volumes->add("box", image, sets);
  return data::SliceDataset::whole(volumes, {{0, 0}, {0, 1}, {0, 2}});
}

/// Logits of a padded slice: above 0 where `found` says so, and everywhere in the padding.
template <class F>
std::vector<float> logits_of(const data::SliceDataset& d, F found) {
  const auto [height, width] = d.sample_size();
  const data::SliceDataset::Window w = d.window(0);
  std::vector<float> out;
  for (int64_t row = 0; row < height; ++row)
    for (int64_t column = 0; column < width; ++column)
      for (int k = 0; k < 2; ++k) {
        const int64_t y = row - w.top, x = column - w.left;
        const bool inside = y >= 0 && x >= 0 && y < w.height && x < w.width;
        out.push_back(!inside || found(y, x, k) ? 0.5f : -0.5f);
      }
  return out;
}

bool truth(int64_t y, int64_t x, int k) { return k == 0 ? y >= 10 && y < 20 : x >= 5 && x < 10; }

TEST(Score, CountsVoxelsOfTheSliceAndNotOfItsPadding) {
  const data::SliceDataset d = slices();
  ASSERT_EQ(d.sample_size(), (data::Size2{64, 64}));
  std::vector<DiceCount> counts(2);
  count_slice(d, 0, logits_of(d, truth).data(), counts);
  EXPECT_EQ(counts[0], (DiceCount{360, 360, 360}));
  EXPECT_EQ(counts[1], (DiceCount{200, 200, 200}));
  count_slice(
      d, 1,
      logits_of(d, [](int64_t y, int64_t x, int k) { return truth(y, x, k) && (k == 1 || x < 18); }).data(),
      counts);
  EXPECT_EQ(counts[0], (DiceCount{540, 540, 720}));
  EXPECT_EQ(dice_of(counts), (std::vector<std::optional<double>>{2.0 * 540 / 1260, 1.0}));
  EXPECT_EQ(DiceCount{}.dice(), std::nullopt);
  EXPECT_EQ((DiceCount{0, 5, 0}.dice()), 0.0);
}

TEST(Score, ALogitOfZeroIsNotFound) {
  const data::SliceDataset d = slices();
  const std::vector<float> zeros(64 * 64 * 2, 0.0f);
  std::vector<DiceCount> counts(2);
  count_slice(d, 0, zeros.data(), counts);
  EXPECT_EQ(counts[0].found, 0);
}

TEST(Score, PercentilesLieBetweenNeighbours) {
  const std::vector<double> v{1, 2, 3, 5};
  EXPECT_EQ(percentile(v, 0), 1);
  EXPECT_EQ(percentile(v, 0.5), 2.5);
  EXPECT_EQ(percentile(v, 1), 5);
  EXPECT_THROW(percentile({}, 0.5), UserError);
}

TEST(Overlay, ShowsSliceTruthAndFound) {
  const data::SliceDataset d = slices();
  const Array p = draw_overlay(d, 1, logits_of(d, [](int64_t, int64_t, int) { return false; }).data());
  ASSERT_EQ(p.dims(), (std::vector<int64_t>{80, 3 * 72 + 16, 3}));
  const auto pixel = [&](int64_t panel, int64_t y, int64_t x) {  // of a voxel; the first row is at the bottom
    const uint8_t* at = p.data<uint8_t>() + (((39 - y) * 2) * p.dims()[1] + panel * 80 + x * 2) * 3;
    return Colour{at[0], at[1], at[2]};
  };
  const auto grey = [](const Colour& c) { return c[0] == c[1] && c[1] == c[2]; };
  for (const int64_t y : {0, 15, 39}) EXPECT_TRUE(grey(pixel(0, y, 7)));
  EXPECT_TRUE(grey(pixel(1, 30, 30)));
  EXPECT_FALSE(grey(pixel(1, 15, 30)));                         // output 0
  EXPECT_FALSE(grey(pixel(1, 30, 7)));                          // output 1
  EXPECT_TRUE(grey(pixel(2, 15, 30)));                          // nothing was found
  const Colour edge = pixel(1, 10, 30), colour = colour_of(0);  // a border is nearly the plain colour
  for (size_t c = 0; c < 3; ++c) EXPECT_NEAR(edge[c], colour[c], 26);
}

TEST(Report, SaysWhetherTheDiceIsAsExpected) {
  const auto figures = [](const char* precision, double brain, std::optional<double> rest) {
    EngineFigures e;
    e.precision = precision;
    e.dice = {brain, rest};
    return e;
  };
  const std::vector<std::string> outputs{"brain", "front"};
  const auto check = [&](std::vector<EngineFigures> e, double least) {
    return check_text(e, outputs, least);
  };
  EXPECT_EQ(check({figures("f32", 0.97, 0.91), figures("bf16", 0.966, 0.9176)}, 0.95),
            "brain Dice at least 0.95: yes; bf16 within 0.01 Dice of f32 (at most 0.0076): yes");
  EXPECT_EQ(check({figures("f32", 0.95, 0.91), figures("bf16", 0.9499, 0.8989)}, 0.95),
            "brain Dice at least 0.95: NO; bf16 within 0.01 Dice of f32 (at most 0.0111): NO");
  EXPECT_EQ(check({figures("f32", 0.5, std::nullopt), figures("bf16", 0.5, std::nullopt)}, 0),
            "bf16 within 0.01 Dice of f32 (at most 0.0000): yes");
  EXPECT_EQ(check({figures("f32", 0.5, 0.5)}, 0), "");
}

TEST(Report, IsSelfContainedAndEscapesNames) {
  Report r{.title = "one <volume>",
           .caution = "This is ONE volume.",
           .split = "a & b",
           .processor = "p",
           .outputs = {"label \"1\""}};
  r.history = parse_history("step,epoch,rate,loss,Dice\n1,0,0.1,1.5,0.25\n2,0,0.1,1.25,0.5\n");
  ASSERT_EQ(r.history.size(), 2u);
  EXPECT_EQ(r.history[1].dice, 0.5);
  r.outputs.emplace_back("absent");
  r.engines.push_back({.precision = "f32", .dice = {0.9625, std::nullopt}});
  r.pictures.push_back({"slice 3", std::string("\x89PNG\0", 5)});
  const std::string page = to_html(r);
  for (const char* part : {"one &lt;volume&gt;", "a &amp; b", "label &quot;1&quot;", "0.9625",
                           "n/a (not in the held-out slices)", "This is ONE volume.", "<svg", "<polyline",
                           "data:image/png;base64,iVBORwA=", "prefers-color-scheme: dark", "not measured"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
  for (const char* part : {"http:", "https:", "<script", "<link", "url(", "@import"})
    EXPECT_EQ(page.find(part), std::string::npos) << part;
  EXPECT_NE(to_summary(r).find("0.9625"), std::string::npos);
  EXPECT_NE(to_summary(r).find("n/a: not in the held-out slices."), std::string::npos);
  EXPECT_THROW(parse_history("step,loss\n1,2\n"), UserError);
  EXPECT_THROW(parse_history("step,loss,Dice\n1,2\n"), UserError);
}

}  // namespace
}  // namespace espalier::imaging
