#pragma once
// IDX files, the format of MNIST and its kin: a magic number, big-endian dims, big-endian elements. Plain or
// gzip.
#include <filesystem>

#include "data/byte_reader.h"
#include "ir/array.h"

namespace espalier::data {

/// The array in an IDX file. Element types: u8, i8, i16 (given as i32), i32, f32, f64. UserError (file,
/// field, what came, what is allowed) for another magic number or type, no dims, too few or too many bytes.
ESPALIER_API ir::Array load_idx(const std::filesystem::path& path);
ESPALIER_API ir::Array read_idx(ByteReader& reader);

}  // namespace espalier::data
