#pragma once
// NumPy's .npy files (NEP 1: versions 1.0, 2.0 and 3.0): one array a file. Safe from any thread.
//
// dtypes: f64 <f8, f32 <f4, f16 <f2, i64 <i8, i32 <i4, i8 |i1, u8 |u1, bool |b1. NumPy has no bf16: its bits
// are written as the two-byte void type <V2, as the ml_dtypes package writes them, and <V2 or |V2 is read
// back as bf16, bit for bit (in Python: numpy.load(f).view(ml_dtypes.bfloat16)). Big-endian and Fortran-order
// files are read, never written.
#include <filesystem>
#include <string>
#include <string_view>

#include "ir/array.h"

namespace espalier::format {

/// The array in a .npy file. UserError (file, field, what came, what is allowed) for any other content:
/// another dtype, a malformed header, fewer or more bytes than the shape says, a bool byte that is neither 0
/// nor 1.
ESPALIER_API ir::Array load_npy(const std::filesystem::path& path);

/// The same from bytes in memory; `name` is what errors call them.
ESPALIER_API ir::Array parse_npy(std::string_view bytes, const std::string& name);

/// What stands before the elements of `array` in a .npy file: version 1.0, C order, padded to a multiple of
/// 64 bytes.
ESPALIER_API std::string npy_header(const ir::Array& array);

/// Write `array` as `path`, atomically. UserError when it cannot be written.
ESPALIER_API void save_npy(const std::filesystem::path& path, const ir::Array& array);

}  // namespace espalier::format
