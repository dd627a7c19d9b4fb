#include "data/idx.h"

#include <fmt/format.h>

#include <array>
#include <bit>

#include "base/text.h"

namespace espalier::data {

using ir::Array;
using ir::Dtype;

namespace {

struct ElementRow {
  uint8_t code;
  int stored;  // bytes in the file
  Dtype dtype;
};
constexpr ElementRow element_rows[] = {{0x08, 1, Dtype::u8},  {0x09, 1, Dtype::i8},  {0x0b, 2, Dtype::i32},
                                       {0x0c, 4, Dtype::i32}, {0x0d, 4, Dtype::f32}, {0x0e, 8, Dtype::f64}};

/// Big-endian elements of `size` bytes to the machine's order.
void swap_elements(std::byte* data, int64_t count, int size) {
  for (int64_t i = 0; i < count; ++i, data += size)
    for (int k = 0; k < size / 2; ++k) std::swap(data[k], data[size - 1 - k]);
}

}  // namespace

Array read_idx(ByteReader& reader) {
  const auto where = [&](const char* field) { return fmt::format("IDX file {}, {}", reader.name(), field); };
  std::array<uint8_t, 4> magic;
  reader.read(magic.data(), magic.size(), "magic number");
  const ElementRow* row = nullptr;
  for (const ElementRow& r : element_rows)
    if (r.code == magic[2]) row = &r;
  if (magic[0] != 0 || magic[1] != 0 || !row)
    throw UserError({where("magic number"), "is no IDX file or an unknown element type",
                     fmt::format("{:02x} {:02x} {:02x} {:02x}", magic[0], magic[1], magic[2], magic[3]),
                     "00 00 TYPE DIMS, TYPE one of 08 09 0b 0c 0d 0e"});
  const int rank = magic[3];
  if (rank < 1 || rank > 8)
    throw UserError({where("number of dims"), "is out of range", std::to_string(rank), "1 to 8"});

  std::vector<int64_t> dims;
  uint64_t bytes = static_cast<uint64_t>(row->stored);
  bool over = false, empty = false;
  for (int d = 0; d < rank; ++d) {
    std::array<uint8_t, 4> b;
    reader.read(b.data(), b.size(), "dims");
    dims.push_back(int64_t{b[0]} << 24 | int64_t{b[1]} << 16 | int64_t{b[2]} << 8 | b[3]);
    empty |= dims.back() == 0;
    over |= dims.back() != 0 && __builtin_mul_overflow(bytes, static_cast<uint64_t>(dims.back()), &bytes);
  }
  if (empty) bytes = 0;
  if (!empty && (over || bytes > reader.most_left()))
    throw UserError({where("dims"), "claim more elements than the file can hold",
                     ir::dims_text(std::span<const int64_t>(dims)),
                     fmt::format("at most {} bytes", reader.most_left())});

  Array stored(row->stored == 2 ? Dtype::u8 : row->dtype,
               row->stored == 2 ? std::vector<int64_t>{static_cast<int64_t>(bytes)} : dims);
  auto* data = static_cast<std::byte*>(stored.write());
  reader.read(data, static_cast<size_t>(bytes), "elements");
  if (const uint64_t more = reader.drain())
    throw UserError({where("elements"), "more bytes than the dims say", fmt::format("{} bytes", bytes + more),
                     fmt::format("{} bytes", bytes)});
  if (row->stored != 2) {
    swap_elements(data, stored.size(), row->stored);
    return stored;
  }
  Array wide(Dtype::i32, dims);  // there is no i16 in memory
  const uint8_t* in = stored.data<uint8_t>();
  int32_t* out = wide.write<int32_t>();
  for (int64_t i = 0; i < wide.size(); ++i) out[i] = static_cast<int16_t>(in[2 * i] << 8 | in[2 * i + 1]);
  return wide;
}

Array load_idx(const std::filesystem::path& path) {
  ByteReader reader(path);
  return read_idx(reader);
}

}  // namespace espalier::data
