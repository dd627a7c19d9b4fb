#include "apps/imaging/training.h"

#include <algorithm>

#include "base/clock.h"
#include "nn/losses.h"
#include "run/targets.h"
#include "train/callbacks.h"

namespace espalier::imaging {

namespace {

constexpr double peak_rate = 2e-3;
constexpr int64_t warmup_steps = 20;
constexpr double norm_momentum = 0.03;
constexpr float head_bias = -2;  // most voxels belong to no output

double seconds_since(int64_t start) { return static_cast<double>(now_ns() - start) * 1e-9; }

/// The steps that this run did itself, without those before its checkpoint.
class StepCounter final : public train::Callback {
 public:
  void on_step(const train::Progress&) override { ++steps; }
  int64_t steps = 0;
};

}  // namespace

std::filesystem::path checkpoint_path(const std::filesystem::path& folder) {
  return folder / "checkpoint.safetensors";
}
std::filesystem::path log_path(const std::filesystem::path& folder) { return folder / "training.csv"; }

std::string fast_precision() {
  return run::default_target().spec().fast_dtype() == ir::Dtype::bf16 ? "bf16" : "f32";
}

nn::UNet make_network(int64_t outputs, uint64_t seed) {
  nn::Init init(seed);
  nn::UNet net(input_channels, outputs, init);
  std::fill_n(static_cast<float*>(net.head.bias.write()), outputs, head_bias);
  net.set_norm_momentum(norm_momentum);
  return net;
}

TrainingRun train_network(const Study& study, const TrainingOptions& options) {
  TrainingRun run;
  run.network = make_network(static_cast<int64_t>(study.outputs().size()), options.seed);
  const std::vector<Parameter> cells = parameters_of(run.network);
  nn::Adam adam(cells, {.rate = peak_rate});
  const auto samples = study.training();
  data::DataLoader loader(samples, {.batch_size = std::min(batch_size, samples->size()),
                                    .shuffle = true,
                                    .drop_last = true,
                                    .workers = 1,
                                    .prefetch = 3,
                                    .seed = options.seed});
  const int64_t per_epoch = loader.batches_per_epoch();
  const auto loss = [&net = run.network](const std::vector<Tensor>& batch) -> std::vector<Tensor> {
    const Tensor logits = net(batch[0], nn::Mode::train);
    const Tensor overlap = nn::dice_loss(logits, batch[1]);
    return {nn::bce_with_logits(logits, batch[1]) + overlap, 1 - overlap};
  };
  const std::vector<std::string> names{"loss", "Dice"};
  train::Trainer trainer(
      loss, cells, adam, loader,
      {.epochs = (options.steps + per_epoch - 1) / per_epoch,
       .steps = options.steps,
       .precision = options.precision,
       .rate = nn::cosine_rate(peak_rate, options.steps, std::min(warmup_steps, options.steps / 2)),
       .checkpoint = checkpoint_path(options.folder),
       .value_names = names});
  const auto counter = std::make_shared<StepCounter>();
  trainer.add(std::make_shared<train::ProgressBar>(names));
  trainer.add(std::make_shared<train::CsvLog>(log_path(options.folder), names));
  trainer.add(counter);
  int64_t start = now_ns();
  run.planned_bytes = trainer.step().planned_bytes();
  run.compile_seconds = seconds_since(start);
  start = now_ns();
  run.ending = trainer.fit();
  run.seconds = seconds_since(start);
  run.steps = trainer.steps_done();
  run.resumed_at = run.steps - counter->steps;
  return run;
}

}  // namespace espalier::imaging
