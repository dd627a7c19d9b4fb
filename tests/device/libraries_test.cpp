// NVIDIA's libraries: where they are looked for, which serves, and what is said of one that does not.
#include "target/cuda/driver/libraries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "base/file.h"
#include "support/environment.h"
#include "support/folder.h"

namespace espalier::target::cuda::driver {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Folders = std::vector<fs::path>;

const fs::path fakes = ESPALIER_FAKES;

/// Nothing but these folders.
Libraries only(const Folders& folders) { return Libraries({.driver = folders, .toolkits = folders}); }

TEST(SearchPlaces, InOrder) {
  const test::TemporaryFolder root;
  const auto folder = [&](const std::string& name) {
    fs::create_directories(root / name);
    return root / name;
  };
  const fs::path own = folder("own"), own_lib = folder("own/lib"), own_package = folder("own/cudnn/lib");
  const fs::path old = folder("usr/local/cuda-9.2/lib64"), newer = folder("usr/local/cuda-12.4/lib64"),
                 newest = folder("usr/local/cuda-13.0/lib64"), wsl = folder("usr/lib/wsl/lib");
  fs::create_directory_symlink("cuda-13.0", root / "usr/local/cuda");
  folder("usr/local/cuda-none");
  const fs::path venv = folder("venv/lib/python3.12/site-packages/nvidia/cudnn/lib"),
                 user = folder("home/.local/lib/python3.11/site-packages/nvidia/cu13/lib"),
                 system = folder("usr/lib/python3.11/dist-packages/nvidia/nccl/lib"),
                 opt = folder("opt/peers/lib/python3.11/site-packages/nvidia/cu13/lib"),
                 opt_venv = folder("opt/torch/.venv/lib/python3.12/site-packages/nvidia/cudnn/lib"),
                 on_path = folder("tools/lib/python3.12/site-packages/nvidia/cu13/lib"),
                 without_python = folder("other/lib/python3.12/site-packages/nvidia/cu13/lib");
  folder("tools/bin");
  folder("other/bin");
  write_file(root / "tools/bin/python3", "");
  const SearchPlaces places =
      search_places({.cuda_path = own.string(),
                     .virtual_env = (root / "venv").string(),
                     .conda_prefix = "",
                     .home = (root / "home").string(),
                     .path = (root / "other/bin").string() + ":bin:" + (root / "tools/bin/").string(),
                     .root = root.path()});
  EXPECT_EQ(places.driver, (Folders{own, own_lib, own_package, "", wsl}));
  EXPECT_EQ(places.toolkits, (Folders{own, own_lib, own_package, "", newest, newer, old, venv, user, on_path,
                                      system, opt, opt_venv}));
  EXPECT_THAT(places.toolkits, testing::Not(testing::Contains(without_python)));
}

TEST(SearchPlaces, OffEndsTheList) {
  EXPECT_TRUE(search_places({.cuda_path = "off"}).driver.empty());
  EXPECT_TRUE(search_places({.cuda_path = "off"}).toolkits.empty());
  EXPECT_EQ(search_places({.cuda_path = "/no/a:/no/b:off:/no/c"}).toolkits, (Folders{"/no/a", "/no/b"}));
}

TEST(Libraries, NothingThere) {
  Libraries none = only({"/no/such/folder"});
  EXPECT_FALSE(none.driver().api);
  EXPECT_FALSE(none.nvml().api);
  EXPECT_FALSE(none.nvrtc().api);
  const std::vector<LibraryReport> reports = none.reports();
  ASSERT_EQ(reports.size(), 6u);
  for (const LibraryReport& r : reports) {
    EXPECT_FALSE(r.found);
    EXPECT_EQ(r.version, "");
    EXPECT_THAT(r.reason, testing::EndsWith(" is not there")) << r.name;
    ASSERT_FALSE(r.attempts.empty());
    EXPECT_THAT(r.attempts[0].file.string(), testing::StartsWith("/no/such/folder/lib"));
  }
  EXPECT_EQ(reports[2].reason, "libnvrtc.so.13 or libnvrtc.so.12 is not there");
}

TEST(Libraries, SwitchedOff) {
  Libraries off = only({});
  EXPECT_EQ(off.driver().report.reason, "nothing is searched: ESPALIER_CUDA_PATH says off");
  EXPECT_TRUE(off.driver().report.attempts.empty());
}

TEST(Libraries, DriverAndItsSensors) {
  const test::Variable fake("ESPALIER_FAKE_GPU", "driver=12040");
  Libraries l = only({fakes / "driver"});
  ASSERT_TRUE(l.driver().api) << l.driver().report.reason;
  EXPECT_EQ(l.driver().report.version, "12.4");
  EXPECT_EQ(l.driver().report.path, fakes / "driver/libcuda.so.1");
  ASSERT_TRUE(l.nvml().api) << l.nvml().report.reason;
  EXPECT_EQ(l.nvml().report.version, "13.580.65.06");
}

TEST(Libraries, OldDriver) {
  const test::Variable fake("ESPALIER_FAKE_GPU", "driver=11080");
  Libraries l = only({fakes / "driver"});
  EXPECT_FALSE(l.driver().api);
  EXPECT_EQ(l.driver().report.version, "");
  EXPECT_EQ(l.driver().report.reason,
            (fakes / "driver/libcuda.so.1").string() + ": driver too old, found 11.8, needs 12.0");
}

TEST(Libraries, DriverThatLacksEntryPoints) {
  const test::Variable fake("ESPALIER_FAKE_GPU",
                            "lacks=cuDeviceGetName,cuDeviceGetUuid,cuDeviceGetAttribute");
  Libraries l = only({fakes / "driver"});
  EXPECT_FALSE(l.driver().api);
  EXPECT_THAT(l.driver().report.reason, HasSubstr(": it lacks cuDeviceGetName, cuDeviceGetAttribute"));
}

TEST(Libraries, DriverThatFails) {
  const test::Variable fake("ESPALIER_FAKE_GPU", "fails=cuDriverGetVersion:999,nvmlInit:18");
  Libraries l = only({fakes / "driver"});
  EXPECT_THAT(l.driver().report.reason, HasSubstr("cuDriverGetVersion fails with 999"));
  EXPECT_THAT(l.nvml().report.reason, HasSubstr("nvmlInit: Driver/library version mismatch (18)"));
}

TEST(Libraries, WithoutADriverTheFirstCompleteOneServes) {
  Libraries l = only({fakes / "cuda13", fakes / "cuda12"});
  EXPECT_EQ(l.nvrtc().report.version, "12.3");  // the first one's builtins are not there
  ASSERT_FALSE(l.nvrtc().report.attempts.empty());
  EXPECT_EQ(l.nvrtc().report.attempts[0],
            (LibraryAttempt{fakes / "cuda13/libnvrtc.so.13", "libnvrtc-builtins.so.13.3 is not beside it"}));
  EXPECT_EQ(l.lt().report.version, "13.3.2");
  EXPECT_EQ(l.dnn().report.version, "9.12.34");
  EXPECT_EQ(l.dnn().report.path, fakes / "cuda13/libcudnn.so.9");
  EXPECT_FALSE(l.nccl().api);
}

TEST(Libraries, ThoseTooNewForTheDriverAreRefused) {
  const test::Variable fake("ESPALIER_FAKE_GPU", "driver=12020");
  Libraries l = only({fakes / "driver", fakes / "cuda13", fakes / "cuda12"});
  EXPECT_EQ(l.lt().report.version, "12.3.2");
  EXPECT_EQ(l.dnn().report.path, fakes / "cuda12/libcudnn.so.9");
  EXPECT_EQ(l.nvrtc().report.version, "12.3");
  EXPECT_THAT(l.lt().report.attempts,
              testing::Contains(LibraryAttempt{fakes / "cuda13/libcublasLt.so.13",
                                               "it needs a driver for CUDA 13, found 12.2"}));
}

TEST(Libraries, AreLoadedOnceByManyThreads) {
  Libraries l = only({fakes / "driver", fakes / "cuda13", fakes / "cuda12"});
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      if (i % 2) EXPECT_TRUE(l.lt().api);
      EXPECT_TRUE(l.nvrtc().api);
      EXPECT_TRUE(l.driver().api);
      EXPECT_EQ(l.reports().size(), 6u);
    });
  for (std::thread& t : threads) t.join();
}

/// A set of NVIDIA's own libraries, where this machine has one.
void expect_real(const Folders& folders, const std::string& nvrtc, const std::string& cudnn) {
  Libraries l = only(folders);
  for (const LibraryReport& r : {l.nvrtc().report, l.lt().report, l.dnn().report, l.nccl().report}) {
    EXPECT_TRUE(r.found) << r.name << ": " << r.reason;
    EXPECT_NE(r.version, "");
    EXPECT_TRUE(std::any_of(folders.begin(), folders.end(), [&](const fs::path& f) {
      return fs::equivalent(f, r.path.parent_path());
    })) << r.path;
  }
  EXPECT_EQ(l.nvrtc().report.version, nvrtc);
  EXPECT_THAT(l.dnn().report.version, testing::StartsWith(cudnn));
  EXPECT_FALSE(l.driver().api);  // it does not come with a toolkit
}

TEST(Libraries, OfAToolkit) {
  const fs::path folder = "/usr/local/cuda-13.0/lib64";
  if (!fs::exists(folder / "libnvrtc.so.13") || !fs::exists(folder / "libcudnn.so.9"))
    GTEST_SKIP() << "no CUDA 13.0 toolkit with cuDNN in " << folder;
  expect_real({folder}, "13.0", "9.");
}

TEST(Libraries, OfAPythonEnvironment) {
  const fs::path packages = "/opt/peers/lib/python3.11/site-packages/nvidia";
  if (!fs::exists(packages / "cu13/lib/libnvrtc.so.13")) GTEST_SKIP() << "no NVIDIA packages in " << packages;
  const SearchPlaces places = search_places({.cuda_path = packages.string() + ":off"});
  EXPECT_THAT(places.toolkits, testing::Contains(packages / "cudnn/lib"));
  expect_real(places.toolkits, "13.2", "9.");
  EXPECT_THAT(search_places({}).toolkits, testing::Contains(packages / "cu13/lib"));  // by itself too
}

}  // namespace
}  // namespace espalier::target::cuda::driver
