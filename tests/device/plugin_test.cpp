// The plugin: which file is taken, and what is said of those that are not.
#include "target/cuda/plugin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "support/environment.h"
#include "support/errors.h"
#include "support/folder.h"
#include "target/cuda/driver/open_device.h"
#include "target/cuda/port.h"

namespace espalier::target::cuda {
namespace {

using testing::HasSubstr;
using Folders = std::vector<std::filesystem::path>;

const std::filesystem::path fakes = ESPALIER_FAKES, built = ESPALIER_PLUGIN;

TEST(Plugin, OfThisBuildIsTaken) {
  const Plugin p = load_plugin(Folders{"/no/such/folder", built.parent_path()});
  ASSERT_NE(p.interface, nullptr) << p.reason;
  EXPECT_EQ(p.path, built);
  EXPECT_EQ(p.reason, "");
  EXPECT_EQ(p.attempts.size(), 1u);
  EXPECT_STREQ(p.interface->version, ESPALIER_VERSION);
}

TEST(Plugin, OpensADeviceOrSaysWhyNot) {
  const Plugin p = load_plugin(Folders{built.parent_path()});
  ASSERT_NE(p.interface, nullptr) << p.reason;
  const KernelTexts texts{port_text(), {}};
  if (p.interface->report(Ask::devices).devices.empty())
    EXPECT_THAT(test::error_of([&] { p.interface->open(0, texts); }), HasSubstr("device cuda:0"));
  else EXPECT_EQ(p.interface->open(0, texts)->info().index, 0);
  EXPECT_THAT(test::error_of([&] { p.interface->open(99, texts); }), HasSubstr("device cuda:99"));
}

/// A driver that lists a GPU and makes no context on it.
TEST(Plugin, OpensADeviceOrSaysWhichCallFailed) {
  driver::Libraries libraries({.driver = {fakes / "driver"}, .toolkits = {}});
  EXPECT_THAT(
      test::error_of([&] { driver::open_device(libraries, 0, {}); }),
      HasSubstr("device cuda:0 (Fake H200 number 0), cuDevicePrimaryCtxRetain: an unknown error (801)"));
  EXPECT_THAT(test::error_of([&] { driver::open_device(libraries, 4, {}); }),
              HasSubstr("device cuda:4, cuDeviceGet: "));
  driver::Libraries none({.driver = {"/no/such/folder"}, .toolkits = {}});
  EXPECT_THAT(test::error_of([&] { driver::open_device(none, 0, {}); }),
              testing::AllOf(HasSubstr("there is no driver"), HasSubstr("libcuda.so.1 is not there")));
}

TEST(Plugin, Missing) {
  const Plugin p = load_plugin(Folders{"/no/such/folder"});
  EXPECT_EQ(p.interface, nullptr);
  EXPECT_EQ(p.reason, "the CUDA plugin is not used: libespalier_cuda.so is not there");
  EXPECT_EQ(p.attempts, (std::vector<LibraryAttempt>{{"/no/such/folder/libespalier_cuda.so", "not there"}}));
}

TEST(Plugin, OfAnotherVersionOrBuildIsRefused) {
  EXPECT_THAT(load_plugin(Folders{fakes / "plugin_of_another_version"}).reason,
              HasSubstr("a plugin of another version: found 0.0.9, needs " ESPALIER_VERSION));
  EXPECT_THAT(
      load_plugin(Folders{fakes / "plugin_of_another_build"}).reason,
      HasSubstr("a plugin of another build of version " ESPALIER_VERSION ": found 0123456789ab, needs "));
  EXPECT_THAT(load_plugin(Folders{fakes / "no_plugin"}).reason,
              HasSubstr("no plugin of Espalier: it lacks espalier_plugin()"));
}

TEST(Plugin, AWrongOneDoesNotHideTheRightOne) {
  const Plugin p =
      load_plugin(Folders{fakes / "plugin_of_another_version", fakes / "no_plugin", built.parent_path()});
  ASSERT_NE(p.interface, nullptr) << p.reason;
  EXPECT_EQ(p.attempts.size(), 2u);
}

TEST(Plugin, ABrokenFileIsRefused) {
  const test::TemporaryFolder folder;
  std::ofstream(folder / plugin_file) << "no library";
  const Plugin p = load_plugin(Folders{folder.path()});
  EXPECT_EQ(p.interface, nullptr);
  EXPECT_THAT(p.reason, HasSubstr(folder.path().string()));
}

TEST(Plugin, PlacesInOrder) {
  const test::Variable path("ESPALIER_PLUGIN_PATH", "/first:/second/../third:");
  const Folders folders = plugin_folders();
  ASSERT_GE(folders.size(), 4u);
  EXPECT_EQ(folders[0], "/first");
  EXPECT_EQ(folders[1], "/third");
  EXPECT_EQ(folders[2],
            std::filesystem::canonical("/proc/self/exe").parent_path());  // which holds the library here
  EXPECT_THAT(folders, testing::Contains(built.parent_path()));
}

}  // namespace
}  // namespace espalier::target::cuda
