// Libraries found at run time: the order of places, what refuses, and what is said of those that did not serve.
#include "base/dynamic_library.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "support/folder.h"

namespace espalier {
namespace {

TEST(DynamicLibrary, IsFoundByTheLoader) {
  const FoundLibrary found = find_library({.names = {"libno_such_thing.so.1", "libz.so.1"}, .folders = {""}});
  ASSERT_TRUE(found.library);
  EXPECT_TRUE(found.library->path().is_absolute());
  EXPECT_EQ(found.attempts, (std::vector<LibraryAttempt>{{"libno_such_thing.so.1", "not there"}}));
  const char* (*version)() = nullptr;
  ASSERT_TRUE(found.library->find("zlibVersion", version));
  EXPECT_EQ(version()[0], '1');
  EXPECT_FALSE(found.library->find("zlibNoSuchThing", version));
  EXPECT_EQ(version, nullptr);
}

TEST(DynamicLibrary, FoldersAreTriedInOrderEachWithEveryName) {
  const test::TemporaryFolder folder;
  write_file(folder / "libz.so.1", "this is no library");
  const FoundLibrary found =
      find_library({.names = {"libabsent.so", "libz.so.1"}, .folders = {folder.path(), ""}});
  ASSERT_TRUE(found.library);
  ASSERT_EQ(found.attempts.size(), 3u);
  EXPECT_EQ(found.attempts[0], (LibraryAttempt{folder / "libabsent.so", "not there"}));
  EXPECT_EQ(found.attempts[1].file, folder / "libz.so.1");
  EXPECT_NE(found.attempts[1].reason, "not there");
  EXPECT_EQ(found.attempts[1].reason.find(folder.path().string()), std::string::npos)
      << found.attempts[1].reason;
  EXPECT_EQ(found.attempts[2].file, "libabsent.so");
}

TEST(DynamicLibrary, OneThatIsRefusedIsNotTheLast) {
  int asked = 0;
  const FoundLibrary found = find_library({.names = {"libz.so.1", "libm.so.6"},
                                           .folders = {""},
                                           .refuse = [&](const DynamicLibrary& library) -> std::string {
                                             ++asked;
                                             return library.find("zlibVersion") ? "it packs" : "";
                                           }});
  ASSERT_TRUE(found.library);
  EXPECT_EQ(asked, 2);
  EXPECT_NE(found.library->find("cos"), nullptr);
  ASSERT_EQ(found.attempts.size(), 1u);
  EXPECT_EQ(found.attempts[0].reason, "it packs");
  EXPECT_TRUE(found.attempts[0].file.is_absolute());
}

TEST(DynamicLibrary, NothingFound) {
  const FoundLibrary found = find_library({.names = {"liba.so", "libb.so"}, .folders = {"/no/such/folder"}});
  EXPECT_FALSE(found.library);
  EXPECT_EQ(found.attempts.size(), 2u);
}

TEST(DynamicLibrary, TheFileOfAnAddress) {
  static const int here = 0;
  EXPECT_EQ(file_of_address(&here), std::filesystem::canonical("/proc/self/exe"));
  const FoundLibrary z = find_library({.names = {"libz.so.1"}, .folders = {""}});
  ASSERT_TRUE(z.library);
  EXPECT_EQ(file_of_address(z.library->find("zlibVersion")), std::filesystem::canonical(z.library->path()));
  int on_the_stack = 0;
  EXPECT_EQ(file_of_address(&on_the_stack), "");
}

TEST(DynamicLibrary, ListsOfFolders) {
  EXPECT_EQ(path_list("/a::b/c:"), (std::vector<std::string>{"/a", "b/c"}));
  EXPECT_TRUE(path_list("").empty());
  EXPECT_TRUE(path_list(nullptr).empty());
}

}  // namespace
}  // namespace espalier
