#include "data/png.h"

#include <fmt/format.h>
#include <png.h>

#include <cstring>
#include <vector>

#include "base/file.h"
#include "data/byte_reader.h"

namespace espalier::data {

using ir::Array;
using ir::Dtype;

namespace {

constexpr uint32_t most_side = 32768;
constexpr uint64_t most_pixels = uint64_t{1} << 28;
constexpr size_t most_chunk = 8u << 20;

// libpng reports an error by longjmp. The functions that set the jump hold nothing with a destructor, and
// what they make lies in a Codec, which is torn down outside of them.
struct Codec {
  png_structp png = nullptr;
  png_infop info = nullptr;
  bool writing = false;
  std::span<const std::byte> left;  // reading
  std::string* out = nullptr;       // writing
  char message[200] = "";

  explicit Codec(bool write) : writing(write) {}
  ~Codec() {
    if (writing) png_destroy_write_struct(&png, &info);
    else png_destroy_read_struct(&png, &info, nullptr);
  }
  Codec(const Codec&) = delete;
  Codec& operator=(const Codec&) = delete;
};

void on_error(png_structp png, png_const_charp text) {
  auto* codec = static_cast<Codec*>(png_get_error_ptr(png));
  std::strncpy(codec->message, text, sizeof codec->message - 1);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}  // about chunks that do not touch the pixels

void give_bytes(png_structp png, png_bytep to, size_t size) {
  auto* codec = static_cast<Codec*>(png_get_io_ptr(png));
  if (size > codec->left.size()) png_error(png, "file is truncated");
  std::memcpy(to, codec->left.data(), size);
  codec->left = codec->left.subspan(size);
}

void take_bytes(png_structp png, png_bytep from, size_t size) {
  auto* codec = static_cast<Codec*>(png_get_io_ptr(png));
  try {
    codec->out->append(reinterpret_cast<const char*>(from), size);
    return;
  } catch (...) {  // no exception may pass through libpng; the error follows
  }
  png_error(png, "out of memory");
}

void flush_nothing(png_structp) {}

struct PngHeader {
  uint32_t width, height;
  int depth, colour, channels;
  size_t row_bytes;
};

/// Read up to the pixels and set the conversions; false when libpng objects.
bool read_header(Codec& c, Palette palette, PngHeader& h) {
  if (setjmp(png_jmpbuf(c.png))) return false;
  png_set_user_limits(c.png, most_side, most_side);
  png_set_chunk_malloc_max(c.png, most_chunk);
  png_set_chunk_cache_max(c.png, 128);
  png_set_read_fn(c.png, &c, give_bytes);
  png_read_info(c.png, c.info);
  int interlace = 0;
  png_get_IHDR(c.png, c.info, &h.width, &h.height, &h.depth, &h.colour, &interlace, nullptr, nullptr);
  if (h.colour == PNG_COLOR_TYPE_PALETTE) {
    if (palette == Palette::indices) png_set_packing(c.png);
    else png_set_expand(c.png);
  } else {
    if (h.colour == PNG_COLOR_TYPE_GRAY && h.depth < 8) png_set_expand_gray_1_2_4_to_8(c.png);
    if (png_get_valid(c.png, c.info, PNG_INFO_tRNS)) png_set_tRNS_to_alpha(c.png);
  }
  if (h.depth == 16) png_set_swap(c.png);  // to the machine's order
  png_set_interlace_handling(c.png);
  png_read_update_info(c.png, c.info);
  h.channels = png_get_channels(c.png, c.info);
  h.row_bytes = png_get_rowbytes(c.png, c.info);
  return true;
}

bool read_rows(Codec& c, png_bytepp rows) {
  if (setjmp(png_jmpbuf(c.png))) return false;
  png_read_image(c.png, rows);
  png_read_end(c.png, nullptr);
  return true;
}

bool write_all(Codec& c, uint32_t width, uint32_t height, int colour, png_bytepp rows) {
  if (setjmp(png_jmpbuf(c.png))) return false;
  png_set_write_fn(c.png, &c, take_bytes, flush_nothing);
  png_set_IHDR(c.png, c.info, width, height, 8, colour, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  png_write_info(c.png, c.info);
  png_write_image(c.png, rows);
  png_write_end(c.png, nullptr);
  return true;
}

}  // namespace

Array PngImage::values() const {
  Array out(Dtype::f32, pixels.dims());
  float* to = out.write<float>();
  if (bit_depth == 16)
    for (int64_t i = 0; i < out.size(); ++i) to[i] = static_cast<float>(pixels.data<int32_t>()[i]) / 65535.0f;
  else
    for (int64_t i = 0; i < out.size(); ++i) to[i] = static_cast<float>(pixels.data<uint8_t>()[i]) / 255.0f;
  return out;
}

PngImage parse_png(std::span<const std::byte> bytes, const std::string& name, Palette palette) {
  const std::string where = "PNG file " + name;
  if (bytes.size() < 8 || png_sig_cmp(reinterpret_cast<png_const_bytep>(bytes.data()), 0, 8) != 0)
    throw UserError(
        {where, "is no PNG file", fmt::format("{} bytes without the signature", bytes.size()), ""});
  Codec codec(false);
  codec.left = bytes;
  codec.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &codec, on_error, on_warning);
  if (codec.png) codec.info = png_create_info_struct(codec.png);
  if (!codec.png || !codec.info) throw InternalError("libpng could not be started");
  PngHeader h{};
  if (!read_header(codec, palette, h)) throw UserError({where, codec.message, "", ""});
  const uint64_t pixels = uint64_t{h.width} * h.height;
  if (pixels > most_pixels)
    throw UserError(
        {where + ", size", "is too large", fmt::format("{} x {}", h.width, h.height), "2^28 pixels"});
  const uint64_t stored_bits = pixels * static_cast<uint64_t>(h.depth);
  if (stored_bits / 8 > (bytes.size() + 64) * most_deflate_ratio)
    throw UserError({where + ", size", "claims more pixels than the file can hold",
                     fmt::format("{} x {}", h.width, h.height),
                     fmt::format("what {} bytes can unpack to", bytes.size())});
  const std::vector<int64_t> dims{h.height, h.width, h.channels};
  PngImage image;
  image.bit_depth = h.depth == 16 ? 16 : 8;
  const size_t wanted =
      static_cast<size_t>(h.width) * static_cast<size_t>(h.channels) * (h.depth == 16 ? 2 : 1);
  ESPALIER_CHECK(h.row_bytes == wanted, "libpng gives rows of another size");
  const Array raw(Dtype::u8, {static_cast<int64_t>(h.height), static_cast<int64_t>(h.row_bytes)});
  auto* data = static_cast<png_bytep>(const_cast<void*>(raw.data()));
  std::vector<png_bytep> rows(h.height);
  for (size_t y = 0; y < rows.size(); ++y) rows[y] = data + y * h.row_bytes;
  if (!read_rows(codec, rows.data())) throw UserError({where, codec.message, "", ""});
  if (h.depth != 16) {
    image.pixels = raw.reshaped(dims);
    return image;
  }
  image.pixels = Array(Dtype::i32, dims);
  int32_t* to = image.pixels.write<int32_t>();
  for (int64_t i = 0; i < image.pixels.size(); ++i) {
    uint16_t v;
    std::memcpy(&v, data + 2 * i, 2);
    to[i] = v;
  }
  return image;
}

PngImage load_png(const std::filesystem::path& path, Palette palette) {
  const auto file = MappedFile::open(path);
  return parse_png(file->bytes(), path.string(), palette);
}

std::string png_bytes(const Array& pixels) {
  const auto& d = pixels.dims();
  const bool fits = pixels.dtype() == Dtype::u8 && d.size() == 3 && d[0] > 0 && d[1] > 0 &&
                    d[0] <= most_side && d[1] <= most_side && (d[2] == 1 || d[2] == 3 || d[2] == 4);
  if (!fits)
    throw UserError({"save_png", "pixels do not fit", pixels.type().text(),
                     "u8[height,width,1 or 3 or 4], sides up to 32768"});
  std::string out;
  Codec codec(true);
  codec.out = &out;
  codec.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &codec, on_error, on_warning);
  if (codec.png) codec.info = png_create_info_struct(codec.png);
  if (!codec.png || !codec.info) throw InternalError("libpng could not be started");
  std::vector<png_bytep> rows(static_cast<size_t>(d[0]));
  auto* data = static_cast<png_bytep>(const_cast<void*>(pixels.data()));
  for (size_t y = 0; y < rows.size(); ++y) rows[y] = data + y * static_cast<size_t>(d[1] * d[2]);
  const int colour = d[2] == 1   ? PNG_COLOR_TYPE_GRAY
                     : d[2] == 3 ? PNG_COLOR_TYPE_RGB
                                 : PNG_COLOR_TYPE_RGB_ALPHA;
  if (!write_all(codec, static_cast<uint32_t>(d[1]), static_cast<uint32_t>(d[0]), colour, rows.data()))
    throw InternalError(std::string("libpng could not write: ") + codec.message);
  return out;
}

void save_png(const std::filesystem::path& path, const Array& pixels) { write_file(path, png_bytes(pixels)); }

}  // namespace espalier::data
