#pragma once
// Files: whole reads, read-only maps, and writes that are either complete or absent.
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace espalier {

/// The whole file as bytes. Throws UserError (path, reason) when it cannot be read.
std::string read_file(const std::filesystem::path& path);

/// A read-only map of a file, kept alive by the pointer. Throws UserError when it cannot be mapped.
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}
  const std::byte* data_;
  size_t size_;
};

/// The machine's fault, not the input's: a file that cannot be made, written or renamed.
class ESPALIER_API WriteError : public UserError {
 public:
  using UserError::UserError;
};

/// A file that appears under its name only when commit() succeeded: written without a name, synced, named beside it, renamed.
/// Destroyed without commit(), or killed while it is written, it leaves nothing (where the file system knows no nameless files, a
/// kill leaves a file for which is_temporary_file() holds). A link stays and its target is replaced; a file that is replaced hands on
/// its mode. What is no regular file (a device, a pipe, /dev/stdout) is written straight. Throws WriteError (path, reason; a full
/// disk included), for a path that cannot be made before anything is written.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::string_view bytes);
  void write(const void* data, size_t size);
  void commit();

 private:
  void give_name();
  [[noreturn]] void fail(const char* what);
  std::filesystem::path path_, temporary_;  // no temporary: the file has no name yet
  int fd_ = -1, mode_ = -1;                 // mode -1: of a new file
  bool direct_ = false;
};

/// Cut a file (made where there is none) to its first `keep` bytes, write `bytes` behind them and sync it; its size then. Of what
/// is no regular file nothing is cut. WriteError when it cannot or there are fewer bytes than that; the first `keep` bytes stay in
/// any case.
int64_t append_file(const std::filesystem::path& path, int64_t keep, std::string_view bytes);

/// The WriteError that AtomicFile(path) would throw, before long work; it leaves no trace.
void check_writable(const std::filesystem::path& path);

/// Is this the name of a file that an AtomicFile of some process was writing?
bool is_temporary_file(const std::filesystem::path& path);

/// The folder, with those above it, where it is not there yet. WriteError when it cannot be made.
void make_folder(const std::filesystem::path& path);

/// Write `bytes` as the whole content of `path`, atomically.
void write_file(const std::filesystem::path& path, std::string_view bytes);

}  // namespace espalier
