#include "data/nifti.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/file.h"
#include "base/text.h"

namespace espalier::data {

using ir::Array;
using ir::Dtype;

namespace {

constexpr size_t header_bytes = 348;

/// Offsets of the header's fields (nifti1.h).
enum HeaderOffset : size_t {
  at_sizeof_hdr = 0,
  at_dim = 40,
  at_datatype = 70,
  at_bitpix = 72,
  at_pixdim = 76,
  at_vox_offset = 108,
  at_slope = 112,
  at_inter = 116,
  at_units = 123,
  at_descrip = 148,
  at_qform_code = 252,
  at_sform_code = 254,
  at_quatern = 256,
  at_qoffset = 268,
  at_srow = 280,
  at_magic = 344,
};

enum class Stored : uint8_t { u8, i8, i16, u16, i32, u32, i64, u64, f32, f64 };
constexpr size_t stored_size(Stored s) {
  constexpr uint8_t size[] = {1, 1, 2, 2, 4, 4, 8, 8, 4, 8};
  return size[static_cast<int>(s)];
}

struct DatatypeRow {
  int16_t code;
  Stored stored;
  int components;
  Dtype dtype;
};
constexpr DatatypeRow datatype_rows[] = {
    {2, Stored::u8, 1, Dtype::u8},      {256, Stored::i8, 1, Dtype::i8},
    {4, Stored::i16, 1, Dtype::i32},    {512, Stored::u16, 1, Dtype::i32},
    {8, Stored::i32, 1, Dtype::i32},    {768, Stored::u32, 1, Dtype::i64},
    {1024, Stored::i64, 1, Dtype::i64}, {1280, Stored::u64, 1, Dtype::i64},
    {16, Stored::f32, 1, Dtype::f32},   {64, Stored::f64, 1, Dtype::f64},
    {32, Stored::f32, 2, Dtype::f32},   {1792, Stored::f64, 2, Dtype::f64},
    {128, Stored::u8, 3, Dtype::u8},    {2304, Stored::u8, 4, Dtype::u8},
};
constexpr const char* allowed_datatypes =
    "2 u8, 4 i16, 8 i32, 16 f32, 32 complex64, 64 f64, 128 RGB, 256 i8, 512 u16, 768 u32, 1024 i64, 1280 "
    "u64, "
    "1792 complex128, 2304 RGBA";

/// The raw header, read in the file's byte order.
struct Header {
  const std::string& name;
  std::array<std::byte, header_bytes> bytes{};
  bool swapped = false;

  template <class T>
  T get(size_t offset) const {
    std::array<std::byte, sizeof(T)> raw;
    std::memcpy(raw.data(), bytes.data() + offset, sizeof(T));
    if (swapped) std::reverse(raw.begin(), raw.end());
    return std::bit_cast<T>(raw);
  }
  template <class T, size_t n>
  std::array<T, n> get_many(size_t offset) const {
    std::array<T, n> out;
    for (size_t i = 0; i < n; ++i) out[i] = get<T>(offset + i * sizeof(T));
    return out;
  }
  std::string_view text(size_t offset, size_t size) const {
    const std::string_view raw(reinterpret_cast<const char*>(bytes.data()) + offset, size);
    return raw.substr(0, raw.find('\0'));
  }
  [[noreturn]] void fail(const char* field, std::string problem, std::string got, std::string allowed) const {
    throw UserError({fmt::format("NIfTI file {}, {}", name, field), std::move(problem), std::move(got),
                     std::move(allowed)});
  }
};

Header read_header(ByteReader& reader) {
  Header h{.name = reader.name()};
  reader.read(h.bytes.data(), 4, "NIfTI header");
  auto size = h.get<int32_t>(at_sizeof_hdr);
  if (size != header_bytes) {
    h.swapped = true;
    const auto other = h.get<int32_t>(at_sizeof_hdr);
    if (size == 540 || other == 540) h.fail("sizeof_hdr", "NIfTI-2 is not supported", "540", "348 (NIfTI-1)");
    if (other != header_bytes) h.fail("sizeof_hdr", "is no NIfTI-1 file", std::to_string(size), "348");
  }
  reader.read(h.bytes.data() + 4, header_bytes - 4, "NIfTI header");
  const std::string_view magic(reinterpret_cast<const char*>(h.bytes.data()) + at_magic, 4);
  if (magic == std::string_view("ni1\0", 4))
    h.fail("magic", "the voxels lie in a second file (.hdr and .img)", quote(magic), "one file: \"n+1\"");
  if (magic != std::string_view("n+1\0", 4))
    h.fail("magic", "is no NIfTI-1 file", quote(magic), "\"n+1\\x00\"");
  return h;
}

/// Array dims, slowest first, dims of 1 in front of the third dropped.
std::vector<int64_t> read_dims(const Header& h) {
  const auto dim = h.get_many<int16_t, 8>(at_dim);
  if (dim[0] < 1 || dim[0] > 7) h.fail("dim[0]", "is out of range", std::to_string(dim[0]), "1 to 7");
  std::vector<int64_t> dims;
  for (int d = dim[0]; d >= 1; --d) {
    if (dim[static_cast<size_t>(d)] < 1)
      h.fail("dim", "is no size", fmt::format("dim[{}] = {}", d, dim[static_cast<size_t>(d)]), "1 to 32767");
    if (d <= 3 || !dims.empty() || dim[static_cast<size_t>(d)] > 1)
      dims.push_back(dim[static_cast<size_t>(d)]);
  }
  return dims;
}

const DatatypeRow& read_datatype(const Header& h) {
  const auto code = h.get<int16_t>(at_datatype), bits = h.get<int16_t>(at_bitpix);
  for (const DatatypeRow& row : datatype_rows) {
    if (row.code != code) continue;
    const auto wanted = static_cast<int>(stored_size(row.stored)) * row.components * 8;
    if (bits != wanted)
      h.fail("bitpix", "does not fit datatype", fmt::format("{} for datatype {}", bits, code),
             std::to_string(wanted));
    return row;
  }
  h.fail("datatype", "is not supported", std::to_string(code), allowed_datatypes);
}

uint64_t read_offset(const Header& h) {
  const auto offset = h.get<float>(at_vox_offset);
  if (offset == 0) return 352;  // many writers leave it out of single files
  if (!(offset >= 352 && offset <= 1e9f) || offset != std::floor(offset))
    h.fail("vox_offset", "is no place for voxels", fmt::format("{}", offset), "a whole number, 352 or more");
  return static_cast<uint64_t>(offset);
}

NiftiGeometry read_geometry(const Header& h) {
  NiftiGeometry g;
  g.pixdim = h.get_many<float, 8>(at_pixdim);
  g.qform_code = h.get<int16_t>(at_qform_code);
  g.sform_code = h.get<int16_t>(at_sform_code);
  g.quatern = h.get_many<float, 3>(at_quatern);
  g.qoffset = h.get_many<float, 3>(at_qoffset);
  for (size_t r = 0; r < 3; ++r) g.srow[r] = h.get_many<float, 4>(at_srow + 16 * r);
  g.xyzt_units = std::to_integer<uint8_t>(h.bytes[at_units]);
  return g;
}

template <class T>
T element(const std::byte* at, bool swapped) {
  std::array<std::byte, sizeof(T)> raw;
  std::memcpy(raw.data(), at, sizeof(T));
  if (swapped) std::reverse(raw.begin(), raw.end());
  return std::bit_cast<T>(raw);
}

/// Stored elements of type From as elements of `out`'s type To.
template <class From, class To>
void convert(const Header& h, const std::byte* in, Array& out) {
  To* to = out.write<To>();
  for (int64_t i = 0; i < out.size(); ++i) {
    const From v = element<From>(in + static_cast<size_t>(i) * sizeof(From), h.swapped);
    if constexpr (std::is_same_v<From, uint64_t>)
      if (v > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        h.fail("voxels", "value is too large", fmt::format("{} at element {}", v, i), "below 2^63");
    to[i] = static_cast<To>(v);
  }
}

void convert(const Header& h, Stored stored, const std::byte* in, Array& out) {
  switch (stored) {
    case Stored::u8: return convert<uint8_t, uint8_t>(h, in, out);
    case Stored::i8: return convert<int8_t, int8_t>(h, in, out);
    case Stored::i16: return convert<int16_t, int32_t>(h, in, out);
    case Stored::u16: return convert<uint16_t, int32_t>(h, in, out);
    case Stored::i32: return convert<int32_t, int32_t>(h, in, out);
    case Stored::u32: return convert<uint32_t, int64_t>(h, in, out);
    case Stored::i64: return convert<int64_t, int64_t>(h, in, out);
    case Stored::u64: return convert<uint64_t, int64_t>(h, in, out);
    case Stored::f32: return convert<float, float>(h, in, out);
    case Stored::f64: return convert<double, double>(h, in, out);
  }
}

}  // namespace

Affine3 NiftiGeometry::affine() const {
  Affine3 m{};
  if (sform_code > 0) {
    for (size_t r = 0; r < 3; ++r)
      for (size_t c = 0; c < 4; ++c) m[r][c] = static_cast<double>(srow[r][c]);
    return m;
  }
  const double dx = static_cast<double>(pixdim[1]), dy = static_cast<double>(pixdim[2]),
               dz = static_cast<double>(pixdim[3]);
  if (qform_code <= 0) {
    m[0][0] = dx, m[1][1] = dy, m[2][2] = dz;
    return m;
  }
  const double b = static_cast<double>(quatern[0]), c = static_cast<double>(quatern[1]),
               d = static_cast<double>(quatern[2]);
  const double a = std::sqrt(std::max(0.0, 1 - (b * b + c * c + d * d)));  // nifti1.h, method 2
  const double qz = dz * (pixdim[0] < 0 ? -1 : 1);
  m = {{{(a * a + b * b - c * c - d * d) * dx, 2 * (b * c - a * d) * dy, 2 * (b * d + a * c) * qz, 0},
        {2 * (b * c + a * d) * dx, (a * a + c * c - b * b - d * d) * dy, 2 * (c * d - a * b) * qz, 0},
        {2 * (b * d - a * c) * dx, 2 * (c * d + a * b) * dy, (a * a + d * d - c * c - b * b) * qz, 0}}};
  for (size_t r = 0; r < 3; ++r) m[r][3] = static_cast<double>(qoffset[r]);
  return m;
}

Array NiftiImage::values() const {
  Array out(Dtype::f32, voxels.dims());
  float* to = out.write<float>();
  ir::dispatch(voxels.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_arithmetic_v<T>) {
      const T* in = voxels.data<T>();
      for (int64_t i = 0; i < voxels.size(); ++i)
        to[i] = static_cast<float>(slope * static_cast<double>(in[i]) + intercept);
    } else {
      throw InternalError("NIfTI voxels of a 16-bit float");
    }
  });
  return out;
}

NiftiImage read_nifti(ByteReader& reader) {
  const Header h = read_header(reader);
  std::vector<int64_t> dims = read_dims(h);
  const DatatypeRow& row = read_datatype(h);
  const uint64_t offset = read_offset(h);
  NiftiImage image;
  image.components = row.components;
  image.geometry = read_geometry(h);
  image.description = h.text(at_descrip, 80);
  const auto slope = h.get<float>(at_slope), inter = h.get<float>(at_inter);
  // A slope of 0, or none that is finite, means unscaled (as nibabel and nifticlib read it); colours have no scale.
  if (slope != 0 && std::isfinite(slope) && row.components < 3) {
    if (!std::isfinite(inter))
      h.fail("scl_inter", "is not finite", fmt::format("{}", inter), "a finite number");
    image.slope = static_cast<double>(slope), image.intercept = static_cast<double>(inter);
  }
  if (row.components > 1) dims.push_back(row.components);

  uint64_t bytes = stored_size(row.stored);
  bool over = false;
  for (const int64_t d : dims) over |= __builtin_mul_overflow(bytes, static_cast<uint64_t>(d), &bytes);
  reader.skip(offset - header_bytes, "space between header and voxels");
  if (over || bytes > reader.most_left())
    h.fail(
        "dim", "claims more voxels than the file can hold",
        fmt::format("{} of {} bytes", ir::dims_text(std::span<const int64_t>(dims)), stored_size(row.stored)),
        fmt::format("at most {} bytes", reader.most_left()));
  image.voxels = Array(row.dtype, dims);
  const bool direct = !h.swapped &&
                      static_cast<int64_t>(stored_size(row.stored)) == ir::dtype_size(row.dtype) &&
                      row.stored != Stored::u64;
  if (direct || stored_size(row.stored) == 1) {
    reader.read(image.voxels.write(), bytes, "voxels");
  } else {
    const Array raw(Dtype::u8, {static_cast<int64_t>(bytes)});
    reader.read(const_cast<void*>(raw.data()), bytes, "voxels");
    convert(h, row.stored, static_cast<const std::byte*>(raw.data()), image.voxels);
  }
  reader.drain();
  return image;
}

NiftiImage load_nifti(const std::filesystem::path& path) {
  ByteReader reader(path);
  return read_nifti(reader);
}

std::string nifti_bytes(const Array& voxels, const NiftiGeometry& g) {
  std::string out(352, '\0');
  const auto put = [&](size_t offset, auto value) { std::memcpy(out.data() + offset, &value, sizeof value); };
  const DatatypeRow* row = nullptr;
  for (const DatatypeRow& r : datatype_rows)
    if (r.components == 1 && r.dtype == voxels.dtype() &&
        static_cast<int64_t>(stored_size(r.stored)) == ir::dtype_size(r.dtype) && !row)
      row = &r;
  if (!row)
    throw UserError({"save_nifti", "dtype is not supported", std::string(ir::dtype_name(voxels.dtype())),
                     "u8 i8 i32 i64 f32 f64"});
  const int rank = voxels.rank();
  if (rank < 1 || rank > 7) throw UserError({"save_nifti", "number of dims", std::to_string(rank), "1 to 7"});
  put(at_sizeof_hdr, static_cast<int32_t>(header_bytes));
  put(at_dim, static_cast<int16_t>(rank));
  for (int d = 1; d <= 7; ++d) {
    const int64_t size = d <= rank ? voxels.dims()[static_cast<size_t>(rank - d)] : 1;
    if (size < 1 || size > 32767)
      throw UserError({"save_nifti", "dim is out of range", std::to_string(size), "1 to 32767"});
    put(at_dim + 2 * static_cast<size_t>(d), static_cast<int16_t>(size));
  }
  put(at_datatype, row->code);
  put(at_bitpix, static_cast<int16_t>(stored_size(row->stored) * 8));
  put(at_pixdim, g.pixdim);
  put(at_vox_offset, 352.0f);
  put(at_slope, 1.0f);
  put(at_units, g.xyzt_units);
  put(at_qform_code, g.qform_code);
  put(at_sform_code, g.sform_code);
  put(at_quatern, g.quatern);
  put(at_qoffset, g.qoffset);
  put(at_srow, g.srow);
  std::memcpy(out.data() + at_magic, "n+1", 4);
  out.append(static_cast<const char*>(voxels.data()), static_cast<size_t>(voxels.bytes()));
  return out;
}

void save_nifti(const std::filesystem::path& path, const Array& voxels, const NiftiGeometry& geometry) {
  const std::string bytes = nifti_bytes(voxels, geometry);
  write_file(path, path.extension() == ".gz" ? gzip(bytes, 1) : bytes);
}

}  // namespace espalier::data
