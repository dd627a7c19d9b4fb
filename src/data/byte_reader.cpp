#include "data/byte_reader.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "base/file.h"

namespace espalier::data {

namespace {
bool begins_as_gzip(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}
}  // namespace

struct ByteReader::Inflater {
  z_stream stream{};
  bool ended = false;
  Inflater() {
    constexpr int gzip_only = 15 + 16;
    if (inflateInit2(&stream, gzip_only) != Z_OK) throw InternalError("zlib: inflateInit2 failed");
  }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
};

ByteReader::ByteReader(const std::filesystem::path& path) : name_(path.string()) {
  const auto file = MappedFile::open(path);
  left_ = file->bytes();
  keep_ = file;
  if (begins_as_gzip(left_)) inflater_ = std::make_unique<Inflater>();
}

ByteReader::ByteReader(std::span<const std::byte> bytes, std::string name)
    : name_(std::move(name)), left_(bytes) {
  if (begins_as_gzip(left_)) inflater_ = std::make_unique<Inflater>();
}

ByteReader::~ByteReader() = default;

/// Up to `size` bytes, fewer only at the end.
size_t ByteReader::some(std::byte* out, size_t size) {
  if (!inflater_) {
    const size_t n = std::min(size, left_.size());
    if (n > 0) std::memcpy(out, left_.data(), n);
    left_ = left_.subspan(n);
    position_ += n;
    return n;
  }
  z_stream& z = inflater_->stream;
  size_t done = 0;
  while (done < size && !inflater_->ended) {
    constexpr size_t most = std::numeric_limits<uInt>::max();
    z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(left_.data()));
    z.avail_in = static_cast<uInt>(std::min(left_.size(), most));
    z.next_out = reinterpret_cast<Bytef*>(out + done);
    z.avail_out = static_cast<uInt>(std::min(size - done, most));
    const uInt in_before = z.avail_in, out_before = z.avail_out;
    const int rc = inflate(&z, Z_NO_FLUSH);
    left_ = left_.subspan(in_before - z.avail_in);
    done += out_before - z.avail_out;
    if (rc == Z_STREAM_END) {
      if (!begins_as_gzip(left_)) inflater_->ended = true;  // padding and the like
      else if (inflateReset(&z) != Z_OK)
        throw InternalError("zlib: inflateReset failed");  // another member follows
    } else if (rc == Z_BUF_ERROR || (rc == Z_OK && left_.empty() && z.avail_out > 0)) {
      throw UserError({"file " + name_, "gzip data is truncated",
                       fmt::format("{} bytes unpacked", position_ + done), ""});
    } else if (rc != Z_OK) {
      throw UserError(
          {"file " + name_, "gzip data is corrupt",
           fmt::format("{} behind {} unpacked bytes", z.msg ? z.msg : "an error", position_ + done), ""});
    }
  }
  position_ += done;
  return done;
}

void ByteReader::read(void* out, size_t size, std::string_view what) {
  const uint64_t start = position_;
  const size_t n = some(static_cast<std::byte*>(out), size);
  if (n != size)
    throw UserError({fmt::format("file {}, {}", name_, what), "file is truncated",
                     fmt::format("{} bytes at offset {}", n, start), fmt::format("{} bytes", size)});
}

void ByteReader::skip(uint64_t size, std::string_view what) {
  std::array<std::byte, 4096> sink;
  for (uint64_t left = size; left > 0;) {
    const auto n = static_cast<size_t>(std::min<uint64_t>(left, sink.size()));
    read(sink.data(), n, what);
    left -= n;
  }
}

uint64_t ByteReader::drain() {
  std::array<std::byte, 4096> sink;
  uint64_t passed = 0;
  while (const size_t n = some(sink.data(), sink.size())) passed += n;
  return passed;
}

uint64_t ByteReader::most_left() const {
  return inflater_ ? (static_cast<uint64_t>(left_.size()) + 64) * most_deflate_ratio + 65536 : left_.size();
}

std::string gzip(std::string_view bytes, int level) {
  z_stream z{};
  constexpr int as_gzip = 15 + 16, memory = 8;
  if (deflateInit2(&z, level, Z_DEFLATED, as_gzip, memory, Z_DEFAULT_STRATEGY) != Z_OK)
    throw InternalError("zlib: deflateInit2 failed");
  std::string out;
  std::array<char, 65536> chunk;
  int rc = Z_OK;
  do {
    constexpr size_t most = 1u << 30;
    const size_t n = std::min(bytes.size(), most);
    z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    z.avail_in = static_cast<uInt>(n);
    const int flush = n == bytes.size() ? Z_FINISH : Z_NO_FLUSH;
    do {
      z.next_out = reinterpret_cast<Bytef*>(chunk.data());
      z.avail_out = static_cast<uInt>(chunk.size());
      rc = deflate(&z, flush);
      out.append(chunk.data(), chunk.size() - z.avail_out);
    } while (z.avail_out == 0);
    bytes.remove_prefix(n);
  } while (rc != Z_STREAM_END);
  deflateEnd(&z);
  return out;
}

}  // namespace espalier::data
