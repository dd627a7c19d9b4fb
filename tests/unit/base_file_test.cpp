#include "base/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "base/error.h"
#include "support/folder.h"

namespace {
int mode_error = 0;  ///< with which fchmod fails, as it does on file systems without modes
}

extern "C" int fchmod(int fd, mode_t mode) noexcept {
  if (mode_error == 0) return static_cast<int>(::syscall(SYS_fchmod, fd, mode));
  errno = mode_error;
  return -1;
}

namespace espalier {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A folder of its own for each test, removed afterwards.
class Files : public testing::Test {
 protected:
  int entries() const {
    return static_cast<int>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  test::TemporaryFolder temporary_;
  fs::path folder_ = temporary_.path();
};

TEST_F(Files, ReadsBackWhatWasWritten) {
  const std::string bytes("a\0b\n\xff", 5);
  write_file(folder_ / "x", bytes);
  EXPECT_EQ(read_file(folder_ / "x"), bytes);
  const auto mapped = MappedFile::open(folder_ / "x");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapped->bytes().data()), mapped->bytes().size()),
            bytes);
  write_file(folder_ / "x", "");
  EXPECT_EQ(read_file(folder_ / "x"), "");
  EXPECT_TRUE(MappedFile::open(folder_ / "x")->bytes().empty());
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, AppearsOnlyByCommit) {
  write_file(folder_ / "x", "old");
  {
    AtomicFile file(folder_ / "x");
    file.write("new");
    EXPECT_EQ(read_file(folder_ / "x"), "old");
  }
  EXPECT_EQ(read_file(folder_ / "x"), "old");
  EXPECT_EQ(entries(), 1);
  AtomicFile file(folder_ / "x");
  file.write("new");
  file.commit();
  EXPECT_EQ(read_file(folder_ / "x"), "new");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, AKillWhileItIsWrittenLeavesNothing) {
  write_file(folder_ / "x", "old");
  const pid_t child = fork();
  if (child == 0) {
    AtomicFile file(folder_ / "x");
    file.write("new");
    std::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  EXPECT_EQ(read_file(folder_ / "x"), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, ANameWithoutAFolderIsInTheCurrentOne) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  write_file("x", "here");
  fs::current_path(before);
  EXPECT_EQ(read_file(folder_ / "x"), "here");
  EXPECT_EQ(fs::status(folder_ / "x").permissions() & fs::perms::owner_all,
            fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(Files, ALinkStaysAndItsTargetIsReplaced) {
  fs::create_directory(folder_ / "sub");
  write_file(folder_ / "sub/target", "old");
  fs::create_symlink("sub/target", folder_ / "link");
  fs::create_symlink(folder_ / "link", folder_ / "link of a link");
  fs::create_symlink("sub/new", folder_ / "link to nothing");
  for (const auto& [link, target] :
       {std::pair{"link", "sub/target"}, {"link of a link", "sub/target"}, {"link to nothing", "sub/new"}}) {
    write_file(folder_ / link, link);
    EXPECT_TRUE(fs::is_symlink(folder_ / link)) << link;
    EXPECT_EQ(read_file(folder_ / target), link);
  }
  fs::create_symlink("round", folder_ / "round");
  EXPECT_THROW(write_file(folder_ / "round", "x"), WriteError);
}

TEST_F(Files, AFileThatIsReplacedHandsOnItsMode) {
  for (const mode_t mode : {0600u, 0664u, 0400u}) {
    write_file(folder_ / "x", "old");
    ASSERT_EQ(::chmod((folder_ / "x").c_str(), mode), 0);
    write_file(folder_ / "x", "new");
    EXPECT_EQ(static_cast<mode_t>(fs::status(folder_ / "x").permissions()), mode);
    EXPECT_EQ(read_file(folder_ / "x"), "new");
    fs::remove(folder_ / "x");
  }
}

TEST_F(Files, AFileSystemWithoutModesLosesNoFile) {
  for (const int error : {EPERM, EOPNOTSUPP}) {
    write_file(folder_ / "x", "old");
    mode_error = error;
    EXPECT_NO_THROW(write_file(folder_ / "x", "new"));
    mode_error = 0;
    EXPECT_EQ(read_file(folder_ / "x"), "new");
  }
  mode_error = EIO;
  EXPECT_THROW(write_file(folder_ / "x", "newer"), WriteError);
  mode_error = 0;
  EXPECT_EQ(read_file(folder_ / "x"), "new");
}

TEST_F(Files, ADescriptorOfThisThreadIsOneOfTheProcess) {
  const int fd = ::open((folder_ / "x").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  ASSERT_EQ(::write(fd, "before ", 7), 7);
  write_file("/proc/thread-self/fd/" + std::to_string(fd), "behind");
  EXPECT_EQ(read_file(folder_ / "x"), "before behind");
  EXPECT_THROW(write_file("/dev/fd/" + std::to_string(fd) + "x", "more"), WriteError);
  EXPECT_EQ(read_file(folder_ / "x"), "before behind");
  ::close(fd);
}

TEST_F(Files, WhatIsAddedBehindBytesThatAreGoneIsRefused) {
  EXPECT_EQ(append_file(folder_ / "x", 0, "12345"), 5);
  EXPECT_EQ(append_file(folder_ / "x", 3, "678"), 6);
  EXPECT_THROW(append_file(folder_ / "x", 7, "9"), WriteError);
  EXPECT_EQ(read_file(folder_ / "x"), "123678");
}

TEST_F(Files, WhatIsNoRegularFileIsWrittenStraight) {
  const fs::path pipe = folder_ / "pipe", full = folder_ / "full";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  write_file(pipe, "through");
  EXPECT_TRUE(fs::is_fifo(pipe));
  char got[16] = {};
  EXPECT_EQ(::read(reader, got, sizeof got), 7);
  EXPECT_STREQ(got, "through");
  ::close(reader);
  check_writable(pipe);  // which does not wait for a reader
  if (::mknod(full.c_str(), S_IFCHR | 0600, ::makedev(1, 7)) != 0) GTEST_SKIP() << "only root makes devices";
  EXPECT_THROW(write_file(full, "x"), WriteError);
  EXPECT_TRUE(fs::is_character_file(full));
}

TEST_F(Files, NamesMayBeAsLongAsTheFileSystemAllows) {
  const fs::path longest = folder_ / std::string(255, 'n');
  write_file(longest, "x");
  EXPECT_EQ(read_file(longest), "x");
  EXPECT_EQ(entries(), 1);
  EXPECT_THROW(check_writable(folder_ / std::string(256, 'n')), WriteError);
}

TEST_F(Files, WhetherAFileCanBeWrittenIsKnownBeforehand) {
  write_file(folder_ / "x", "old");
  check_writable(folder_ / "x");
  check_writable(folder_ / "new");
  for (const fs::path& bad : {folder_ / "absent" / "x", folder_ / "x" / "y", folder_})
    EXPECT_THROW(check_writable(bad), WriteError) << bad;
  EXPECT_EQ(read_file(folder_ / "x"), "old");
  EXPECT_EQ(entries(), 1);
  make_folder(folder_ / "a/b");
  EXPECT_TRUE(fs::is_directory(folder_ / "a/b"));
  EXPECT_THROW(make_folder(folder_ / "x"), WriteError);
  EXPECT_THROW(make_folder(folder_ / "x/sub"), WriteError);
}

TEST_F(Files, ErrorsNameThePath) {
  const fs::path absent = folder_ / "absent" / "x";
  for (const std::function<void()>& act :
       std::vector<std::function<void()>>{[&] { read_file(absent); }, [&] { MappedFile::open(absent); },
                                          [&] { write_file(absent, "x"); }, [&] { read_file(folder_); }}) {
    try {
      act();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), HasSubstr(folder_.string()));
    }
  }
}

TEST_F(Files, ADiskThatIsFullLeavesTheOldFile) {
  write_file(folder_ / "x", "old");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // beyond the limit a write fails as on a full disk
  rlimit small = before;
  small.rlim_cur = 4096;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THROW(write_file(folder_ / "x", std::string(1 << 20, 'n')), UserError);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_file(folder_ / "x"), "old");
  EXPECT_EQ(entries(), 1);
}

}  // namespace
}  // namespace espalier
