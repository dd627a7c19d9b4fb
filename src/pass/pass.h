#pragma once
// A pass is a pure function on graphs. The runner does for every pass what all passes share.
#include <functional>
#include <iosfwd>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"
#include "kernel/target_spec.h"

namespace espalier::pass {

/// The precision of matrix work and of the activations between. Parameters, statistics, losses and optimiser state stay f32.
enum class Precision : uint8_t { f32, bf16, f16 };
Precision precision_of_name(std::string_view name);
std::string_view precision_name(Precision p);

/// What a pass may ask.
struct PassContext {
  const kernel::TargetSpec& spec;
  /// The value of a node whose operands are all constant (the reference interpreter).
  std::function<std::vector<ir::Array>(const ir::Node&, std::span<const ir::Array>)> evaluate;
  Precision precision = Precision::f32;
  bool exact = false;     ///< no rewrite or kernel that rounds otherwise than the graph says
  double loss_scale = 1;  ///< static loss scale for f16 training
  /// Hears what a user may want to know of what was not done: run_passes() itself, which gives it with its result. Empty: nobody does.
  std::function<void(std::string)> note{};
};

struct Pass {
  std::string_view name, doc;
  ir::Graph (*run)(const ir::Graph&, const PassContext&);
  ir::Level level;  ///< of the result
};

/// The passes from a traced graph to the fused level, in order, each with its reason.
std::span<const Pass> pipeline();
/// The pass of that name; UserError lists the names.
const Pass& find_pass(std::string_view name);

struct RunnerOptions {
  std::set<std::string, std::less<>> disabled;  ///< names; an unknown one is a UserError
  std::string stop_after;                       ///< name, or empty
  bool verify = true;
  std::function<void(std::string_view pass, const std::string& text)> print_changed;
};

struct PassReport {
  std::string_view name;
  int64_t ns = 0;
  bool changed = false, skipped = false;
};

struct PipelineResult {
  ir::Graph graph;
  std::vector<PassReport> reports;
  std::vector<std::string> notes;  ///< of the passes, one may stand several times
};

/// Run `passes` in order: skip if disabled, time, run, verify, print if changed, stop after.
PipelineResult run_passes(const ir::Graph& graph, std::span<const Pass> passes, const PassContext& context,
                          const RunnerOptions& options = {});

}  // namespace espalier::pass
