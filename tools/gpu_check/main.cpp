// gpu_check: what only a GPU can show, in three parts of 2, 4 and 7 minutes, most valuable checks first. Its results are for docs/gpu/.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

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
  size_t from = 0;
  double budget = 0;
  std::string out, only, images, record, before;
  bool small = false;
  std::vector<std::string> arguments;  ///< all of them, as they were given
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

/// A new process in place of this one: what the driver has of this one ends with it.
void go_on(const Options& o, size_t from, const std::string& before) {
  std::vector<std::string> arguments = o.arguments;
  for (const std::string& more :
       {std::string("--from"), std::to_string(from), std::string("--before"), before})
    arguments.push_back(more);
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  for (int file = 3; file < 4096; ++file) fcntl(file, F_SETFD, FD_CLOEXEC);
  std::fflush(stdout);
  execv("/proc/self/exe", argv.data());
}

/// A machine without driver or GPU; not one whose GPU cannot be had, nor one without the plugin.
bool has_no_gpu() {
  return target::cuda::plugin().interface && target::cuda::report(target::cuda::Ask::devices).devices.empty();
}

int run_part(const Options& o) {
  const int number = o.part.at(0);
  const Part& part = parts[number - 1];
  CommittedLogs logs;
  if (!o.record.empty()) logs.record();
  LogOptions log_options{.folder = o.out,
                         .file = part.file,
                         .budget = o.budget > 0 ? o.budget : part.budget,
                         .only = o.only,
                         .from = o.from,
                         .before = o.before};
  if (o.record.empty())  // what is recorded is this process's
    log_options.go_on = [&](size_t from, const std::string& before) { go_on(o, from, before); };
  Place place{nullptr, nullptr, o.out, o.small, &logs, log_options.partial()};
  try {
    place.device = target::cuda::open_device(o.device);
    place.target = target::cuda::cuda_target(place.device);
  } catch (const UserError& e) {
    if (o.before.empty() && has_no_gpu()) {
      fmt::print("[SKIP] part {}: {}\n", number, e.what());
      return no_gpu;
    }
    fmt::print("[FAIL] part {}: {}\n", number, e.what());
    if (!o.before.empty()) {
      Log log(log_options);
      log.leave_out(part.checks(o.small), fmt::format("the device cannot be opened again: {}", e.what()));
      fmt::print("part {}: {}\n", number, log.summary());
    }
    return failed;
  }
  Log log(log_options);
  log.run(place, part.checks(o.small));
  fmt::print("part {}: {}\n", number, log.summary());
  if (!o.record.empty()) logs.write(o.record);
  return log.failed() > 0 ? failed : 0;
}

int run(int argc, char** argv) {
  CLI::App app(
      "Checks Espalier on this machine's GPU. Exit code 0: none failed (what was skipped or cut off counts "
      "as "
      "neither: the last line says how many), 1: one failed, or the GPU cannot be used, 77: there is no GPU, "
      "which is no pass, 2: a wrong call.");
  Options o;
  o.arguments.assign(argv, argv + argc);
  app.add_option("--part", o.part, "1: facts, ceilings and kernels; 2: networks against the CPU; 3: speed")
      ->delimiter(',')
      ->check(CLI::Range(1, 3))
      ->required();
  app.add_option("--budget", o.budget, "seconds, after which nothing is under way (default: 120, 240, 420)")
      ->check(CLI::PositiveNumber);
  CLI::Option* out = app.add_option("--out", o.out, "folder of the results: at most six files");
  app.add_option("--only", o.only, "checks whose names contain this; the part's file is added to");
  app.add_option("--from", o.from,
                 "the first check, by its number behind PASS or FAIL, as after a crash; the part's file is "
                 "added to")
      ->check(CLI::Range(1, 1 << 20))
      ->take_last();
  app.add_option("--before", o.before, "what the process before this one had counted")
      ->take_last()
      ->group("");
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
