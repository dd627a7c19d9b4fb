#pragma once
// Training by the recipe (bench/pytorch/brain_recipe.md): U-Net, BCE + Dice, Adam, cosine rate with warm-up.
#include "apps/imaging/study.h"
#include "nn/models.h"
#include "train/trainer.h"

namespace espalier::imaging {

inline constexpr int64_t input_channels = 3, batch_size = 4, recipe_steps = 638;

/// A U-Net for these outputs with the recipe's initial values.
nn::UNet make_network(int64_t outputs, uint64_t seed);

struct TrainingOptions {
  std::filesystem::path folder;  ///< gets checkpoint.safetensors and training.csv
  int64_t steps = recipe_steps;
  std::string precision = "f32";
  uint64_t seed = 1;  ///< of initial values, order and augmentation
};

struct TrainingRun {
  nn::UNet network;
  train::Ending ending = train::Ending::finished;
  int64_t steps = 0, resumed_at = 0, planned_bytes = 0;
  double seconds = 0, compile_seconds = 0;
};

std::filesystem::path checkpoint_path(const std::filesystem::path& folder);
std::filesystem::path log_path(const std::filesystem::path& folder);

/// The precision that this machine trains fastest in.
std::string fast_precision();

/// Train to the end, or go on from the checkpoint in the folder; Ctrl-C leaves one (train/trainer.h says what else can happen).
TrainingRun train_network(const Study& study, const TrainingOptions& options);

}  // namespace espalier::imaging
