#include "base/object_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace espalier {
namespace {

constexpr std::string_view magic = "ESPOBJ1\n";
constexpr uint64_t max_entry = uint64_t{256} << 20;

uint64_t mix(uint64_t h) {
  h ^= h >> 32;
  h *= 0xd6e8feb86659fd93ull;
  h ^= h >> 32;
  h *= 0xd6e8feb86659fd93ull;
  return h ^ (h >> 32);
}

/// A 64-bit hash; it guards against damage and names files, not against an attacker (the directory is the owner's).
uint64_t hash_bytes(std::string_view bytes, uint64_t seed) {
  uint64_t h = seed ^ (bytes.size() * 0x9e3779b97f4a7c15ull);
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    h = mix(h ^ word) + 0x9e3779b97f4a7c15ull;
  }
  uint64_t rest = 0;
  std::memcpy(&rest, bytes.data() + i, bytes.size() - i);
  return mix(h ^ rest);
}

void put(std::string& out, uint64_t value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  bool close() {
    const int fd = std::exchange(fd_, -1);
    return fd < 0 || ::close(fd) == 0;
  }

 private:
  int fd_;
};

/// The whole file, when it is a regular file of ours of a sane size.
std::optional<std::string> read_own_file(const std::filesystem::path& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (file.get() < 0) return std::nullopt;
  struct stat st {};
  if (fstat(file.get(), &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_size < 0 ||
      static_cast<uint64_t>(st.st_size) > max_entry)
    return std::string();
  std::string bytes(static_cast<size_t>(st.st_size), '\0');
  size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t n = read(file.get(), bytes.data() + at, bytes.size() - at);
    if (n <= 0) break;
    at += static_cast<size_t>(n);
  }
  bytes.resize(at);
  return bytes;
}

std::string entry_bytes(std::string_view key, std::string_view object) {
  std::string s(magic);
  put(s, key.size());
  put(s, object.size());
  s += key;
  s += object;
  put(s, hash_bytes(s, 7));
  return s;
}

/// The object of an entry whose frame, key and checksum hold.
std::optional<std::string> object_of(const std::string& entry, std::string_view key) {
  constexpr size_t frame = magic.size() + 16;
  if (entry.size() < frame + 8 || std::string_view(entry).substr(0, magic.size()) != magic)
    return std::nullopt;
  uint64_t key_size, object_size, sum;
  std::memcpy(&key_size, entry.data() + magic.size(), 8);
  std::memcpy(&object_size, entry.data() + magic.size() + 8, 8);
  const uint64_t body = entry.size() - frame - 8;
  if (key_size > body || object_size != body - key_size) return std::nullopt;
  std::memcpy(&sum, entry.data() + entry.size() - 8, 8);
  if (sum != hash_bytes(std::string_view(entry).substr(0, entry.size() - 8), 7)) return std::nullopt;
  if (std::string_view(entry).substr(frame, key_size) != key) return std::nullopt;
  return entry.substr(frame + key_size, object_size);
}

bool write_whole(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

void count(int64_t& counter) { std::atomic_ref<int64_t>(counter).fetch_add(1, std::memory_order_relaxed); }

/// Why code must not be loaded from `directory`; "" when it may.
std::string untrusted(const std::filesystem::path& directory) {
  std::error_code ignored;
  if (directory.has_parent_path()) std::filesystem::create_directories(directory.parent_path(), ignored);
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST)
    return "cannot be made: " + std::string(std::strerror(errno));
  struct stat st {};
  if (lstat(directory.c_str(), &st) != 0) return "cannot be read: " + std::string(std::strerror(errno));
  if (!S_ISDIR(st.st_mode)) return "is not a directory";
  if (st.st_uid != geteuid()) return "belongs to another user";
  if ((st.st_mode & 077) != 0) return "is open to other users (its mode must be 0700)";
  return "";
}

std::filesystem::path default_directory() {
  if (const char* dir = std::getenv("ESPALIER_CACHE_DIR")) return std::string_view(dir) == "off" ? "" : dir;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache)
    return std::filesystem::path(cache) / "espalier";
  if (const char* home = std::getenv("HOME"); home && *home)
    return std::filesystem::path(home) / ".cache" / "espalier";
  return "";
}

}  // namespace

ObjectCache::ObjectCache(std::filesystem::path directory) : directory_(std::move(directory)) {
  if (directory_.empty()) return;
  const std::string reason = untrusted(directory_);
  if (reason.empty()) return;
  refusal_ = directory_.string() + " " + reason;
  directory_.clear();
}

std::filesystem::path ObjectCache::path_of(std::string_view key) const {
  char name[48];
  std::snprintf(name, sizeof name, "%016llx%016llx.o", static_cast<unsigned long long>(hash_bytes(key, 1)),
                static_cast<unsigned long long>(hash_bytes(key, 2)));
  return directory_ / name;
}

std::optional<std::string> ObjectCache::find(std::string_view key) {
  if (!is_on()) return std::nullopt;
  const std::optional<std::string> entry = read_own_file(path_of(key));
  if (!entry) return count(counts_.misses), std::nullopt;
  std::optional<std::string> object = object_of(*entry, key);
  count(object ? counts_.hits : counts_.corrupt);
  return object;
}

void ObjectCache::store(std::string_view key, std::string_view object) {
  if (!is_on()) return;
  static std::atomic<uint64_t> serial{0};
  const std::filesystem::path path = path_of(key);
  const std::string temporary =
      path.string() + "." + std::to_string(getpid()) + "." + std::to_string(serial++) + ".tmp";
  Descriptor file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  const bool written = file.get() >= 0 && write_whole(file.get(), entry_bytes(key, object)) && file.close();
  if (written && rename(temporary.c_str(), path.c_str()) == 0) return count(counts_.stored);
  if (file.get() >= 0) unlink(temporary.c_str());
  count(counts_.failed);
}

void ObjectCache::reject(std::string_view key) {
  if (!is_on()) return;
  unlink(path_of(key).c_str());
  count(counts_.corrupt);
}

CacheCounts ObjectCache::counts() const {
  const auto read = [](const int64_t& c) { return std::atomic_ref<int64_t>(const_cast<int64_t&>(c)).load(); };
  return {read(counts_.hits), read(counts_.misses), read(counts_.stored), read(counts_.corrupt),
          read(counts_.failed)};
}

ObjectCache& object_cache() {
  static ObjectCache cache(default_directory());
  static const bool said = [] {
    if (!cache.refusal().empty())
      std::fprintf(stderr, "espalier: the cache of kernels is not used, every process compiles them: %s\n",
                   cache.refusal().c_str());
    return true;
  }();
  (void)said;
  return cache;
}

}  // namespace espalier
