#pragma once
// Compiled kernels on disk, so that a process whose kernels were met before starts without a compiler. An entry is a file that holds
// its whole key, the object and a checksum; one that does not fit is a warning and a miss, never a crash.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace espalier {

/// What the cache did so far in this process.
struct CacheCounts {
  int64_t hits = 0, misses = 0, stored = 0;
  int64_t corrupt = 0;  ///< entries that were damaged and are compiled again
  int64_t failed = 0;   ///< entries that could not be written (full disk, no permission)
};

/// Thread-safe, and safe against other processes: an entry appears whole or not at all.
class ObjectCache {
 public:
  /// A cache in `directory` (made with mode 0700 when absent); empty: no cache. A directory that others may enter or that belongs
  /// to someone else is not used, since code is loaded from it; refusal() says so.
  explicit ObjectCache(std::filesystem::path directory);

  /// The object stored under `key`, or nothing.
  std::optional<std::string> find(std::string_view key);
  /// Keep `object` under `key`. Failing is counted, not thrown.
  void store(std::string_view key, std::string_view object);
  /// The entry of `key` did not load: count it as corrupt and remove it.
  void reject(std::string_view key);

  CacheCounts counts() const;
  bool is_on() const { return !directory_.empty(); }
  /// Empty where it is off.
  const std::filesystem::path& directory() const { return directory_; }
  /// Why the directory is not used; "" when it is, or when the cache was switched off.
  const std::string& refusal() const { return refusal_; }
  /// The file that holds `key`.
  std::filesystem::path path_of(std::string_view key) const;

 private:
  std::filesystem::path directory_;
  std::string refusal_;
  CacheCounts counts_;
};

/// The process's cache: ESPALIER_CACHE_DIR ("off": none), else $XDG_CACHE_HOME/espalier, else ~/.cache/espalier. One that is not used
/// is said so once, on standard error.
ObjectCache& object_cache();

}  // namespace espalier
