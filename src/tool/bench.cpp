// espalier bench: how long a run takes, as one JSON object or one line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/clock.h"
#include "base/text.h"
#include "base/threads.h"
#include "run/ceilings.h"
#include "run/profiler.h"
#include "run/program.h"
#include "run/runner.h"
#include "tensor/precision_text.h"
#include "tool/choices.h"
#include "tool/commands.h"
#include "tool/json.h"
#include "tool/subject.h"

namespace espalier::tool {

namespace {

double percentile(const std::vector<double>& sorted, double p) {
  return sorted[std::min(sorted.size() - 1, static_cast<size_t>(p * static_cast<double>(sorted.size())))];
}

/// The process's largest resident set so far, in bytes.
int64_t peak_resident() {
  std::FILE* f = std::fopen("/proc/self/status", "r");
  char line[256];
  long long kib = 0;
  while (f && std::fgets(line, sizeof line, f))
    if (std::sscanf(line, "VmHWM: %lld", &kib) == 1) break;
  if (f) std::fclose(f);
  return kib * 1024;
}

struct Timing {
  double first_ms = 0;
  std::vector<double> ms;  ///< sorted
};

Timing measure(Subject& subject, double seconds) {
  Timing t;
  const auto once = [&] {
    const int64_t start = now_ns();
    subject.run();
    return static_cast<double>(now_ns() - start) * 1e-6;
  };
  t.first_ms = once();
  for (int i = 0; i < 2; ++i) (void)once();
  const int64_t end = now_ns() + static_cast<int64_t>(seconds * 1e9);
  while (now_ns() < end || t.ms.size() < 5) t.ms.push_back(once());
  std::sort(t.ms.begin(), t.ms.end());
  return t;
}

void run_bench(const SubjectOptions& options, double seconds, bool json) {
  if (!(seconds > 0 && seconds <= 3600))
    throw UserError({"--seconds", "out of range", number_text(seconds), "0 to 3600"});
  Subject subject(options);
  subject.say_why_no_graphs();
  const Timing t = measure(subject, seconds);
  const int64_t peak = peak_resident();  // before the ceilings are measured, on large buffers of their own
  const run::Program& program = subject.step().program();
  run::DeviceExecutor* const gpu = subject.step().runner().on_device();
  const run::Ceilings ceilings =
      gpu ? run::device_ceilings(gpu->device_program().device().info()) : run::ceilings();
  run::Ceilings of_program = ceilings;
  if (gpu && subject.tf32()) of_program.f32_flops = ceilings.tf32_flops;
  const double median = percentile(t.ms, 0.5);
  // of kernels that compute nothing there is no fraction
  const bool computes = program.target() != "null" && ceilings.f32_flops > 0;
  const double fraction = run::matrix_limit_ns(program, of_program) * 1e-6 / median;
  if (!json) {
    fmt::print(
        "{}, batch {}, {}, {} threads: median {:.4f} ms (p10 {:.4f}, p90 {:.4f}), first {:.1f} ms, planned "
        "{}{}\n{}\n",
        subject.name(), subject.batch(), precision_text(subject.precision(), subject.tf32()), pool_threads(),
        median, percentile(t.ms, 0.1), percentile(t.ms, 0.9), t.first_ms,
        bytes_text(subject.step().planned_bytes()),
        computes ? fmt::format(", {:.1f}% of the ceiling", 100 * fraction) : "", ceilings.text());
    return;
  }
  const nlohmann::json out{{"case", subject.name()},
                           {"what", options.train ? "train" : "infer"},
                           {"batch", subject.batch()},
                           {"precision", subject.precision()},
                           {"tf32", subject.tf32()},
                           {"threads", pool_threads()},
                           {"median_ms", median},
                           {"p10_ms", percentile(t.ms, 0.1)},
                           {"p90_ms", percentile(t.ms, 0.9)},
                           {"first_ms", t.first_ms},
                           {"compile_ms", subject.compile_seconds() * 1e3},
                           {"runs", t.ms.size()},
                           {"peak_bytes", peak},
                           {"planned_bytes", subject.step().planned_bytes()},
                           {"gflop", program.flops() * 1e-9},
                           {"fraction_of_ceiling", computes ? nlohmann::json(fraction) : nlohmann::json()},
                           {"cpu", ceilings.machine},
                           {"ceiling_f32_gflops", ceilings.f32_flops * 1e-9},
                           {"ceiling_bf16_gflops", ceilings.bf16_flops * 1e-9},
                           {"ceiling_read_gbps", ceilings.read_bytes * 1e-9}};
  fmt::print("{}\n", json_line(out));
}

}  // namespace

void add_bench(CLI::App& app, int&) {
  struct Options {
    SubjectOptions subject;
    double seconds = 3;
    bool json = false;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand(
      "bench", "Time runs of a model or network on random data; a training step copies its batch in");
  add_subject_options(*c, o->subject);
  add_choices_option(*c, o->subject.choices);
  add_gpu_switches(*c, o->subject.gpu);
  c->add_option("--seconds", o->seconds, "how long to measure")->capture_default_str();
  c->add_flag("--json", o->json, "one JSON object");
  c->footer(
      "Examples:\n  espalier bench --net resnet18 --batch 16 --precision bf16 --threads 2 --seconds 3 "
      "--json\n"
      "  espalier bench --net unet-r18 --train --batch 16\n  espalier bench model.onnx --batch 1");
  c->callback([o] { run_bench(o->subject, o->seconds, o->json); });
}

}  // namespace espalier::tool
