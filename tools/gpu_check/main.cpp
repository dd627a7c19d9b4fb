// gpu_check: what only a GPU can show, in three parts of 2, 4 and 7 minutes, most valuable checks first. Its results are for docs/gpu/.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <set>

#include "base/text.h"
#include "gpu_check/check.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/plugin.h"

namespace espalier::gpu_check {

namespace {

struct Part {
  const char* file;
  double budget;
  std::vector<Check> (*checks)(bool small);
};
constexpr Part parts[] = {
    {"part1.txt", 120, kernel_checks}, {"part2.txt", 240, model_checks}, {"part3.txt", 420, speed_checks}};

constexpr int failed = 1, bad_call = 2, no_gpu = 77;  // what CTest and automake take for "skipped"

struct Options {
  std::vector<int> part;
  int device = 0, arch = 90;
  double budget = 0;
  std::string out, only, images, record;
  bool small = false;
};

/// Kernels of what the checks load, on a machine with a driver alone or with cuBLASLt and cuDNN beside it.
int make_images(const Options& o) {
  namespace cuda = target::cuda;
  const std::string why = "it is not there";
  cuda::ImageRequest request{.sources = {}, .folder = o.images};
  std::set<std::string> names;
  std::vector<target::KernelSource>& sources = request.sources[o.arch];
  for (const int number : o.part)
    for (const Check& c : parts[number - 1].checks(o.small))
      if (c.programs && c.name.find(o.only) != std::string::npos)
        for (const Wanted& wanted : c.programs())
          for (const cuda::MissingLibraries& missing :
               {cuda::MissingLibraries{}, cuda::MissingLibraries{.cublaslt = why, .cudnn = why}})
            for (target::KernelSource& s :
                 run::kernel_sources(*planned(wanted, cuda::cuda_target(o.arch, missing))))
              if (names.insert(s.name).second) sources.push_back(std::move(s));
  fmt::print("{} kernels for sm_{}, with and without cuBLASLt and cuDNN\n", sources.size(), o.arch);
  std::fflush(stdout);
  const cuda::ImagesMade made = cuda::make_images(request);
  fmt::print("{} images made by {}, {} were there, {} in {}\n", made.made, made.compiler, made.kept,
             bytes_text(made.bytes), o.images);
  return 0;
}

int run_part(const Options& o) {
  const int number = o.part.at(0);
  const Part& part = parts[number - 1];
  CommittedLogs logs;
  if (!o.record.empty()) logs.record();
  Place place{nullptr, nullptr, o.out, o.small, &logs};
  try {
    place.device = target::cuda::open_device(o.device);
    place.target = target::cuda::cuda_target(place.device);
  } catch (const UserError& e) {
    fmt::print("[SKIP] part {}: {}\n", number, e.what());
    return no_gpu;
  }
  Log log(o.out, part.file, o.budget > 0 ? o.budget : part.budget, o.only);
  log.run(place, part.checks(o.small));
  fmt::print("part {}: {}\n", number, log.summary());
  if (!o.record.empty()) logs.write(o.record);
  return log.failed() > 0 ? failed : 0;
}

int run(int argc, char** argv) {
  CLI::App app(
      "Checks Espalier on this machine's GPU. Exit code 0: all checks passed, 1: some failed, 77: there is "
      "no GPU.");
  Options o;
  app.add_option("--part", o.part, "1: facts, ceilings and kernels; 2: networks against the CPU; 3: speed")
      ->delimiter(',')
      ->check(CLI::Range(1, 3))
      ->required();
  app.add_option("--budget", o.budget, "seconds, after which nothing is under way (default: 120, 240, 420)")
      ->check(CLI::PositiveNumber);
  CLI::Option* out = app.add_option("--out", o.out, "folder of the results: at most six files");
  app.add_option("--only", o.only, "checks whose names contain this");
  app.add_option("--device", o.device, "number of the GPU")->check(CLI::NonNegativeNumber);
  app.add_flag("--small", o.small, "sizes that a simulated GPU can do");
  app.add_option("--record", o.record, "write the logs that others are compared with (docs/gpu) anew");
  CLI::Option* images =
      app.add_option("--images", o.images,
                     "check nothing: compile the kernels of these checks into this folder, without a GPU");
  app.add_option("--arch", o.arch, "of the images")->check(CLI::Range(80, 999));
  try {
    app.parse(argc, argv);
    if (!*images && !*out) throw CLI::RequiredError("--out");
    if (!*images && o.part.size() != 1) throw CLI::ValidationError("--part", "one part at a time");
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : bad_call;
  }
  return *images ? make_images(o) : run_part(o);
}

}  // namespace

}  // namespace espalier::gpu_check

int main(int argc, char** argv) {
  try {
    return espalier::gpu_check::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "gpu_check: {}\n", e.what());
    return 2;
  }
}
