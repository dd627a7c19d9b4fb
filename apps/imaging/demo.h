#pragma once
// The main job: train, optimise, run and save a segmentation network, and write a report.
#include <filesystem>
#include <optional>

namespace espalier::imaging {

struct DemoOptions {
  bool again = false;                         ///< forget the finished report and the checkpoint
  std::optional<std::filesystem::path> data;  ///< the user's own volumes; empty: the brain of mricron-data
  std::filesystem::path folder;               ///< where everything goes
  int64_t steps = 0;                          ///< 0: the recipe's
  uint64_t seed = 1;                          ///< of initial values, order and augmentation
  std::filesystem::path program;              ///< this tool, which a fresh process runs
};

/// One readable line per stage on stdout. Returns true when it finished, false when it was interrupted (a second call goes on).
/// UserError for bad input, a loss that is not finite and a full disk: nothing half-written stays.
bool run_demo(const DemoOptions& options);

}  // namespace espalier::imaging
