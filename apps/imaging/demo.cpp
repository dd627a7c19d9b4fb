#include "apps/imaging/demo.h"

#include <fmt/format.h>

#include "apps/imaging/engine.h"
#include "apps/imaging/training.h"
#include "base/text.h"

namespace espalier::imaging {

namespace fs = std::filesystem;

namespace {

void say(const std::string& line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

}  // namespace

bool run_demo(const DemoOptions& options) {
  const Study study = load_study(options.data);
  say(fmt::format("data      {}: {}", study.title, study.task.split.text));
  fs::create_directories(options.folder);
  train::interrupt_on_signals();
  const TrainingOptions training{.folder = options.folder, .steps = options.steps > 0 ? options.steps : recipe_steps,
                                 .precision = fast_precision()};
  const TrainingRun run = train_network(study, training);
  if (run.ending == train::Ending::interrupted) {
    say(fmt::format("train     interrupted after step {} of {}", run.steps, training.steps));
    return false;
  }
  say(fmt::format("train     {} steps in {}: {:.1f} s (compiled in {:.1f} s), {} planned", run.steps, training.precision, run.seconds,
                  run.compile_seconds, bytes_text(run.planned_bytes)));
  const auto held_out = study.held_out();
  const ir::Graph graph = freeze(run.network, held_out->sample_size());
  for (const char* precision : {"f32", "bf16"}) {
    const Engine e = compile_engine(graph, precision);
    say(fmt::format("optimise  {}: {} ops -> {} kernels, {} of {} batch norms folded, {} planned, {:.1f} s", precision, e.nodes,
                    e.program->steps().size(), e.folded, e.norms, bytes_text(e.program->planned_bytes()), e.compile_seconds));
    const Measurement m = measure(e, *held_out, 90, 8);
    std::string dice;
    for (size_t i = 0; i < m.dice.size(); ++i) dice += fmt::format(" {} {:.4f}", study.outputs()[i], m.dice[i]);
    say(fmt::format("run       {}: Dice{}; p50 {:.1f} ms, p90 {:.1f}, p99 {:.1f}; {:.1f} slices/s; peak {}", precision, dice,
                    percentile(m.milliseconds, 0.5), percentile(m.milliseconds, 0.9), percentile(m.milliseconds, 0.99),
                    m.slices_per_second, bytes_text(m.peak_bytes)));
  }
  return true;
}

}  // namespace espalier::imaging
