#pragma once
// Bytes of a file read front to back, plain or gzip (told by the first two bytes, not by the name; what follows the last
// member and is none, as padding, is ignored). What the
// readers of outside files stand on: it never gives more than there is, and an end that comes too early is a
// UserError that names the file, what was being read, and how much was there. One thread per reader.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/export.h"

namespace espalier::data {

/// Bytes that deflate makes of one, at most (zlib's technical notes).
inline constexpr uint64_t most_deflate_ratio = 1032;

class ESPALIER_API ByteReader {
 public:
  /// Opens (maps) a file.
  explicit ByteReader(const std::filesystem::path& path);
  /// Reads bytes that outlive the reader; `name` is what errors call them.
  ByteReader(std::span<const std::byte> bytes, std::string name);
  ~ByteReader();
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;

  /// The next `size` bytes into `out`; `what` says in the error what they are.
  void read(void* out, size_t size, std::string_view what);
  /// Pass over `size` bytes.
  void skip(uint64_t size, std::string_view what);
  /// Read on to the end and give the number of bytes passed; of gzip, the check sums are compared.
  uint64_t drain();
  /// No more bytes than this can follow, by the file's size (deflate packs at most 1032 to 1): what a header
  /// claims is compared with it before memory is taken.
  uint64_t most_left() const;
  const std::string& name() const { return name_; }

 private:
  struct Inflater;
  size_t some(std::byte* out, size_t size);
  std::string name_;
  std::shared_ptr<const void> keep_;
  std::span<const std::byte> left_;
  std::unique_ptr<Inflater> inflater_;
  uint64_t position_ = 0;
};

/// `bytes` as one gzip member (RFC 1952) at level 1 (fast) to 9.
ESPALIER_API std::string gzip(std::string_view bytes, int level = 6);

}  // namespace espalier::data
