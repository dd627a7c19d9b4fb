// espalier tune: which of a GPU's libraries' ways are the fastest for a program.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/file.h"
#include "run/runner.h"
#include "run/tuner.h"
#include "tensor/precision_text.h"
#include "tool/commands.h"
#include "tool/json.h"
#include "tool/subject.h"

namespace espalier::tool {

namespace {

nlohmann::json json_of(const run::TunedRecord& r) {
  nlohmann::json ways = nlohmann::json::array();
  for (const run::TunedWay& w : r.ways)
    ways.push_back({{"name", w.name}, {"us", w.us}, {"dropped", w.dropped}});
  return {
      {"record", r.record}, {"library", r.library}, {"times", r.times}, {"ways", ways}, {"chosen", r.chosen}};
}

}  // namespace

void add_tune(CLI::App& app, int&) {
  struct Options {
    SubjectOptions subject;
    run::TuneOptions tune;
    std::string output;
    bool json = false;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand(
      "tune", "Time the ways of a GPU's libraries for every product and convolution of a program");
  add_subject_options(*c, o->subject);
  c->add_option("--top", o->tune.top, "ways of each record, the library's best guesses")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  c->add_option("--runs", o->tune.runs, "of each way, to take the median of")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  c->add_option(
      "-o,--output", o->output,
      "write the choices to this file, as text: bench, profile, train and run take it as --choices");
  c->add_flag("--json", o->json, "one JSON object");
  c->footer(
      "Example:\n  espalier tune --net resnet50 --batch 32 --precision bf16 --device cuda -o "
      "resnet50.txt");
  c->callback([o] {
    if (!o->output.empty()) check_writable(o->output);
    Subject subject(o->subject);
    run::DeviceExecutor* const device = subject.step().runner().on_device();
    if (!device)
      throw UserError(
          {"--device", "has no libraries to choose ways of", o->subject.device, "a GPU: cuda, cuda:1"});
    const run::TuneReport report = run::tune(device->program(), device->device_program().device(), o->tune);
    if (o->json) {
      nlohmann::json records = nlohmann::json::array();
      for (const run::TunedRecord& r : report.records) records.push_back(json_of(r));
      fmt::print("{}\n", json_line({{"device", report.choices.device},
                                    {"records", records},
                                    {"first_us", report.first_us},
                                    {"chosen_us", report.chosen_us}}));
    } else {
      fmt::print("{}, batch {}, {}\n{}", subject.name(), subject.batch(),
                 precision_text(subject.precision(), subject.tf32()), run::text(report));
    }
    if (!o->output.empty()) write_file(o->output, text(report.choices));
  });
}

}  // namespace espalier::tool
