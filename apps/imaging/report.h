#pragma once
// What the demo found out, as one self-contained page and as lines of text.
#include <optional>
#include <string>
#include <vector>

namespace espalier::imaging {

struct TrainingPoint {
  double step = 0, loss = 0, dice = 0;
};

struct EngineFigures {
  std::string precision;
  int64_t nodes = 0, kernels = 0, norms = 0, folded = 0;
  int64_t planned_bytes = 0, peak_bytes = -1;  ///< peak -1: not measured
  double compile_seconds = 0;
  std::vector<std::optional<double>> dice;                  ///< per output; nothing where none is held out
  double p50 = 0, p90 = 0, p99 = 0, slices_per_second = 0;  ///< milliseconds
  int64_t runs = 0;
};

struct Picture {
  std::string caption, png;  ///< the bytes of a PNG file
};

struct Report {
  std::string title, caution, split, processor;
  std::vector<std::string> outputs;
  int64_t steps = 0, weights = 0, training_planned_bytes = 0;
  int64_t training_slices = 0, held_out_slices = 0;
  std::string precision;  ///< of the training
  double training_seconds = 0;
  bool resumed = false;  ///< training_seconds are of the last part alone
  std::vector<TrainingPoint> history;
  std::vector<EngineFigures> engines;
  std::vector<std::string> notes;  ///< what was not done, and why
  std::string saved;               ///< how the model came back from its file
  std::vector<Picture> pictures;
};

/// The rows of a CSV log with columns step, loss and Dice; UserError for another file.
std::vector<TrainingPoint> parse_history(const std::string& csv);
/// The page: no script, nothing from outside, light and dark.
std::string to_html(const Report& report);
/// Whether the engines are as good as they should be: the first output's Dice at least `expected_dice` (0: not known) in every
/// precision, and every output of a second precision within 0.01 of the first's. "" where there is nothing to say.
std::string check_text(const std::vector<EngineFigures>& engines, const std::vector<std::string>& outputs,
                       double expected_dice);
/// The results as lines for a terminal.
std::string to_summary(const Report& report);

}  // namespace espalier::imaging
