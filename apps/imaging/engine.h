#pragma once
// The trained network as an engine: frozen, optimised, compiled in one precision, and measured on the held-out slices.
#include <memory>
#include <string>
#include <vector>

#include "apps/imaging/score.h"
#include "apps/imaging/study.h"
#include "nn/models.h"
#include "run/program.h"

namespace espalier::imaging {

/// The network in evaluation mode with its weights as named constants: "image" f32 [batch, rows, columns, 3] -> "logits"
/// f32 [batch, rows, columns, outputs]; batch is a symbol.
ir::Graph freeze(const nn::UNet& network, data::Size2 size);

struct Engine {
  std::string precision;
  std::shared_ptr<const run::Program> program;
  double compile_seconds = 0;
  int64_t norms = 0, folded = 0;  ///< batch norms of the graph, and those folded into weights
  int64_t nodes = 0;              ///< ops of the graph before the passes
  int64_t resident_before = 0;    ///< bytes the process held before compiling
};

/// Compile for `batch` slices at once.
Engine compile_engine(const ir::Graph& graph, const std::string& precision, int64_t batch = 1);

struct Measurement {
  std::vector<std::optional<double>> dice;  ///< per output, over all held-out slices together
  std::vector<std::vector<float>> logits;   ///< of each slice, padding included
  std::vector<double> milliseconds;         ///< of every timed run, sorted
  double slices_per_second = 0;
  int64_t peak_bytes =
      -1;  ///< by which the process grew for this engine, by VmHWM; -1 where Linux does not tell
};

/// Run every held-out slice, one at a time, and again until there are at least `runs` timed runs (within about `seconds`).
Measurement measure(const Engine& engine, const data::SliceDataset& slices, int64_t runs, double seconds);

}  // namespace espalier::imaging
