// espalier profile: where the time of a run goes.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/file.h"
#include "run/device_profiler.h"
#include "run/runner.h"
#include "tensor/precision_text.h"
#include "tool/choices.h"
#include "tool/commands.h"
#include "tool/json.h"
#include "tool/subject.h"

namespace espalier::tool {

namespace {

run::Profile profile_of(Subject& subject, int runs) {
  run::DeviceExecutor* const device = subject.step().runner().on_device();
  if (!device) return run::profile(subject.step().executor(), runs, run::ceilings());
  return run::profile(*device, runs, [&](run::DeviceExecutor&) {
    subject.feed();
    subject.step().runner().bring_cells();
  });
}

}  // namespace

void add_profile(CLI::App& app, int&) {
  struct Options {
    SubjectOptions subject;
    int runs = 10;
    size_t rows = 30;
    std::string trace;
    bool json = false;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand(
      "profile", "Time, bytes and fraction of the machine's ceiling of every step of a run");
  add_subject_options(*c, o->subject);
  add_choices_option(*c, o->subject.choices);
  add_gpu_switches(*c, o->subject.gpu);
  c->add_option("--runs", o->runs, "runs to take the median of")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  c->add_option("--rows", o->rows, "steps to print, longest first")->capture_default_str();
  c->add_option("--trace", o->trace, "write one run in Chrome's trace format (chrome://tracing, Perfetto)");
  c->add_flag("--json", o->json, "one JSON object");
  c->footer(
      "Examples:\n  espalier profile --net resnet18 --batch 16\n  espalier profile --net unet-r18 --train "
      "--trace step.json");
  c->callback([o] {
    Subject subject(o->subject);
    subject.say_why_no_graphs();
    const run::Profile p = profile_of(subject, o->runs);
    if (o->json) {
      nlohmann::json out = nlohmann::json::parse(run::json_text(p));
      out["batch"] = subject.batch();
      out["precision"] = subject.precision();
      out["tf32"] = subject.tf32();
      fmt::print("{}\n", json_line(out));
    } else {
      fmt::print("{}, batch {}, {}\n{}\n", subject.name(), subject.batch(),
                 precision_text(subject.precision(), subject.tf32()), run::table_text(p, o->rows));
    }
    if (!o->trace.empty()) write_file(o->trace, run::chrome_trace(p));
  });
}

}  // namespace espalier::tool
