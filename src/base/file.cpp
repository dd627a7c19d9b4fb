#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

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

/// A name of this process's own beside `path`.
std::filesystem::path beside(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter{0};
  std::filesystem::path name = path;
  name += fmt::format(".tmp-{}-{}", ::getpid(), counter++);
  return name;
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
  // without a name, so that a process that is killed leaves nothing
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  fd_ = ::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
  if (fd_ >= 0 && ::access(link_of(fd_).c_str(), F_OK) == 0) return;
  if (fd_ >= 0) ::close(fd_);
  temporary_ = beside(path_);  // on file systems that know no such files
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
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
  const auto* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = ::write(fd_, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot be written");
    at += n;
    size -= static_cast<size_t>(n);
  }
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0 && errno != EINVAL) fail("cannot be synced");
  if (temporary_.empty()) {  // rename replaces what is there, a link does not
    const std::filesystem::path name = beside(path_);
    if (::linkat(AT_FDCWD, link_of(fd_).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0)
      fail("cannot be given its name");
    temporary_ = name;
  }
  if (::close(fd_) != 0) {
    fd_ = -1;
    fail("cannot be closed");
  }
  fd_ = -1;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot be renamed into place");
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace espalier
