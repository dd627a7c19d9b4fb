// gpu_check: what only a GPU can show, in three parts of 2, 4 and 7 minutes, most valuable checks first. Its results are for docs/gpu/.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "gpu_check/check.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/plugin.h"

namespace espalier::gpu_check {

namespace {

struct Part {
  const char* file;
  double budget;
  void (*run)(const Place&, Log&);
};
constexpr Part parts[] = {
    {"part1.txt", 120, check_kernels}, {"part2.txt", 240, check_models}, {"part3.txt", 420, check_speed}};

constexpr int failed = 1, bad_call = 2, no_gpu = 77;  // what CTest and automake take for "skipped"

int run(int argc, char** argv) {
  CLI::App app(
      "Checks Espalier on this machine's GPU. Exit code 0: all checks passed, 1: some failed, 77: there is "
      "no GPU.");
  int number = 1, device = 0;
  double budget = 0;
  std::string out, only;
  bool small = false;
  app.add_option("--part", number, "1: facts, ceilings and kernels; 2: networks against the CPU; 3: speed")
      ->check(CLI::Range(1, 3))
      ->required();
  app.add_option("--budget", budget, "seconds; no check begins after them (default: 120, 240, 420)")
      ->check(CLI::PositiveNumber);
  app.add_option("--out", out, "folder of the results: at most six files")->required();
  app.add_option("--only", only, "checks whose names contain this");
  app.add_option("--device", device, "number of the GPU")->check(CLI::NonNegativeNumber);
  app.add_flag("--small", small, "sizes that a simulated GPU can do");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : bad_call;
  }
  const Part& part = parts[number - 1];
  Place place{nullptr, nullptr, out, small};
  try {
    place.device = target::cuda::open_device(device);
    place.target = target::cuda::cuda_target(place.device);
  } catch (const UserError& e) {
    fmt::print("[SKIP] part {}: {}\n", number, e.what());
    return no_gpu;
  }
  Log log(out, part.file, budget > 0 ? budget : part.budget, only);
  part.run(place, log);
  fmt::print("part {}: {}\n", number, log.summary());
  return log.failed() > 0 ? failed : 0;
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
