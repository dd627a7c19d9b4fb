#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "data/idx.h"
#include "data/nifti.h"
#include "data/png.h"
#include "support/errors.h"
#include "support/folder.h"

namespace espalier::data {
namespace {

using ir::Array;
using ir::Dtype;

std::span<const std::byte> bytes_of(const std::string& s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

Array idx(const std::string& bytes) {
  ByteReader reader(bytes_of(bytes), "x");
  return read_idx(reader);
}
NiftiImage nifti(const std::string& bytes) {
  ByteReader reader(bytes_of(bytes), "x");
  return read_nifti(reader);
}
std::string idx_refusal(const std::string& bytes) {
  return test::error_of([&] { idx(bytes); });
}
std::string nifti_refusal(const std::string& bytes) {
  return test::error_of([&] { nifti(bytes); });
}
std::string png_refusal(const std::string& bytes) {
  return test::error_of([&] { parse_png(bytes_of(bytes), "x"); });
}

/// `bytes` with a value written over them.
template <class T>
std::string with(std::string bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
  return bytes;
}

#define EXPECT_SAYS(text, part)                            \
  do {                                                     \
    const std::string said = (text);                       \
    EXPECT_NE(said.find(part), std::string::npos) << said; \
  } while (false)

TEST(Gzip, GoesThereAndBackAndNamesWhatIsWrong) {
  std::string text;
  for (int i = 0; i < 100000; ++i) text += static_cast<char>('a' + i % 1000 * (i % 97) % 23);
  const std::string packed = gzip(text);
  EXPECT_LT(packed.size(), text.size());
  for (const std::string& file :
       {packed, text, gzip(text.substr(0, 5)) + gzip(text.substr(5)), packed + std::string(512, '\0'),
        packed + "junk", packed + '\x1f'}) {  // what follows the last member is ignored
    ByteReader reader(bytes_of(file), "x");
    std::string back(text.size(), '\0');
    EXPECT_GE(reader.most_left(), back.size());
    reader.read(back.data(), back.size(), "text");
    EXPECT_EQ(back, text);
    EXPECT_EQ(reader.drain(), 0u);
  }
  const auto drained = [&](std::string file) {
    return test::error_of([&] {
      ByteReader reader(bytes_of(file), "x");
      reader.drain();
    });
  };
  EXPECT_SAYS(drained(packed.substr(0, packed.size() - 9)), "file x: gzip data is truncated");
  EXPECT_SAYS(drained(with(packed, packed.size() - 8, 1)), "gzip data is corrupt (got incorrect data check");
  EXPECT_SAYS(drained(packed + gzip("more").substr(0, 8)), "gzip data is truncated");
  EXPECT_SAYS(test::error_of([&] {
                ByteReader reader(bytes_of(text), "x");
                reader.skip(text.size() + 1, "the rest");
              }),
              "file x, the rest: file is truncated");
}

TEST(Idx, ReadsEveryElementType) {
  const std::string d2("\0\0\0\2", 4);
  EXPECT_EQ(idx(std::string("\0\0\x08\1", 4) + d2 + "\1\xff"), Array::of<uint8_t>({2}, {1, 255}));
  EXPECT_EQ(idx(std::string("\0\0\x09\1", 4) + d2 + "\1\xff"), Array::of<int8_t>({2}, {1, -1}));
  EXPECT_EQ(idx(std::string("\0\0\x0b\1", 4) + d2 + "\1\2\xff\xfe"), Array::of<int32_t>({2}, {258, -2}));
  EXPECT_EQ(idx(std::string("\0\0\x0c\1", 4) + d2 + std::string("\0\0\1\2\xff\xff\xff\xfe", 8)),
            Array::of<int32_t>({2}, {258, -2}));
  EXPECT_EQ(idx(std::string("\0\0\x0d\1", 4) + d2 + std::string("\x3f\x80\0\0\xc0\0\0\0", 8)),
            Array::of<float>({2}, {1, -2}));
  EXPECT_EQ(idx(std::string("\0\0\x0e\1\0\0\0\1\x3f\xf0\0\0\0\0\0\0", 16)), Array::of<double>({1}, {1}));
  const std::string matrix = std::string("\0\0\x08\2", 4) + d2 + std::string("\0\0\0\3", 4) + "abcdef";
  EXPECT_EQ(idx(matrix).dims(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(idx(gzip(matrix)), idx(matrix));
}

TEST(Idx, RefusesWithTheFieldNamed) {
  const std::string good = std::string("\0\0\x08\1\0\0\0\2", 8) + "ab";
  EXPECT_SAYS(idx_refusal(""), "file x, magic number: file is truncated");
  EXPECT_SAYS(idx_refusal("\x89PNG"), "IDX file x, magic number: is no IDX file");
  EXPECT_SAYS(idx_refusal(with(good, 2, 'x')), "unknown element type");
  EXPECT_SAYS(idx_refusal(with(good, 3, '\0')), "number of dims: is out of range (got 0");
  EXPECT_SAYS(idx_refusal(with(good, 3, '\x09')), "number of dims: is out of range (got 9");
  EXPECT_SAYS(idx_refusal(with(good, 4, '\x7f')), "dims: claim more elements than the file can hold");
  EXPECT_SAYS(idx_refusal(good + "c"), "more bytes than the dims say (got 3 bytes; allowed: 2 bytes)");
  const std::string huge = std::string("\0\0\x0e\4", 4) + std::string(16, '\xff');
  EXPECT_SAYS(idx_refusal(huge), "claim more elements");
  EXPECT_SAYS(idx_refusal(gzip(huge)), "claim more elements");
  for (size_t n = 0; n < good.size(); ++n) EXPECT_NE(idx_refusal(good.substr(0, n)), "no error") << n;
  const std::string packed = gzip(good);
  for (size_t n = 0; n < packed.size(); ++n) EXPECT_NE(idx_refusal(packed.substr(0, n)), "no error") << n;
  EXPECT_THROW(load_idx("/nowhere/x"), UserError);
}

class NiftiFile : public testing::Test {
 protected:
  Array voxels_ = Array::of<uint8_t>({2, 2, 3}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  std::string good_ = nifti_bytes(voxels_, {});

  /// The header of good_ for another datatype, followed by `data`.
  std::string typed(int16_t code, int16_t bits, const std::string& data) const {
    return with(with(good_.substr(0, 352), 70, code), 72, bits) + data;
  }
  /// Every field of the header in the other byte order.
  static std::string swapped(std::string bytes, int element) {
    const auto flip = [&](size_t at, size_t size, size_t count) {
      for (size_t i = 0; i < count; ++i, at += size)
        std::reverse(bytes.begin() + static_cast<long>(at), bytes.begin() + static_cast<long>(at + size));
    };
    flip(0, 4, 1), flip(40, 2, 8), flip(70, 2, 2), flip(76, 4, 8), flip(108, 4, 3), flip(252, 2, 2),
        flip(256, 4, 18);
    flip(352, static_cast<size_t>(element), (bytes.size() - 352) / static_cast<size_t>(element));
    return bytes;
  }
};

TEST_F(NiftiFile, ComesBackPlainGzippedAndSwapped) {
  NiftiGeometry g;
  g.pixdim = {-1, 0.5f, 2, 3, 0, 0, 0, 0};
  g.sform_code = 2;
  g.srow = {{{1, 2, 3, 4}, {5, 6, 7, 8}, {9, 10, 11, 12}}};
  const test::TemporaryFolder folder;
  const auto path = folder / "x.nii.gz";
  save_nifti(path, voxels_, g);
  const NiftiImage back = load_nifti(path);
  EXPECT_EQ(back.voxels, voxels_);
  EXPECT_EQ(back.geometry, g);
  EXPECT_EQ(back.geometry.affine()[1][3], 8);
  for (const Dtype d : {Dtype::i8, Dtype::i32, Dtype::i64, Dtype::f32, Dtype::f64}) {
    const Array a = voxels_.cast(d);
    const std::string bytes = nifti_bytes(a, g);
    EXPECT_EQ(nifti(bytes).voxels, a);
    const NiftiImage other = nifti(swapped(bytes, static_cast<int>(ir::dtype_size(d))));
    EXPECT_EQ(other.voxels, a);
    EXPECT_EQ(other.geometry, g);
  }
  EXPECT_EQ(nifti(good_ + "trailing bytes are allowed").voxels, voxels_);
  EXPECT_THROW(nifti_bytes(voxels_.cast(Dtype::f16), {}), UserError);
  EXPECT_THROW(nifti_bytes(Array(Dtype::u8, {40000}), {}), UserError);
}

TEST_F(NiftiFile, ReadsEveryDatatype) {
  const auto first = [&](int16_t code, int16_t bits, const std::string& element) {
    std::string data;
    for (int i = 0; i < 12; ++i) data += element;
    const NiftiImage image = nifti(typed(code, bits, data));
    const NiftiImage other = nifti(swapped(typed(code, bits, data), bits / 8 / image.components));
    EXPECT_EQ(image.voxels, other.voxels) << code;
    return image;
  };
  EXPECT_EQ(first(4, 16, "\xfe\xff").voxels, Array::full(Dtype::i32, {2, 2, 3}, -2));
  EXPECT_EQ(first(512, 16, "\xfe\xff").voxels, Array::full(Dtype::i32, {2, 2, 3}, 65534));
  EXPECT_EQ(first(768, 32, "\xff\xff\xff\xff").voxels, Array::full(Dtype::i64, {2, 2, 3}, 4294967295.0));
  EXPECT_EQ(first(1280, 64, std::string("\7\0\0\0\0\0\0\0", 8)).voxels,
            Array::full(Dtype::i64, {2, 2, 3}, 7));
  EXPECT_EQ(first(32, 64, std::string("\0\0\x80\x3f\0\0\x80\x3f", 8)).voxels,
            Array::full(Dtype::f32, {2, 2, 3, 2}, 1));
  EXPECT_EQ(first(128, 24, "abc").voxels.dims(), (std::vector<int64_t>{2, 2, 3, 3}));
  EXPECT_EQ(first(2304, 32, "abcd").components, 4);
  EXPECT_SAYS(nifti_refusal(typed(1280, 64, std::string(96, '\xff'))), "voxels: value is too large");
}

TEST_F(NiftiFile, AppliesSlopeAndIntercept) {
  const NiftiImage image = nifti(with(with(good_, 112, 2.0f), 116, -1.0f));
  EXPECT_EQ(image.values(), (Array::of<float>({2, 2, 3}, {-1, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21})));
  EXPECT_EQ(nifti(with(with(good_, 112, 0.0f), 116, 5.0f)).intercept, 0) << "slope 0 means no scaling";
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const float slope : {nan, inf}) {
    const NiftiImage unscaled = nifti(with(with(good_, 112, slope), 116, 5.0f));
    EXPECT_EQ(unscaled.slope, 1);
    EXPECT_EQ(unscaled.intercept, 0);
  }
  EXPECT_SAYS(nifti_refusal(with(with(good_, 112, 2.0f), 116, nan)), "scl_inter: is not finite");
}

TEST_F(NiftiFile, ComputesTheAffineOfAQuaternion) {
  NiftiGeometry g;  // half a turn about z
  g.qform_code = 1;
  g.pixdim = {1, 2, 3, 4, 0, 0, 0, 0};
  g.quatern = {0, 0, 1};
  g.qoffset = {10, 20, 30};
  const Affine3 expected{{{-2, 0, 0, 10}, {0, -3, 0, 20}, {0, 0, 4, 30}}};
  EXPECT_EQ(g.affine(), expected);
}

TEST_F(NiftiFile, RefusesWithTheFieldNamed) {
  ASSERT_EQ(nifti_refusal(good_), "no error");
  EXPECT_SAYS(nifti_refusal(with(good_, 0, 540)), "sizeof_hdr: NIfTI-2 is not supported");
  EXPECT_SAYS(nifti_refusal(with(good_, 0, 77)), "NIfTI file x, sizeof_hdr: is no NIfTI-1 file (got 77");
  EXPECT_SAYS(nifti_refusal(with(good_, 344, 'x')), "magic: is no NIfTI-1 file");
  EXPECT_SAYS(nifti_refusal(with(good_, 345, 'i')), "magic");
  EXPECT_SAYS(nifti_refusal(with(with(good_, 344, 'n'), 345, 'i')), "the voxels lie in a second file");
  EXPECT_SAYS(nifti_refusal(with(good_, 40, int16_t{0})), "dim[0]: is out of range (got 0");
  EXPECT_SAYS(nifti_refusal(with(good_, 40, int16_t{8})), "dim[0]: is out of range (got 8");
  EXPECT_SAYS(nifti_refusal(with(good_, 42, int16_t{-3})), "dim: is no size (got dim[1] = -3");
  EXPECT_SAYS(nifti_refusal(with(good_, 42, int16_t{4})), "dim: claims more voxels than the file can hold");
  EXPECT_SAYS(nifti_refusal(with(good_, 70, int16_t{1})), "datatype: is not supported (got 1");
  EXPECT_SAYS(nifti_refusal(with(good_, 70, int16_t{1536})), "datatype: is not supported");
  EXPECT_SAYS(nifti_refusal(with(good_, 72, int16_t{16})),
              "bitpix: does not fit datatype (got 16 for datatype 2; allowed: 8)");
  EXPECT_SAYS(nifti_refusal(with(good_, 108, 100.0f)), "vox_offset: is no place for voxels");
  EXPECT_SAYS(nifti_refusal(with(good_, 108, std::numeric_limits<float>::quiet_NaN())), "vox_offset");
  EXPECT_SAYS(nifti_refusal(with(good_, 108, 5000.0f)), "space between header and voxels: file is truncated");
  std::string big = good_;
  for (size_t d = 0; d < 8; ++d) big = with(big, 40 + 2 * d, static_cast<int16_t>(d == 0 ? 7 : 32767));
  EXPECT_SAYS(nifti_refusal(big), "claims more voxels");
  EXPECT_SAYS(nifti_refusal(gzip(big)), "claims more voxels");
  for (size_t n = 0; n < good_.size(); ++n) EXPECT_NE(nifti_refusal(good_.substr(0, n)), "no error") << n;
  const std::string packed = gzip(good_);
  for (size_t n = 0; n < packed.size(); ++n) EXPECT_NE(nifti_refusal(packed.substr(0, n)), "no error") << n;
}

TEST(NiftiReal, Colin27) {
  const std::filesystem::path path = "/usr/share/mricron/templates/ch2.nii.gz";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there (package mricron-data)";
  const NiftiImage image = load_nifti(path);
  EXPECT_EQ(image.voxels.type(), (ir::Type{Dtype::u8, {181, 217, 181}}));
  EXPECT_EQ(image.geometry.sform_code, 4);
  EXPECT_EQ(image.geometry.affine()[0][0], 1);
}

TEST(NiftiReal, Mni152) {
  const auto path = std::filesystem::path(ESPALIER_SOURCE_DIR) /
                    "../shared/data/medical/mni152/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
  EXPECT_EQ(load_nifti(path).voxels.rank(), 3);
}

TEST(Png, ComesBackForEveryColourType) {
  for (const int64_t channels : {1, 3, 4}) {
    Array a(Dtype::u8, {5, 7, channels});
    for (int64_t i = 0; i < a.size(); ++i) a.set(i, static_cast<double>(i * 37 % 256));
    const PngImage back = parse_png(bytes_of(png_bytes(a)), "x");
    EXPECT_EQ(back.pixels, a);
    EXPECT_EQ(back.bit_depth, 8);
    EXPECT_FLOAT_EQ(back.values().data<float>()[1], channels > 0 ? 37 / 255.0f : 0);
  }
  EXPECT_THROW(png_bytes(Array(Dtype::f32, {2, 2, 1})), UserError);
  EXPECT_THROW(png_bytes(Array(Dtype::u8, {2, 2, 2})), UserError);
  EXPECT_THROW(png_bytes(Array(Dtype::u8, {0, 2, 1})), UserError);
  EXPECT_THROW(save_png("/nowhere/x.png", Array(Dtype::u8, {2, 2, 1})), UserError);
}

TEST(Png, ReadsPalettesSixteenBitsAndInterlacing) {
  const std::filesystem::path corpus = std::filesystem::path(ESPALIER_SOURCE_DIR) / "tests/fuzz/corpus/png";
  const PngImage colours = load_png(corpus / "palette2.png"),
                 indices = load_png(corpus / "palette2.png", Palette::indices);
  EXPECT_EQ(indices.pixels, (Array::of<uint8_t>({2, 3, 1}, {0, 1, 2, 2, 1, 0})));
  EXPECT_EQ(
      colours.pixels,
      (Array::of<uint8_t>({2, 3, 3}, {255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 255, 0, 255, 0, 255, 0, 0})));
  const PngImage deep = load_png(corpus / "grey16.png");
  EXPECT_EQ(deep.bit_depth, 16);
  EXPECT_EQ(deep.pixels, (Array::of<int32_t>({1, 3, 1}, {0, 258, 65535})));
  EXPECT_FLOAT_EQ(deep.values().data<float>()[2], 1.0f);
  EXPECT_EQ(load_png(corpus / "grey1.png").pixels, (Array::of<uint8_t>({1, 3, 1}, {0, 255, 0})));
  EXPECT_EQ(load_png(corpus / "interlaced.png").pixels, load_png(corpus / "plain.png").pixels);
}

TEST(Png, RefusesWhatIsBroken) {
  Array a(Dtype::u8, {20, 20, 3});
  for (int64_t i = 0; i < a.size(); ++i) a.set(i, static_cast<double>(i * i % 256));
  const std::string good = png_bytes(a);
  ASSERT_EQ(png_refusal(good), "no error");
  EXPECT_SAYS(png_refusal("GIF89a"), "PNG file x: is no PNG file");
  EXPECT_SAYS(png_refusal(with(good, 16, 0xffffffffu)), "PNG file x: ");
  EXPECT_SAYS(png_refusal(good.substr(0, 100)), "file is truncated");
  for (size_t n = 0; n < good.size(); ++n) EXPECT_NE(png_refusal(good.substr(0, n)), "no error") << n;
  EXPECT_THROW(load_png("/nowhere/x.png"), UserError);
}

TEST(PngReal, Retina) {
  const auto path =
      std::filesystem::path(ESPALIER_SOURCE_DIR) / "../shared/data/medical/chasedb1/Image_01L_1stHO.png";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
  EXPECT_EQ(load_png(path).pixels.dims(), (std::vector<int64_t>{960, 999, 1}));
}

}  // namespace
}  // namespace espalier::data
