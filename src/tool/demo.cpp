// espalier demo: the main job.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "apps/imaging/demo.h"
#include "apps/imaging/study.h"
#include "base/error.h"
#include "tool/commands.h"

namespace espalier::tool {

namespace fs = std::filesystem;

namespace {

struct Options {
  std::string data, out;
  bool again = false;
  int64_t steps = 0;
  uint64_t seed = 1;
};

void run_demo(const Options& o, int& exit_code) {
  imaging::DemoOptions demo{.again = o.again, .steps = o.steps, .seed = o.seed};
  demo.folder = o.out.empty() ? fs::path("demo") : fs::path(o.out);
  if (!o.data.empty()) {
    demo.data = imaging::plain_path(o.data);
    const fs::path name = demo.data->filename();
    if (o.out.empty() && name.empty())
      throw UserError({"--data", "has no name that a folder in demo/ could have", o.data,
                       "another folder, or --out DIR"});
    if (o.out.empty()) demo.folder /= name;
  }
  demo.program = fs::read_symlink("/proc/self/exe");
  if (!imaging::run_demo(demo)) exit_code = exit_interrupted;
}

}  // namespace

void add_demo(CLI::App& app, int& exit_code) {
  CLI::App* c = app.add_subcommand(
      "demo", "Train a U-Net on slices of a brain, optimise it, run it, and write a report");
  const auto o = std::make_shared<Options>();
  c->add_option("--data", o->data,
                "your own volumes: DIR/images/NAME.nii[.gz] with DIR/masks/NAME.nii[.gz] of integer labels")
      ->type_name("DIR");
  c->add_option("--out", o->out, "where everything is written (demo; with --data demo/NAME)")
      ->type_name("DIR");
  c->add_flag("--again", o->again, "train again, even if there is a finished report");
  c->add_option("--steps", o->steps, "training steps, for a quick look (default: the recipe's 638)")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000));
  c->add_option("--seed", o->seed, "seed of initial values, order and augmentation (default: 1)")
      ->type_name("N");
  c->footer(
      "Examples:\n  espalier demo\n  espalier demo --again\n  espalier demo --data scans/   # "
      "scans/images/a.nii.gz, scans/masks/a.nii.gz ...");
  c->callback([o, &exit_code] { run_demo(*o, exit_code); });
}

}  // namespace espalier::tool
