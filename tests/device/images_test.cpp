// Kernels compiled beforehand: the list of a folder, what is looked for there, and programs that load where nothing can be compiled.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/file.h"
#include "support/environment.h"
#include "support/errors.h"
#include "support/folder.h"
#include "support/nvrtc.h"
#include "support/sim_plugin.h"
#include "support/tool.h"
#include "support/training_steps.h"
#include "target/cuda/driver/image_compiler.h"
#include "target/cuda/sim/sim_compiler.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier::target::cuda::driver {
namespace {

using test::kernel_texts;
using test::some_kernels;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

/// Images whose bytes say what they are of, one for each kernel.
std::vector<MadeImage> named_images(std::span<const KernelSource> sources, int arch, bool ptx) {
  std::vector<MadeImage> out;
  for (const KernelSource& s : sources)
    for (const std::string kind : {"sm", "compute"}) {
      if (kind == "compute" && !ptx) continue;
      const std::string name = kind + "_" + std::to_string(arch);
      out.push_back(
          {"code of " + s.name + " for " + name, name, kind == "sm" ? "cubin" : "ptx", "a test", {s.name}});
    }
  return out;
}

ImagesMade write_named(const std::filesystem::path& folder,
                       std::map<int, std::vector<KernelSource>> sources) {
  return write_images({.sources = std::move(sources), .folder = folder},
                      {.texts = kernel_texts(), .make = named_images});
}

/// Compiles everything, and counts.
class CountingCompiler final : public KernelCompiler {
 public:
  std::vector<KernelImage> compile(std::span<const KernelSource> sources, int) override {
    std::vector<KernelImage> out;
    for (const KernelSource& s : sources) {
      asked.push_back(s.name);
      out.push_back({.bytes = "new code", .kernels = {s.name}});
    }
    return out;
  }
  std::vector<std::string> asked;
};

/// What a machine with a driver alone has: NVRTC is nowhere.
std::shared_ptr<KernelCompiler> no_nvrtc() {
  static Libraries nothing(
      search_places({.cuda_path = "off", .virtual_env = "", .conda_prefix = "", .home = ""}));
  static ObjectCache none("");
  return std::make_shared<NvrtcCompiler>(nothing, kernel_texts(), none);
}

std::vector<std::string> bytes_of(const std::vector<KernelImage>& images) {
  std::vector<std::string> out;
  for (const KernelImage& i : images) out.push_back(i.bytes);
  return out;
}

TEST(KernelImages, KeysDifferWhereTheCodeMay) {
  const KernelSource source = some_kernels(1)[0];
  std::set<std::string> keys{
      image_key(gpu_images, kernel_texts(), source, "sm_90"),
      image_key(simulator_images, kernel_texts(), source, "sm_90"),
      image_key(gpu_images, kernel_texts(), source, "compute_90"),
      image_key(gpu_images, {port_text() + " ", kernel_texts().options}, source, "sm_90"),
      image_key(gpu_images, {port_text(), {"-fmad=true"}}, source, "sm_90"),
      image_key(gpu_images, kernel_texts(), some_kernels(2)[1], "sm_90")};
  EXPECT_EQ(keys.size(), 6u);
  EXPECT_TRUE(keys.contains(image_key(gpu_images, kernel_texts(), source, "sm_90")));
}

TEST(KernelImages, WhatADeviceRunsOfThem) {
  const std::set<std::string> archs{"sm_80", "sm_86", "sm_90", "sm_100", "compute_80", "compute_90"};
  EXPECT_THAT(runnable_archs(archs, 90), ElementsAre("sm_90", "compute_90", "compute_80"));
  EXPECT_THAT(runnable_archs(archs, 89), ElementsAre("sm_86", "sm_80", "compute_80"));
  EXPECT_THAT(runnable_archs(archs, 120), ElementsAre("compute_90", "compute_80"));
  EXPECT_THAT(runnable_archs(archs, 75), ElementsAre());
}

TEST(KernelImages, TheListReadsBackAndBadOnesAreNamed) {
  const ImageEntry entry{.file = "a.sm_90.cubin",
                         .arch = "sm_90",
                         .compiler = "nvrtc 13.0.88",
                         .espalier = "0.1.0",
                         .bytes = 12,
                         .checksum = "0123456789abcdef",
                         .kernels = {{"a", "0123456789abcdef0123456789abcdef"}}};
  const std::string text = image_list_text(std::vector{entry});
  EXPECT_EQ(parse_image_list(text, "list"), std::vector{entry});
  const auto problem = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    changed.replace(changed.find(from), from.size(), to);
    return test::error_of([&] { parse_image_list(changed, "list"); });
  };
  EXPECT_THAT(problem("images 1", "images 2"), HasSubstr("one of another version"));
  EXPECT_THAT(problem("a.sm_90.cubin", "../a.cubin"),
              HasSubstr("list, image 0: \"file\" is no name in the folder"));
  EXPECT_THAT(problem("\"sm_90\"", "\"mips\""), HasSubstr("\"arch\" is none"));
  EXPECT_THAT(problem("\"bytes\":12", "\"bytes\":-12"), HasSubstr("no size of an image"));
  EXPECT_THAT(problem("0123456789abcdef\"", "0123\""), HasSubstr("\"checksum\" is none"));
  EXPECT_THAT(problem("}\n]", "\n"), HasSubstr("no JSON object"));
}

TEST(KernelImages, AreTakenBeforeAnythingIsCompiled) {
  const test::TemporaryFolder folder;
  const std::vector<KernelSource> sources = some_kernels(3);
  const ImagesMade made =
      write_named(folder / "images", {{80, {sources[0]}}, {90, {sources[0], sources[1]}}});
  EXPECT_EQ(made.made, 5);  // PTX of the newest architecture only
  EXPECT_EQ(made.compiler, "a test");
  const auto rest = std::make_shared<CountingCompiler>();
  ImageCompiler compiler({.texts = kernel_texts(), .folders = {folder / "images"}, .otherwise = rest});
  EXPECT_THAT(bytes_of(compiler.compile(sources, 90)),
              ElementsAre("code of add_0 for sm_90", "code of add_1 for sm_90", "new code"));
  EXPECT_THAT(rest->asked, ElementsAre("add_2"));
  EXPECT_THAT(bytes_of(compiler.compile(std::span(sources).first(2), 103)),
              ElementsAre("code of add_0 for compute_90", "code of add_1 for compute_90"));
  EXPECT_THAT(bytes_of(compiler.compile(std::span(sources).first(1), 86)),
              ElementsAre("code of add_0 for sm_80"));
  for (const KernelImage& i : compiler.compile(std::span(sources).first(2), 90)) EXPECT_TRUE(i.prebuilt);

  // What is there stays, and is not made again.
  const ImagesMade more = write_named(folder / "images", {{90, sources}});
  EXPECT_EQ(more.made, 2);
  EXPECT_EQ(more.kept, 4);
  EXPECT_EQ(ImageFolder(folder / "images").images().size(), 7u);
}

TEST(KernelImages, OnesThatAreDamagedAreNamedAndCompiled) {
  const test::TemporaryFolder folder;
  const std::vector<KernelSource> sources = some_kernels(1);
  (void)write_named(folder.path(), {{90, sources}});
  const ImageFolder made(folder.path());
  for (const ImageEntry& image : made.images()) write_file(folder / image.file, "other bytes");
  std::vector<std::string> said;
  const auto rest = std::make_shared<CountingCompiler>();
  ImageCompiler::Parts parts{.texts = kernel_texts(),
                             .folders = {folder.path()},
                             .otherwise = rest,
                             .say = [&](const std::string& text) { said.push_back(text); }};
  ImageCompiler compiler(parts);
  EXPECT_THAT(bytes_of(compiler.compile(sources, 90)), ElementsAre("new code"));
  EXPECT_THAT(bytes_of(compiler.compile(sources, 90)), ElementsAre("new code"));
  EXPECT_THAT(said, ElementsAre(AllOf(HasSubstr("add_0.sm_90"), HasSubstr("is damaged")),
                                AllOf(HasSubstr("add_0.compute_90"), HasSubstr("is damaged"))));
  parts.otherwise = no_nvrtc();
  EXPECT_THAT(test::error_of([&] { ImageCompiler(parts).compile(sources, 90); }),
              HasSubstr("kernel add_0 for sm_90"));

  write_file(folder / "images.json", "{\"format\": \"photographs\"}");
  said.clear();
  ImageCompiler foreign(parts);
  EXPECT_THAT(said, ElementsAre(AllOf(HasSubstr("kernel images are not used"), HasSubstr("photographs"))));
  EXPECT_THAT(test::error_of([&] {
                write_named(folder.path(), {{90, sources}});
              }),
              HasSubstr("is no list of kernel images"));
  EXPECT_THAT(test::error_of([&] { foreign.compile(sources, 90); }), HasSubstr("photographs"));
}

TEST(KernelImages, AMissingKernelIsNamedWithWhatToDo) {
  const test::TemporaryFolder folder;
  const std::vector<KernelSource> sources = some_kernels(3);
  (void)write_named(folder.path(), {{90, {sources[0]}}});
  ImageCompiler compiler({.texts = kernel_texts(), .folders = {folder.path()}, .otherwise = no_nvrtc()});
  EXPECT_TRUE(compiler.compile({}, 90).empty());
  EXPECT_EQ(compiler.compile(std::span(sources).first(1), 90).size(), 1u);
  EXPECT_THAT(test::error_of([&] { compiler.compile(sources, 90); }),
              AllOf(HasSubstr("kernel add_1 and 1 more for sm_90"), HasSubstr("there is no NVRTC"),
                    HasSubstr(folder.path().string() + " (2 images, 2 for this device)"),
                    HasSubstr("espalier compile"), HasSubstr("ESPALIER_KERNEL_IMAGES")));
  EXPECT_THAT(test::error_of([&] { compiler.compile(std::span(sources).first(1), 80); }),
              HasSubstr("(2 images, 0 for this device)"));
}

TEST(KernelImages, WhatADriverTakes) {
  EXPECT_TRUE(driver_takes(12040, "nvrtc 12.8.93", "sm_90"));
  EXPECT_FALSE(driver_takes(12040, "nvrtc 12.8.93", "compute_90"));
  EXPECT_TRUE(driver_takes(12080, "nvrtc 12.8.93", "compute_90"));
  EXPECT_FALSE(driver_takes(12080, "nvrtc 13.0", "sm_90"));
  EXPECT_TRUE(driver_takes(13000, "nvrtc 12.8", "compute_90"));
  EXPECT_TRUE(driver_takes(0, "nvrtc 13.0", "sm_90"));
  for (const char* other : {"simulator", "nvrtc", "nvrtc x", "nvrtc 13"})
    EXPECT_TRUE(driver_takes(12040, other, "compute_90")) << other;
}

TEST(KernelImages, OnesTooNewForTheDriverAreCompiled) {
  const test::TemporaryFolder folder;
  const std::vector<KernelSource> sources = some_kernels(1);
  (void)write_images(
      {.sources = {{90, sources}}, .folder = folder.path()},
      {.texts = kernel_texts(), .make = [](std::span<const KernelSource> kernels, int arch, bool ptx) {
         std::vector<MadeImage> made = named_images(kernels, arch, ptx);
         for (MadeImage& image : made) image.compiler = "nvrtc 13.0";
         return made;
       }});
  const auto compile = [&](int driver_version, std::shared_ptr<KernelCompiler> otherwise, int capability) {
    const sim::SimDriver driver({.driver_version = driver_version});
    ImageCompiler::Parts parts{
        .texts = kernel_texts(), .folders = {folder.path()}, .otherwise = std::move(otherwise)};
    EXPECT_EQ(driver.api().DriverGetVersion(&parts.driver_version), cu_success);
    return bytes_of(ImageCompiler(parts).compile(sources, capability));
  };
  const auto rest = std::make_shared<CountingCompiler>();
  EXPECT_THAT(compile(13000, rest, 90), ElementsAre("code of add_0 for sm_90"));
  EXPECT_THAT(compile(13000, rest, 103), ElementsAre("code of add_0 for compute_90"));
  EXPECT_THAT(compile(12080, rest, 90), ElementsAre("new code"));
  EXPECT_THAT(
      test::error_of([&] { compile(12080, no_nvrtc(), 90); }),
      HasSubstr("(2 images, 0 for this device; others are of nvrtc 13.0, too new for the driver for CUDA "
                "12.8)"));
}

TEST(KernelImages, FoldersOfTheVariableComeFirst) {
  const test::Variable two("ESPALIER_KERNEL_IMAGES", "/no/such:/other/");
  const std::vector<std::filesystem::path> folders = image_folders();
  ASSERT_GE(folders.size(), 2u);
  EXPECT_EQ(folders[0], "/no/such");
}

/// All kernels of a step of training, for a device with both libraries.
std::vector<KernelSource> kernels_of_mlp(const test::Training& training) {
  return run::kernel_sources(*test::compiled_step(training, cuda_target(90)));
}

/// Where NVRTC was, images of a whole step; where it is not, they are all there is.
TEST(KernelImages, OfATrainingStepByNvrtcServeWithoutItHeavy) {
  if (!test::Nvrtc::find()) GTEST_SKIP() << test::Nvrtc::why_not();
  const test::TemporaryFolder folder;
  const std::vector<KernelSource> sources = kernels_of_mlp(test::mlp_training());
  ASSERT_GT(sources.size(), 3u);
  const ImagesMade made = write_images(
      {.sources = {{90, sources}}, .folder = folder.path()},
      {.texts = kernel_texts(), .make = [&](std::span<const KernelSource> kernels, int arch, bool ptx) {
         return nvrtc_images(test::machine_libraries(), kernel_texts(), kernels, arch, ptx);
       }});
  EXPECT_EQ(made.made, static_cast<int64_t>(2 * sources.size()));
  EXPECT_THAT(made.compiler, testing::StartsWith("nvrtc 1"));
  ImageCompiler compiler({.texts = kernel_texts(), .folders = {folder.path()}, .otherwise = no_nvrtc()});
  const std::vector<KernelImage> code = compiler.compile(sources, 90), ptx = compiler.compile(sources, 120);
  ASSERT_EQ(code.size(), sources.size());
  for (size_t i = 0; i < sources.size(); ++i) {
    EXPECT_EQ(code[i].bytes.substr(1, 3), "ELF");
    EXPECT_NE(code[i].bytes.find(sources[i].name), std::string::npos);
    EXPECT_THAT(ptx.at(i).bytes, HasSubstr(".entry " + sources[i].name));
  }
  EXPECT_THAT(
      test::error_of([&] { nvrtc_images(test::machine_libraries(), kernel_texts(), sources, 91, false); }),
      HasSubstr("--arch 91"));
}

TEST(KernelImages, ATrainingStepLoadsWhereNothingCompilesHeavy) {
  const test::TemporaryFolder folder;
  const test::Training training = test::mlp_training();
  const std::vector<KernelSource> sources = kernels_of_mlp(training);
  const auto device_with = [&](const std::filesystem::path& images) {
    return std::shared_ptr<Device>(
        sim::make_sim_device(sim::SimOptions{.compiler = std::make_shared<ImageCompiler>(ImageCompiler::Parts{
                                                 .device = simulator_images,
                                                 .texts = kernel_texts(),
                                                 .folders = {images},
                                                 .otherwise = std::make_shared<sim::NoSimCompiler>()})}));
  };
  const ImageMaker make{.device = simulator_images, .texts = kernel_texts(), .make = sim::sim_images};
  (void)write_images({.sources = {{90, sources}}, .folder = folder / "all"}, make);
  const auto device = device_with(folder / "all");
  const auto target = cuda_target(device);
  const auto program =
      std::make_shared<const run::DeviceProgram>(test::compiled_step(training, *target), device);
  EXPECT_EQ(program->load_report().compiled + program->load_report().found, 0);
  EXPECT_EQ(program->load_report().prebuilt, static_cast<int64_t>(sources.size()));
  run::DeviceExecutor executor(program);
  EXPECT_EQ(test::difference(training, test::train_on_device(training, executor, 3),
                             test::train_on_cpu(training, 3), 1e-5, 1e-4),
            "");

  (void)write_images({.sources = {{90, {sources.begin() + 1, sources.end()}}}, .folder = folder / "but_one"},
                     make);
  const auto lacks = device_with(folder / "but_one");
  EXPECT_THAT(
      test::error_of([&] { run::DeviceProgram(test::compiled_step(training, *cuda_target(lacks)), lacks); }),
      AllOf(HasSubstr("kernel " + sources[0].name + " for sm_90"), HasSubstr("espalier compile")));
}

}  // namespace
}  // namespace espalier::target::cuda::driver

namespace espalier::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// The command makes what a run of the same program needs.
TEST(CompileCommand, ItsImagesServeWhereNothingCompilesHeavy) {
  const TemporaryFolder folder;
  const std::string images = (folder / "images").string();
  const std::string network = " --net mlp-fraud --train --batch 4";
  const ToolCall made = call_tool("compile --json -o '" + images + "'" + network, on_sim_gpu());
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_GT(made.json()["kernels"].get<int>(), 3);
  EXPECT_EQ(made.json()["compiler"], "simulator");
  const std::string bench = "bench --seconds 0.01 --device cuda" + network;
  const std::string alone = on_sim_gpu("compiler=none");
  const ToolCall served = call_tool(bench, alone + " export ESPALIER_KERNEL_IMAGES='" + images + "';");
  EXPECT_EQ(served.code, 0) << served.err;
  const ToolCall without = call_tool(bench, alone);
  EXPECT_EQ(without.code, 3);
  EXPECT_THAT(without.err,
              AllOf(HasSubstr("kernel "), HasSubstr(" for sm_90"), HasSubstr("espalier compile")));
  EXPECT_EQ(call_tool("compile --arch 70 -o '" + images + "'" + network, on_sim_gpu()).code, 2);
}

TEST(CompileCommand, WithoutNvrtcItSaysWhereItWasLookedFor) {
  const TemporaryFolder folder;
  const ToolCall call = call_tool("compile --net linear -o '" + folder.path().string() + "'",
                                  "export ESPALIER_CUDA_PATH=off ESPALIER_PLUGIN_PATH='" +
                                      std::filesystem::path(ESPALIER_PLUGIN).parent_path().string() + "';");
  EXPECT_EQ(call.code, 3) << call.out;
  EXPECT_THAT(call.err, AllOf(HasSubstr("kernel images: cannot be made: there is no NVRTC"),
                              HasSubstr("ESPALIER_CUDA_PATH says off")));
  EXPECT_FALSE(std::filesystem::exists(folder / "images.json"));
}

}  // namespace
}  // namespace espalier::test
