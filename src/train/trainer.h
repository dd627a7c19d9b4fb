#pragma once
// Trainer: a loop over batches around one compiled step, with callbacks, checkpoints and exact resumption. Killed at any
// instant, it goes on from its last checkpoint to the same bits as an undisturbed run. On a GPU the next step is begun before the last
// one is waited for.
#include <deque>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <typeinfo>

#include "data/loader.h"
#include "nn/optim.h"
#include "tensor/compile.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"

namespace espalier::train {

/// What callbacks see after each step, in order.
struct Progress {
  int64_t step = 0, steps = 0;                ///< of all steps, counted from 1
  int64_t epoch = 0, batch = 0, batches = 0;  ///< epoch and its batch, counted from 0, of `batches` per epoch
  std::vector<double> values;                 ///< the loss, then the metrics
  std::vector<double> held_out{};             ///< of TrainerOptions::held_out, at the end of an epoch
  double rate = 0;                            ///< learning rate of this step
  double loss_scale = 1;                      ///< of this step
  bool skipped = false;  ///< its gradients overflowed f16: no parameter changed, and the loss scale is halved
  double seconds = 0;    ///< since training began, earlier parts of a resumed run not counted
  bool end_of_epoch = false;
};

/// On a GPU the next step may be under way when on_step() is called, but not at the end of an epoch: what it finds in parameters there is
/// what that step leaves, and what it changes acts from the step after that one (TrainerOptions::one_by_one).
class ESPALIER_API Callback {
 public:
  virtual ~Callback() = default;
  /// Once per fit(), after a checkpoint was read and before the first step: to open what is written later.
  virtual void on_begin() {}
  /// Something that people should know and that is no error.
  virtual void on_note(const std::string&) {}
  /// A note of its own, once: asked after each epoch and at the end, and passed to every callback's on_note().
  virtual std::string take_note() { return ""; }
  /// How many held-out values it cannot do without: fit() refuses to begin where the trainer gives fewer.
  virtual size_t held_out_values() const { return 0; }
  /// What it, on_epoch() or TrainerOptions::held_out throws at the end of an epoch leaves fit() after the epoch's checkpoint is
  /// written.
  virtual void on_step(const Progress&) {}
  /// After the last batch of an epoch; true ends the training.
  virtual bool on_epoch(const Progress&) { return false; }
  /// Did this callback end the training? Then fit(), called once more or resumed from a checkpoint, trains no further.
  virtual bool has_ended() const { return false; }
  virtual void on_end(const Progress&) {}
  /// Under which its state stands in a checkpoint (the second of a name is "name 2"): of the class, where it says no other.
  virtual std::string name() const { return typeid(*this).name(); }
  /// What the callback must keep in a checkpoint ("" for nothing), and its way back, which is called only when the checkpoint
  /// holds a state of its name. UserError for a text that state() does not give; then nothing has changed.
  virtual std::string state() const { return ""; }
  virtual void restore(const std::string&) {}
};

struct TrainerOptions {
  int64_t epochs = 1;
  int64_t steps = 0;  ///< end after this many in all, in mid-epoch too; 0: when the epochs are done
  std::string precision = "f32";
  /// As in CompileOptions. A checkpoint is of one precision and one permission: a training that has another is refused, wherever it runs.
  bool allow_tf32 = false;
  Device device{};     ///< where the step runs
  bool sync = false;   ///< of a GPU, as in CompileOptions
  bool graphs = true;  ///< of a GPU, as in CompileOptions
  /// On a GPU: wait for each step before the next one is begun, as `sync` does, too. The bits are the same.
  bool one_by_one = false;
  double clip_norm = 0;  ///< limit of the norm of all gradients together (nn::clip_by_norm); 0: none
  /// f16 alone: gradients are computed this many times as large. 0: the largest that fits, found while it trains (nn::LossScale).
  double loss_scale = 0;
  nn::Schedule rate{};  ///< by step; empty: the optimiser's own rate
  std::filesystem::path
      checkpoint{};  ///< empty: none; else written every `checkpoint_every` epochs and at the end
  int64_t checkpoint_every = 1;
  bool resume = true;  ///< go on from `checkpoint` when the file exists
  /// Called after each epoch, before the callbacks (mean_over() of a loader, say); an epoch that `steps` cuts short has none. Called
  /// before the first step as well where a callback cannot do without its values.
  EvaluateFn held_out{};
  std::vector<std::string> value_names{"loss"};
  std::map<size_t, std::pair<int64_t, int64_t>> argument_ranges{};  ///< as in CompileOptions
  /// What else the training was started with, as text by name ("data", "folder"): kept in checkpoints, and where a resumed training
  /// has another a note says so. Clipping, loss scale and the schedule's rate are compared without being named here.
  std::map<std::string, std::string> settings{};
};

enum class Ending : uint8_t { finished, stopped_early, interrupted };

class ESPALIER_API Trainer {
 public:
  /// `cells` are all parameters of the model, running statistics included; optimiser and loader must outlive the trainer.
  /// UserError for negative epochs, steps or clip_norm, a loss scale in other precisions than f16, and, where there is a checkpoint,
  /// for cells without a name or of equal names.
  Trainer(LossFn loss, std::vector<Parameter> cells, nn::Optimiser& optimiser, data::DataLoader& loader,
          TrainerOptions options);
  Trainer(const Trainer&) = delete;  // its step refers to it
  Trainer& operator=(const Trainer&) = delete;
  /// Callbacks are called in the order in which they were added.
  void add(std::shared_ptr<Callback> callback) { callbacks_.push_back(std::move(callback)); }
  /// Train. UserError when the loss, or the gradients at the smallest loss scale, are not finite, or where an epoch or the training
  /// ends or a checkpoint is due, a cell (names the step; the last checkpoint stays), and whatever the loader throws. WriteError
  /// before the first step where the checkpoint cannot be written. An epoch's last batch that is not full has a step of its own.
  /// SIGINT (once interrupt_on_signals() was called) ends it after the steps in progress, with a checkpoint. A training that is over
  /// (all its steps done, or ended by a callback that still says so) stays as it is; one that was interrupted goes on. What is thrown for
  /// a step leaves when the steps before it were seen by the callbacks, and nothing is under way any more; a device that is lost may
  /// not tell in which of two steps, and the error then names both.
  Ending fit();
  /// The compiled step of a full batch (compiled now if need be): its plan, its memory.
  Step& step();
  /// Of the whole training, resumed parts included.
  int64_t total_steps() const;
  /// Of these the callbacks have seen.
  int64_t steps_done() const { return done_; }
  /// Those among them whose gradients overflowed f16, which changed nothing.
  int64_t steps_skipped() const { return skipped_; }

 private:
  std::vector<NamedParameter> checkpoint_cells();
  void check_options() const;
  void check_names();
  /// Each callback with the name of its state in a checkpoint.
  std::vector<std::pair<std::string, Callback*>> named_callbacks() const;
  void save();
  /// Go on from the checkpoint, if there is one; its facts.
  std::map<std::string, std::string> try_resume();
  /// All that can fail before the first step does so here. Notes say in what the checkpoint of these facts was made otherwise.
  void begin(const std::map<std::string, std::string>& facts);
  /// Batches that the loader gave before the first step, or for steps that failed.
  int64_t batches_ahead(const data::LoaderState& state, int64_t step) const;
  /// UserError for a step that is negative, beyond the training or elsewhere than the loader.
  void check_place(const std::map<std::string, std::string>& facts, int64_t step,
                   const data::LoaderState& state) const;
  /// What a training may be resumed with otherwise, as text by name.
  std::map<std::string, std::string> settings() const;
  void note_settings(const std::map<std::string, std::string>& facts);
  void restore(const std::map<std::string, std::string>& facts);
  /// Samples in a full batch, and in an epoch's last one.
  int64_t full_batch() const;
  int64_t last_batch() const;
  Step& step_of(int64_t batch);
  /// What decides the bits of a step beside the checkpoint: the processor's level and the compiled steps.
  std::string plan();
  /// A step that was begun, and what callbacks will see of it: its values are there when it is over.
  struct Begun {
    Step* step = nullptr;
    int64_t run = 0;
    Progress progress{};
    int64_t skipped = 0;  ///< of all steps, this one included, once it is over
    bool over = false;
  };
  /// What the step behind those that are begun threw, and the loader's place before it.
  struct Failed {
    std::exception_ptr error;
    data::LoaderState before;
    bool may_have_run =
        false;  ///< its parameters may be written: it is told, whatever else ends the training
  };
  /// Begin as many steps as may be under way: one at least. What the first of them throws.
  void begin_steps();
  void begin_step();
  /// Wait for a step and read its values.
  void finish(Begun& begun);
  /// Of the oldest step that is begun, once it is over: it is done. Where it fails, those behind it are forgotten.
  Progress finish_oldest();
  /// Nothing is under way any more; those that went well are kept for the callbacks of the next fit().
  void drain();
  /// As if the step that could not be begun had not been tried.
  void forget_failed();
  void check_finite(const Progress& p) const;
  /// Are all cells finite that a step changes?
  void check_cells(const Progress& p);
  /// Does `held_out` give what the callbacks need?
  void check_held_out() const;
  void pass_notes();
  /// What an epoch's end calls; `stop` becomes true where a callback ends the training. The first thing that was thrown.
  std::exception_ptr end_epoch(Progress& p, bool& stop);
  /// Callbacks, checks and the checkpoint behind a step; how the training ends here, if it does.
  std::optional<Ending> after_step(Progress& p);
  std::string kept() const;
  /// Step by step from where it stands; times are counted from `start`.
  Ending train(int64_t start, Progress& last);

  LossFn loss_;
  std::vector<Parameter> cells_;
  nn::Optimiser& optimiser_;
  data::DataLoader& loader_;
  TrainerOptions options_;
  std::optional<nn::LossScale> scale_;  ///< where the step finds it itself
  Compiled compiled_;
  std::vector<std::shared_ptr<Callback>> callbacks_;
  int64_t done_ = 0, skipped_ = 0;
  std::deque<Begun> begun_;  ///< behind those that are done, oldest first
  std::optional<Failed> failed_;
  std::set<std::string> open_cells_;  ///< not trainable, and not finite before training: a mask, say
};

/// From now on SIGINT and SIGTERM ask running trainers to stop; a second signal ends the process. To be called on the thread that
/// computes later: its handlers run on a stack of their own from now on (a trainer sees to that for the thread of its fit()).
ESPALIER_API void interrupt_on_signals();
/// Did a signal ask to stop?
ESPALIER_API bool interrupted();
/// Forget (or, for tests, pretend) an interruption.
ESPALIER_API void set_interrupted(bool value);

}  // namespace espalier::train
