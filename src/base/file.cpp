#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

namespace espalier {

namespace {

[[noreturn]] void fail_file(const std::filesystem::path& path, std::string problem, int error) {
  throw UserError({"file " + path.string(), std::move(problem), std::strerror(error), ""});
}

[[noreturn]] void fail_write(const std::filesystem::path& path, std::string problem, int error) {
  throw WriteError({"file " + path.string(), std::move(problem), std::strerror(error), ""});
}

class Descriptor {
 public:
  explicit Descriptor(const std::filesystem::path& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) fail_file(path, "cannot be opened", errno);
    struct stat st {};
    if (::fstat(fd_, &st) != 0 || !S_ISREG(st.st_mode)) {
      const int error = S_ISDIR(st.st_mode) ? EISDIR : errno ? errno : EINVAL;
      ::close(fd_);
      fail_file(path, "is no regular file", error);
    }
    size_ = static_cast<size_t>(st.st_size);
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd() const { return fd_; }
  size_t size() const { return size_; }

 private:
  int fd_;
  size_t size_ = 0;
};

constexpr std::string_view temporary_prefix = ".espalier-", temporary_suffix = ".tmp";

/// A name of this process's own in the folder of `path`: short, so that it is allowed wherever `path`'s is. There may be a file
/// of that name, left by a killed process of the same number.
std::filesystem::path beside(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter{0};
  return path.parent_path() /
         fmt::format("{}{}-{}{}", temporary_prefix, ::getpid(), counter++, temporary_suffix);
}

/// N for /proc/self/fd/N by whatever name (what /dev/stdout leads to; /proc/thread-self/fd/N), else -1.
int own_descriptor(const std::filesystem::path& path) {
  std::error_code none;
  const std::string folder = std::filesystem::canonical(path.parent_path(), none).string();
  const std::string process = fmt::format("/proc/{}", ::getpid());
  if (folder != process + "/fd" && !(folder.starts_with(process + "/task/") && folder.ends_with("/fd")))
    return -1;
  const std::string number = path.filename().string();
  const char* end = number.data() + number.size();
  int fd = -1;
  const auto [at, error] = std::from_chars(number.data(), end, fd);
  return error == std::errc{} && at == end ? fd : -1;
}

/// Where links lead, as far as a descriptor of this process.
std::filesystem::path follow_links(std::filesystem::path path) {
  constexpr int most = 40;  // as many as Linux follows
  for (int i = 0; i < most && std::filesystem::is_symlink(std::filesystem::symlink_status(path)); ++i) {
    if (own_descriptor(path) >= 0) return path;
    path = path.parent_path() / std::filesystem::read_symlink(path);
  }
  return path;
}

/// To write to `path` as it is; a descriptor of this process again, with its place in the file.
int open_straight(const std::filesystem::path& path, int flags) {
  const int open_already = own_descriptor(path);
  return open_already >= 0 ? ::fcntl(open_already, F_DUPFD_CLOEXEC, 3)
                           : ::open(path.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC | flags, 0644);
}

/// Give a file this mode, except on file systems whose files have no modes of their own.
bool set_mode(int fd, int mode) {
  return ::fchmod(fd, static_cast<mode_t>(mode)) == 0 || errno == EPERM || errno == ENOTSUP ||
         errno == EOPNOTSUPP || errno == ENOSYS;
}

bool write_whole(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

std::string link_of(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  const Descriptor file(path);
  std::string out(file.size(), '\0');
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = ::read(file.fd(), out.data() + done, out.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_file(path, "cannot be read", errno);
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  out.resize(done);
  return out;
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const Descriptor file(path);
  const std::byte* data = nullptr;
  if (file.size() > 0) {
    void* map = ::mmap(nullptr, file.size(), PROT_READ, MAP_PRIVATE, file.fd(), 0);
    if (map == MAP_FAILED) fail_file(path, "cannot be mapped", errno);
    data = static_cast<const std::byte*>(map);
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(data, file.size()));
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  struct stat st {};
  const bool exists = ::stat(path_.c_str(), &st) == 0;
  if (!exists && errno != ENOENT) fail_write(path_, "cannot be created", errno);
  if (exists && S_ISDIR(st.st_mode)) fail_write(path_, "cannot be created", EISDIR);
  path_ = follow_links(path_);
  direct_ = own_descriptor(path_) >= 0 || (exists && !S_ISREG(st.st_mode));
  if (direct_) {
    fd_ = open_straight(path_, 0);
    if (fd_ < 0) fail_write(path_, "cannot be opened", errno);
    return;
  }
  if (exists) mode_ = st.st_mode & 0777;
  // without a name, so that a process that is killed leaves nothing
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  fd_ = ::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
  if (fd_ >= 0 && ::access(link_of(fd_).c_str(), F_OK) == 0) return;
  if (fd_ >= 0) ::close(fd_);
  do {  // on file systems that know no such files
    temporary_ = beside(path_);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) fail_write(path_, "cannot be created", errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* what) {
  const int error = errno;
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  fail_write(path_, what, error);
}

void AtomicFile::write(std::string_view bytes) { write(bytes.data(), bytes.size()); }

void AtomicFile::write(const void* data, size_t size) {
  if (!write_whole(fd_, {static_cast<const char*>(data), size})) fail("cannot be written");
}

void AtomicFile::give_name() {
  std::filesystem::path name;
  do {  // rename replaces what is there, a link does not
    name = beside(path_);
    if (::linkat(AT_FDCWD, link_of(fd_).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0) {
      temporary_ = name;
      return;
    }
  } while (errno == EEXIST);
  fail("cannot be given its name");
}

void AtomicFile::commit() {
  if (!direct_) {
    if (mode_ >= 0 && !set_mode(fd_, mode_)) fail("cannot keep its mode");
    if (::fsync(fd_) != 0 && errno != EINVAL) fail("cannot be synced");
    if (temporary_.empty()) give_name();
  }
  if (::close(std::exchange(fd_, -1)) != 0) fail("cannot be closed");
  if (!direct_ && ::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot be renamed into place");
}

int64_t append_file(const std::filesystem::path& path, int64_t keep, std::string_view bytes) {
  const std::filesystem::path target = follow_links(path);
  const int fd = open_straight(target, O_CREAT);
  if (fd < 0) fail_write(path, "cannot be opened", errno);
  struct stat st {};
  const bool regular = own_descriptor(target) < 0 && ::fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
  if (regular && st.st_size < keep) {
    ::close(fd);
    throw WriteError({"file " + path.string(), "has lost bytes that were written to it",
                      fmt::format("{} bytes", st.st_size), fmt::format("{} bytes or more", keep)});
  }
  const bool written = (!regular || (::ftruncate(fd, keep) == 0 && ::lseek(fd, 0, SEEK_END) == keep)) &&
                       write_whole(fd, bytes) && (!regular || ::fsync(fd) == 0);
  const int error = errno;
  if (::close(fd) != 0 || !written) fail_write(path, "cannot be written", written ? errno : error);
  return regular ? keep + static_cast<int64_t>(bytes.size()) : 0;
}

void check_writable(const std::filesystem::path& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) == 0 && !S_ISREG(st.st_mode) &&
      !S_ISDIR(st.st_mode)) {  // opening a pipe waits
    if (::access(path.c_str(), W_OK) != 0) fail_write(path, "cannot be written", errno);
    return;
  }
  const AtomicFile probe(path);
}

bool is_temporary_file(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with(temporary_prefix) && name.ends_with(temporary_suffix);
}

void make_folder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error && !std::filesystem::is_directory(path, error) && !error)
    error = std::make_error_code(std::errc::not_a_directory);
  if (error)
    throw WriteError({"output folder " + path.string(), "cannot be made", error.message(), "a folder"});
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace espalier
