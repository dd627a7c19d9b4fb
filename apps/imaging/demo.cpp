#include "apps/imaging/demo.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/imaging/engine.h"
#include "apps/imaging/overlay.h"
#include "apps/imaging/report.h"
#include "apps/imaging/saved_model.h"
#include "apps/imaging/training.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "base/threads.h"
#include "data/png.h"
#include "target/cpu/cpu_features.h"

namespace espalier::imaging {

namespace fs = std::filesystem;

namespace {

constexpr int64_t most_pictures = 6, timed_runs = 108;
constexpr double timing_seconds = 12, quick_timing_seconds = 2;

void say(const std::string& line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

fs::path run_path(const fs::path& folder) { return folder / "run.json"; }
fs::path report_path(const fs::path& folder) { return folder / "report.html"; }
fs::path overlays_path(const fs::path& folder) { return folder / "overlays"; }

using Names = std::vector<std::string>;

/// What run.json says: which run the folder holds, its summary once it has finished, and the files that are the run's, by their
/// names in the folder.
struct Folder {
  std::string key, summary;
  std::optional<Names> files{};  ///< none: run.json has no such list
};

/// Is this the name of something in the folder itself?
bool is_inside(const fs::path& name) {
  return name.is_relative() && std::find(name.begin(), name.end(), "..") == name.end();
}

Folder read_folder(const fs::path& folder) {
  if (!fs::exists(run_path(folder))) return {};
  const nlohmann::json j = nlohmann::json::parse(read_file(run_path(folder)), nullptr, false);
  if (!j.is_object()) return {};
  const auto text = [&](const char* name) {
    const auto it = j.find(name);
    return it != j.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  Folder out{text("key"), text("summary")};
  const auto files = j.find("files");
  if (files == j.end() || !files->is_array()) return out;
  out.files.emplace();
  for (const nlohmann::json& name : *files)
    if (name.is_string() && is_inside(name.get<std::string>())) out.files->push_back(name);
  return out;
}

void write_folder(const fs::path& folder, const Folder& state) {
  nlohmann::json j{{"key", state.key}, {"summary", state.summary}};
  if (state.files) j["files"] = *state.files;
  write_file(run_path(folder), j.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

/// UserError where a file of `names` is in the folder and `before`, the run that it holds, has not written it.
void check_foreign(const fs::path& folder, const Names& names, const Folder& before) {
  const auto refuse = [&](const fs::path& path) {
    throw UserError({"file " + path.string(), "is in the way, and no run of the demo wrote it", "",
                     "a folder without it: move it, or take another with --out DIR"});
  };
  if (before.key.empty() && fs::exists(fs::symlink_status(run_path(folder)))) refuse(run_path(folder));
  if (!before.key.empty() && !before.files) return;  // a run that kept no list
  for (const std::string& name : names) {
    const bool own = !before.key.empty() &&
                     std::find(before.files->begin(), before.files->end(), name) != before.files->end();
    if (!own && fs::exists(fs::symlink_status(folder / name))) refuse(folder / name);
  }
}

/// Remove the files `names`, and the folders that they leave empty.
void clear_files(const fs::path& folder, const Names& names) {
  for (const std::string& name : names) {
    const fs::path path = folder / name, parent = path.parent_path();
    if (!fs::is_directory(fs::symlink_status(path))) fs::remove(path);
    if (fs::path(name).has_parent_path() && fs::is_directory(fs::symlink_status(parent)) &&
        fs::is_empty(parent))
      fs::remove(parent);
  }
}

/// Remove unfinished files of a process that was killed.
void clear_temporary(const fs::path& folder) {
  for (const fs::directory_entry& e : fs::directory_iterator(folder))
    if (is_temporary_file(e.path())) fs::remove(e.path());
}

int64_t count_weights(nn::UNet& network) {
  int64_t count = 0;
  for (const Parameter& p : parameters_of(network))
    if (p.trainable()) count += p.storage().size();
  return count;
}

std::string dice_of_outputs(const Report& r, const std::vector<std::optional<double>>& dice) {
  std::string out;
  for (size_t i = 0; i < dice.size(); ++i)
    out += fmt::format("{}{} {}", i ? ", " : "", r.outputs[i], dice_text(dice[i]));
  return out;
}

/// Slices evenly spread over the held-out ones.
std::vector<int64_t> chosen_slices(int64_t count) {
  const int64_t n = std::min(count, most_pictures);
  std::vector<int64_t> out;
  for (int64_t i = 0; i < n; ++i) out.push_back((2 * i + 1) * count / (2 * n));
  return out;
}

class Demo {
 public:
  explicit Demo(const DemoOptions& options)
      : options_(options),
        study_(load_study(options.data)),
        held_out_(study_.held_out()),
        training_{.folder = options.folder,
                  .steps = options.steps > 0 ? options.steps : recipe_steps,
                  .precision = fast_precision(),
                  .seed = options.seed} {
    report_.title = study_.title;
    report_.caution = study_.caution;
    report_.split = study_.task.split.text;
    report_.outputs = study_.outputs();
    report_.precision = training_.precision;
    report_.training_slices = static_cast<int64_t>(study_.task.split.train.size());
    report_.held_out_slices = held_out_->size();
    report_.processor = fmt::format("{}, {} threads", target::cpu::cpu_name(), pool_threads());
    key_ = fmt::format("recipe 2; seed {}; {} steps in {}; {}", training_.seed, training_.steps,
                       training_.precision, study_.key());
  }

  bool run() {
    say(fmt::format("data      {}: {} slices to train on, {} held out ({})", study_.title,
                    report_.training_slices, report_.held_out_slices, report_.split));
    make_folder(options_.folder);
    const Folder before = read_folder(options_.folder);
    if (!options_.again && before.key == key_ && !before.summary.empty() &&
        fs::exists(report_path(options_.folder))) {
      say(before.summary);
      say(fmt::format("report    {} (finished earlier; --again trains again)",
                      fs::absolute(report_path(options_.folder)).string()));
      return true;
    }
    const Names names = file_names();
    check_foreign(options_.folder, names, before);
    if (!before.key.empty()) {
      clear_temporary(options_.folder);
      if (options_.again || before.key != key_) clear_files(options_.folder, before.files.value_or(names));
    }
    write_folder(options_.folder, {key_, "", names});
    train::interrupt_on_signals();
    return train() && optimise_and_run() && save() && finish();
  }

 private:
  const std::string& volume_of(const data::SliceRef& slice) const {
    return study_.volumes().volumes()[static_cast<size_t>(slice.volume)].name;
  }

  fs::path overlay_path(const fs::path& folder, const data::SliceRef& slice) const {
    return overlays_path(folder) / fmt::format("{}_{:03}.png", volume_of(slice), slice.z);
  }

  /// All that a run writes beside run.json; first what a later call would go on from.
  Names file_names() const {
    const fs::path here;
    const SavedPaths saved(here);
    Names out{report_path(here),
              checkpoint_path(here),
              log_path(here),
              saved.model,
              saved.slices,
              saved.log,
              saved.outputs / "logits.npy",
              saved.outputs_fresh / "logits.npy"};
    for (const int64_t i : chosen_slices(held_out_->size()))
      out.push_back(overlay_path(here, held_out_->slices()[static_cast<size_t>(i)]));
    return out;
  }

  bool stopped(const char* stage) const {
    if (!train::interrupted()) return false;
    say(fmt::format("{:<10}interrupted; the same call goes on from {}", stage,
                    checkpoint_path(options_.folder).string()));
    return true;
  }

  bool train() {
    const data::Size2 size = study_.training()->sample_size();
    say(fmt::format("train     U-Net/ResNet-18, {} steps of {} views {}x{} in {}{}", training_.steps,
                    batch_size, size.height, size.width, training_.precision,
                    fs::exists(checkpoint_path(options_.folder)) ? ", going on from the checkpoint" : ""));
    run_ = train_network(study_, training_);
    if (run_.ending == train::Ending::interrupted) {
      say(fmt::format("train     interrupted after step {} of {}; the same call goes on from {}", run_.steps,
                      training_.steps, checkpoint_path(options_.folder).string()));
      return false;
    }
    report_.history = parse_history(read_file(log_path(options_.folder)));
    report_.steps = run_.steps;
    report_.weights = count_weights(run_.network);
    report_.training_planned_bytes = run_.planned_bytes;
    report_.training_seconds = run_.seconds;
    report_.resumed = run_.resumed_at > 0;
    const TrainingPoint last = report_.history.empty() ? TrainingPoint{} : report_.history.back();
    say(
        fmt::format("train     {} steps in {:.1f} s (compiled in {:.1f} s), loss {:.4f}, Dice {:.4f}; {} "
                    "planned before step one",
                    run_.steps, run_.seconds, run_.compile_seconds, last.loss, last.dice,
                    bytes_text(run_.planned_bytes)));
    return !stopped("train");
  }

  bool optimise_and_run() {
    graph_ = freeze(run_.network, held_out_->sample_size());
    std::vector<std::string> precisions{"f32"};
    if (fast_precision() == "bf16") precisions.emplace_back("bf16");
    else report_.notes.emplace_back("No engine in bf16: this processor has no bf16 arithmetic.");
    for (const std::string& precision : precisions) {
      const Engine e = compile_engine(graph_, precision);
      const auto kernels = static_cast<int64_t>(e.program->steps().size());
      say(fmt::format(
          "optimise  {:<4} {} of {} batch norms folded, {} ops -> {} kernels, {} planned; {:.1f} s",
          precision, e.folded, e.norms, e.nodes, kernels, bytes_text(e.program->planned_bytes()),
          e.compile_seconds));
      Measurement m =
          measure(e, *held_out_, timed_runs, options_.steps > 0 ? quick_timing_seconds : timing_seconds);
      EngineFigures f{.precision = precision,
                      .nodes = e.nodes,
                      .kernels = kernels,
                      .norms = e.norms,
                      .folded = e.folded,
                      .planned_bytes = e.program->planned_bytes(),
                      .peak_bytes = m.peak_bytes,
                      .compile_seconds = e.compile_seconds,
                      .dice = m.dice,
                      .p50 = percentile(m.milliseconds, 0.5),
                      .p90 = percentile(m.milliseconds, 0.9),
                      .p99 = percentile(m.milliseconds, 0.99),
                      .slices_per_second = m.slices_per_second,
                      .runs = static_cast<int64_t>(m.milliseconds.size())};
      say(fmt::format("run       {:<4} Dice {}; p50 {:.1f} ms, p99 {:.1f} ms, {:.1f} slices/s", precision,
                      dice_of_outputs(report_, f.dice), f.p50, f.p99, f.slices_per_second));
      report_.engines.push_back(std::move(f));
      if (report_.pictures.empty()) draw(m);
      if (stopped("run")) return false;
    }
    if (const std::string check = check_text(report_.engines, report_.outputs, study_.expected_dice);
        options_.steps == 0 && !check.empty()) {  // of the whole recipe
      say("check     " + check);
      report_.notes.push_back("Check: " + check + ".");
    }
    return true;
  }

  void draw(const Measurement& m) {
    make_folder(overlays_path(options_.folder));
    for (const int64_t i : chosen_slices(held_out_->size())) {
      const data::SliceRef ref = held_out_->slices()[static_cast<size_t>(i)];
      Picture p{fmt::format("{}, slice {}", volume_of(ref), ref.z),
                data::png_bytes(draw_overlay(*held_out_, i, m.logits[static_cast<size_t>(i)].data()))};
      write_file(overlay_path(options_.folder, ref), p.png);
      report_.pictures.push_back(std::move(p));
    }
  }

  bool save() {
    try {
      report_.saved = save_and_compare(graph_, *held_out_, chosen_slices(held_out_->size()), options_.folder,
                                       options_.program);
    } catch (const UserError&) {  // Ctrl-C ends the fresh process as well
      if (stopped("save")) return false;
      throw;
    }
    say("save      " + report_.saved);
    return !stopped("save");
  }

  bool finish() {
    write_file(report_path(options_.folder), to_html(report_));
    const std::string summary = to_summary(report_);
    write_folder(options_.folder, {key_, summary, file_names()});
    say(summary);
    say("report    " + fs::absolute(report_path(options_.folder)).string());
    return true;
  }

  DemoOptions options_;
  Study study_;
  std::shared_ptr<const data::SliceDataset> held_out_;
  TrainingOptions training_;
  std::string key_;
  TrainingRun run_;
  ir::Graph graph_;
  Report report_;
};

}  // namespace

bool run_demo(const DemoOptions& options) { return Demo(options).run(); }

}  // namespace espalier::imaging
