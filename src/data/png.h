#pragma once
// PNG pictures through libpng. Arrays are [height, width, channels]. Safe from any thread.
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "ir/array.h"

namespace espalier::data {

struct PngImage {
  /// [height, width, channels]: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. u8, or i32 with 0..65535 where
  /// bit_depth is 16.
  ir::Array pixels;
  int bit_depth = 8;  ///< 8 (1, 2 and 4 bits are widened to it) or 16

  /// Pixels as f32 in 0..1.
  ESPALIER_API ir::Array values() const;
};

/// What becomes of a picture with a palette: its colours, or its numbers (as label masks want) as grey of 8
/// bits.
enum class Palette { colours, indices };

/// Read a picture of any PNG kind, at most 32768 x 32768 and 2^28 pixels. UserError names the file and what
/// libpng found.
ESPALIER_API PngImage load_png(const std::filesystem::path& path, Palette palette = Palette::colours);
ESPALIER_API PngImage parse_png(std::span<const std::byte> bytes, const std::string& name,
                                Palette palette = Palette::colours);

/// The bytes of a PNG file of u8 pixels [height, width, 1, 3 or 4]; UserError for other dtypes and dims.
ESPALIER_API std::string png_bytes(const ir::Array& pixels);
/// The same as a file, written atomically.
ESPALIER_API void save_png(const std::filesystem::path& path, const ir::Array& pixels);

}  // namespace espalier::data
