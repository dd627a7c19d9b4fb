#pragma once
// NIfTI-1 volumes in one file: .nii and .nii.gz, either byte order (Cox et al., "The NIfTI-1 Data Format",
// 2004).
//
// The 348-byte header is read here and not by libniftiio: that library trusts sizes and offsets of the
// header, prints to stderr, and cannot say which field was wrong. zlib does the unpacking.
//
// NIfTI stores x fastest. Arrays are row-major, so a volume of nx x ny x nz voxels is an array [nz, ny, nx]:
// slice z is a picture of ny rows and nx columns.
#include <array>
#include <filesystem>
#include <string>

#include "data/byte_reader.h"
#include "ir/array.h"

namespace espalier::data {

/// Where voxels lie: position in millimetres = rows * (x, y, z, 1).
using Affine3 = std::array<std::array<double, 4>, 3>;

/// The header's grid: spacing and the two transforms as they stand in the file.
struct NiftiGeometry {
  std::array<float, 8> pixdim{1, 1, 1, 1, 0, 0, 0, 0};  ///< pixdim[0] is qfac
  int16_t qform_code = 0, sform_code = 0;
  std::array<float, 3> quatern{};  ///< b, c, d
  std::array<float, 3> qoffset{};
  std::array<std::array<float, 4>, 3> srow{};
  uint8_t xyzt_units = 2;  ///< 2: millimetres
  bool operator==(const NiftiGeometry&) const = default;
  /// The transform that counts: sform where its code is set, else qform, else the spacing alone.
  ESPALIER_API Affine3 affine() const;
};

struct NiftiImage {
  /// Stored elements: u8 i8 i32 i64 f32 f64 as in the file; i16 and u16 as i32, u32 and u64 as i64 (no value
  /// changes); [nz, ny, nx], more dims in front where dim[0] > 3 (dims of 1 in front are dropped), and behind
  /// a dim of 2 for complex, 3 for RGB, 4 for RGBA.
  ir::Array voxels;
  int components = 1;  ///< 1, or the last dim
  double
      slope = 1,
      intercept =
          0;  ///< value = slope * voxel + intercept; 1 and 0 where the file says nothing (a slope of 0, NaN or infinity)
  NiftiGeometry geometry;
  std::string description;

  /// The values, slope and intercept applied, as f32.
  ESPALIER_API ir::Array values() const;
};

/// Read a file. UserError (file, field, what came, what is allowed) for anything but a complete, consistent
/// NIfTI-1 file: NIfTI-2, Analyze and .hdr/.img pairs, 1-bit and 128-bit elements, dims or offsets that do
/// not fit, a truncated file. Bytes behind the last voxel are ignored.
ESPALIER_API NiftiImage load_nifti(const std::filesystem::path& path);
ESPALIER_API NiftiImage read_nifti(ByteReader& reader);

/// Write u8, i8, i32, i64, f32 or f64 voxels of 1 to 7 dims ([nz, ny, nx], more in front) as `path`, gzipped
/// where the name ends in .gz, atomically. UserError for another dtype, a dim over 32767, or when it cannot
/// be written.
ESPALIER_API void save_nifti(const std::filesystem::path& path, const ir::Array& voxels,
                             const NiftiGeometry& geometry);
/// The bytes of such a file, not gzipped.
ESPALIER_API std::string nifti_bytes(const ir::Array& voxels, const NiftiGeometry& geometry);

}  // namespace espalier::data
