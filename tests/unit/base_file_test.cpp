#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/error.h"
#include "support/folder.h"

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
