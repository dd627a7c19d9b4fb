// Kernels by NVRTC, as a GPU's driver is given them: images, the cache, what is said when one does not compile. Needs a toolkit, no GPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "support/errors.h"
#include "support/folder.h"
#include "support/nvrtc.h"
#include "target/device.h"

namespace espalier::target::cuda::driver {
namespace {

using test::kernel_texts;
using test::some_kernels;
using testing::HasSubstr;

TEST(NvrtcArch, IsTheNewestThatTheDeviceRuns) {
  const int known[] = {80, 86, 89, 90, 100, 120};
  EXPECT_EQ(nvrtc_arch(known, 80), "sm_80");
  EXPECT_EQ(nvrtc_arch(known, 87), "sm_86");
  EXPECT_EQ(nvrtc_arch(known, 90), "sm_90");
  EXPECT_EQ(nvrtc_arch(known, 103), "sm_100");
  EXPECT_EQ(nvrtc_arch(known, 131), "compute_120");
  EXPECT_EQ(nvrtc_arch(known, 75), "");
}

TEST(NvrtcCompiler, ImagesAreMadeOnceAndKept) {
  if (!test::Nvrtc::find()) GTEST_SKIP() << test::Nvrtc::why_not();
  const test::TemporaryFolder folder;
  const std::vector<KernelSource> sources = some_kernels(3);
  std::vector<std::string> first;
  {
    ObjectCache cache(folder / "kernels");
    NvrtcCompiler compiler(test::machine_libraries(), kernel_texts(), cache);
    for (const KernelImage& image : compiler.compile(sources, 90)) {
      EXPECT_EQ(image.bytes.substr(1, 3), "ELF");
      EXPECT_NE(image.bytes.find(image.kernels.at(0)), std::string::npos);
      first.push_back(image.bytes);
    }
    EXPECT_EQ(cache.counts().stored, 3);
    compiler.compile(std::span(sources).first(1), 80);  // for another device
    EXPECT_EQ(cache.counts().stored, 4);
  }
  ObjectCache cache(folder / "kernels");
  NvrtcCompiler compiler(test::machine_libraries(), kernel_texts(), cache);
  const std::vector<KernelImage> again = compiler.compile(sources, 90);
  for (size_t i = 0; i < again.size(); ++i) {
    EXPECT_EQ(again[i].bytes, first[i]);
    EXPECT_TRUE(again[i].found);
  }
  EXPECT_EQ(cache.counts().hits, 3);
  EXPECT_EQ(cache.counts().stored, 0);
  NvrtcCompiler other(test::machine_libraries(),
                      {port_text() + "// another header\n", kernel_texts().options}, cache);
  other.compile(sources, 90);
  EXPECT_EQ(cache.counts().hits, 3);
}

TEST(NvrtcCompiler, ADamagedImageIsMadeAgain) {
  if (!test::Nvrtc::find()) GTEST_SKIP() << test::Nvrtc::why_not();
  const test::TemporaryFolder folder;
  const std::vector<KernelSource> sources = some_kernels(1);
  ObjectCache cache(folder / "kernels");
  NvrtcCompiler compiler(test::machine_libraries(), kernel_texts(), cache);
  const std::string good = compiler.compile(sources, 90)[0].bytes;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "kernels")) {
    std::string bytes = read_file(entry.path().string());
    bytes[bytes.size() / 2] ^= 1;
    write_file(entry.path().string(), bytes);
  }
  const KernelImage again = compiler.compile(sources, 90)[0];
  EXPECT_EQ(again.bytes, good);
  EXPECT_FALSE(again.found);
  EXPECT_EQ(cache.counts().corrupt, 1);
  EXPECT_EQ(cache.counts().stored, 2);
}

TEST(NvrtcCompiler, LaterDevicesGetWhatTheirDriverCompiles) {
  if (!test::Nvrtc::find()) GTEST_SKIP() << test::Nvrtc::why_not();
  ObjectCache none("");
  NvrtcCompiler compiler(test::machine_libraries(), kernel_texts(), none);
  EXPECT_THAT(compiler.compile(some_kernels(1), 990)[0].bytes, HasSubstr(".visible .entry add_0"));
  EXPECT_THAT(test::error_of([&] { compiler.compile(some_kernels(1), 20); }),
              HasSubstr("compute capability 20"));
}

TEST(NvrtcCompiler, ItsWordsAreShown) {
  if (!test::Nvrtc::find()) GTEST_SKIP() << test::Nvrtc::why_not();
  ObjectCache none("");
  NvrtcCompiler compiler(test::machine_libraries(), kernel_texts(), none);
  std::vector<KernelSource> sources = some_kernels(4);
  sources[2].text = "K_KERNEL(add_2, 64)(float* y) { y[0] = nothing_of_that_name; }\n";
  EXPECT_THAT(test::error_of([&] { compiler.compile(sources, 90); }),
              testing::AllOf(HasSubstr("kernel add_2 for sm_90"), HasSubstr("nothing_of_that_name")));
}

TEST(NvrtcCompiler, WithoutOneEveryPlaceIsNamed) {
  Libraries nothing({.driver = {}, .toolkits = {"/no/such/folder"}});
  ObjectCache none("");
  NvrtcCompiler compiler(nothing, kernel_texts(), none);
  EXPECT_TRUE(compiler.compile({}, 90).empty());
  EXPECT_THAT(test::error_of([&] { compiler.compile(some_kernels(1), 90); }),
              testing::AllOf(HasSubstr("there is no NVRTC"), HasSubstr("libnvrtc.so.13")));
}

}  // namespace
}  // namespace espalier::target::cuda::driver
