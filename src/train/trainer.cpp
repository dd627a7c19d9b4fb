#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <set>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "run/program.h"
#include "target/device.h"
#include "tensor/precision_text.h"

namespace espalier::train {

namespace {

volatile std::sig_atomic_t interrupt_flag = 0;

void on_signal(int signal) {
  if (interrupt_flag) {  // the second time: as if there were no handler
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  interrupt_flag = 1;
}

/// A stack of its own for this thread's signal handlers. oneDNN's matrix kernels use the stack pointer as one more register that
/// points into their heap buffers: a handler that ran there would overwrite the heap. (The pool's other threads take no signals.)
class SignalStack {
 public:
  SignalStack() {
    stack_t now{};
    if (sigaltstack(nullptr, &now) != 0 || !(now.ss_flags & SS_DISABLE)) return;  // there is one
    memory_.resize(1 << 16);
    now = {.ss_sp = memory_.data(), .ss_flags = 0, .ss_size = memory_.size()};
    sigaltstack(&now, nullptr);
  }
  SignalStack(const SignalStack&) = delete;
  SignalStack& operator=(const SignalStack&) = delete;
  ~SignalStack() {
    const stack_t none{.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
    if (!memory_.empty()) sigaltstack(&none, nullptr);
  }

 private:
  std::vector<char> memory_;
};

void give_signals_a_stack() { static thread_local SignalStack stack; }

CompileOptions step_options(const TrainerOptions& o, const std::vector<data::Field>& fields) {
  CompileOptions c;
  c.precision = o.precision;
  c.allow_tf32 = o.allow_tf32;
  c.device = o.device;
  c.sync = o.sync;
  c.graphs = o.graphs;
  c.name = "training_step";
  c.argument_ranges = o.argument_ranges;
  if (o.loss_scale > 0) c.loss_scale = o.loss_scale;
  c.result_names = o.value_names;
  for (const data::Field& f : fields) c.argument_names.push_back(f.name);
  return c;
}

int64_t fact_number(const std::map<std::string, std::string>& facts, const std::string& name) {
  const auto it = facts.find(name);
  const std::string text = it == facts.end() ? "" : it->second;
  const auto value = number_of<int64_t>(text);
  if (!value) throw UserError({"checkpoint", "lacks fact " + name, text, "a number"});
  return *value;
}

/// Where a training is, for errors; epochs and batches are counted from 0.
std::string place(int64_t step, int64_t epoch, int64_t batch) {
  return "training, step " + std::to_string(step) + " (epoch " + std::to_string(epoch + 1) + ", batch " +
         std::to_string(batch + 1) + ")";
}

std::string fact(const std::map<std::string, std::string>& facts, const std::string& name) {
  const auto it = facts.find(name);
  return it == facts.end() ? "" : it->second;
}

/// `act()`, whose errors say which step it is of.
template <class Act>
auto of_step(const std::string& where, const Act& act) {
  try {
    return act();
  } catch (const UserError& e) {  // of the batch: a label out of range
    ErrorFields f = e.fields();
    f.where = where + ", " + f.where;
    if (const auto* of_device = dynamic_cast<const target::DeviceError*>(&e))
      throw target::DeviceError(std::move(f), of_device->lost());
    throw UserError(f);
  }
}

/// Steps that may be under way at once on a GPU: a step has memory for so many runs.
constexpr size_t most_under_way = 2;

bool all_finite(const ir::Array& a) {
  if (a.dtype() == Dtype::f32) {
    const std::span<const float> values(a.data<float>(), static_cast<size_t>(a.size()));
    return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
  }
  if (!ir::is_float(a.dtype())) return true;
  for (int64_t i = 0; i < a.size(); ++i)
    if (!std::isfinite(a.at(i))) return false;
  return true;
}

}  // namespace

void interrupt_on_signals() {
  give_signals_a_stack();
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}
bool interrupted() { return interrupt_flag != 0; }
void set_interrupted(bool value) { interrupt_flag = value ? 1 : 0; }

Trainer::Trainer(LossFn loss, std::vector<Parameter> cells, nn::Optimiser& optimiser,
                 data::DataLoader& loader, TrainerOptions options)
    : loss_(std::move(loss)),
      cells_(std::move(cells)),
      optimiser_(optimiser),
      loader_(loader),
      options_(std::move(options)),
      scale_(options_.precision == "f16" && options_.loss_scale == 0
                 ? std::optional<nn::LossScale>(std::in_place)
                 : std::nullopt),
      compiled_(
          [this](const std::vector<Tensor>& batch) {
            std::vector<Tensor> values = loss_(batch);
            if (values.empty()) throw UserError({"trainer", "the loss function gives nothing", "", "a loss"});
            const nn::MinimiseOptions how{.clip_norm = options_.clip_norm,
                                          .loss_scale = scale_ ? &*scale_ : nullptr};
            if (!scale_) {
              optimiser_.minimise(values[0], how);
              return values;
            }
            const Tensor scale =
                scale_->tensor();  // of this step; behind all values, so that nobody waits for it
            optimiser_.minimise(values[0], how);
            values.insert(values.end(), {scale, scale_->count()});
            return values;
          },
          step_options(options_, loader_.fields())) {
  check_options();
  if (!options_.checkpoint.empty()) check_names();
}

void Trainer::check_options() const {
  if (options_.epochs < 0)
    throw UserError({"trainer: epochs", "out of range", std::to_string(options_.epochs), ">= 0"});
  if (options_.steps < 0)
    throw UserError({"trainer: steps", "out of range", std::to_string(options_.steps), ">= 0"});
  if (!(options_.clip_norm >= 0))
    throw UserError({"trainer: clip_norm", "out of range", number_text(options_.clip_norm), ">= 0"});
  const double scale = options_.loss_scale;
  if (!(scale >= 0) || !std::isfinite(scale))
    throw UserError({"trainer: loss_scale", "out of range", number_text(scale), "> 0, or 0 to find it"});
  if (scale != 0 && options_.precision != "f16")
    throw UserError(
        {"trainer: loss_scale", "is of f16 training alone", "precision " + options_.precision, "f16"});
}

void Trainer::check_names() {
  std::set<std::string> seen;
  for (const NamedParameter& c : checkpoint_cells()) {
    if (c.parameter.name().empty())
      throw UserError({"trainer: checkpoint", "a parameter has no name", c.parameter.type().text(),
                       "a name for each (parameters_of names them)"});
    if (!seen.insert(c.name).second)
      throw UserError({"trainer: checkpoint", "two parameters have one name", c.name, "different names"});
  }
}

int64_t Trainer::total_steps() const {
  const int64_t all = options_.epochs * loader_.batches_per_epoch();
  return options_.steps > 0 ? std::min(all, options_.steps) : all;
}

int64_t Trainer::full_batch() const {
  return std::min(loader_.options().batch_size, loader_.state().samples);
}

int64_t Trainer::last_batch() const {
  const int64_t rest = loader_.state().samples % full_batch();
  return rest == 0 || loader_.options().drop_last ? full_batch() : rest;
}

Step& Trainer::step_of(int64_t batch) {
  std::vector<ir::Type> types;
  for (const data::Field& f : loader_.fields()) {
    ir::Type t = f.type;
    t.dims.insert(t.dims.begin(), ir::Dim(batch));
    types.push_back(std::move(t));
  }
  return compiled_.step(types);
}

Step& Trainer::step() { return step_of(full_batch()); }

std::string Trainer::plan() {
  uint64_t hash = hash_of_nothing;
  for (const int64_t batch : {full_batch(), last_batch()})
    hash = hash_step(hash, step_of(batch).program().identity());
  return fmt::format("{}, step {:016x}", step().program().machine(), hash);
}

std::vector<NamedParameter> Trainer::checkpoint_cells() {
  std::vector<NamedParameter> all;
  for (const Parameter& p : cells_) all.push_back({"model." + p.name(), p});
  optimiser_.each_state([&](const std::string& path, Parameter& p) { all.push_back({path, p}); });
  if (scale_) scale_->each_state([&](const std::string& path, Parameter& p) { all.push_back({path, p}); });
  return all;
}

void Trainer::save() {
  Checkpoint c{checkpoint_cells(), {}};
  c.facts["step"] = std::to_string(done_);
  c.facts["loader"] = loader_.state().text();
  if (const int64_t ahead = batches_ahead(loader_.state(), done_); ahead != 0)
    c.facts["batches_ahead"] = std::to_string(ahead);
  for (const auto& [name, value] : settings()) c.facts["setting." + name] = value;
  c.facts["precision"] = options_.precision;
  if (options_.allow_tf32) c.facts["tf32"] = "allowed";
  c.facts["plan"] = plan();
  for (const auto& [name, callback] : named_callbacks())
    if (std::string state = callback->state(); !state.empty()) c.facts[name] = std::move(state);
  save_checkpoint(options_.checkpoint, c);
}

std::vector<std::pair<std::string, Callback*>> Trainer::named_callbacks() const {
  std::vector<std::pair<std::string, Callback*>> out;
  std::map<std::string, int> count;
  for (const auto& c : callbacks_) {
    const std::string name = "callback." + c->name();
    const int number = ++count[name];
    out.emplace_back(number == 1 ? name : name + " " + std::to_string(number), c.get());
  }
  return out;
}

int64_t Trainer::batches_ahead(const data::LoaderState& state, int64_t step) const {
  return state.epoch * loader_.batches_per_epoch() + state.batch - step;
}

void Trainer::check_place(const std::map<std::string, std::string>& facts, int64_t step,
                          const data::LoaderState& state) const {
  const std::string where = "checkpoint " + options_.checkpoint.string() + ", step";
  if (step < 0 || step > total_steps())
    throw UserError({where, step < 0 ? "is negative" : "lies beyond the end of this training",
                     std::to_string(step), fmt::format("0 to {}", total_steps())});
  const int64_t ahead = facts.contains("batches_ahead") ? fact_number(facts, "batches_ahead") : 0;
  if (state.epoch < (int64_t{1} << 40) && state.batch < loader_.batches_per_epoch() &&
      batches_ahead(state, step) != ahead)  // else the loader refuses it
    throw UserError({where, "does not fit the loader's place", fmt::format("{} at {}", step, state.text()),
                     fmt::format("{} there", batches_ahead(state, ahead))});
}

std::map<std::string, std::string> Trainer::settings() const {
  std::map<std::string, std::string> all = options_.settings;
  all["clip_norm"] = number_text(options_.clip_norm);
  if (options_.precision == "f16") all["loss_scale"] = number_text(options_.loss_scale);
  if (options_.rate && done_ > 0) all["rate of the last step"] = number_text(options_.rate(done_ - 1));
  return all;
}

void Trainer::note_settings(const std::map<std::string, std::string>& facts) {
  std::vector<std::string> changed;
  for (const auto& [name, value] : settings())
    if (const auto it = facts.find("setting." + name); it != facts.end() && it->second != value)
      changed.push_back(fmt::format("{} {} (now {})", name, it->second, value));
  if (changed.empty()) return;
  const std::string note =
      fmt::format("checkpoint {} was made with {}: the training goes on with what is set now",
                  options_.checkpoint.string(), join(changed, ", "));
  for (const auto& c : callbacks_) c->on_note(note);
}

void Trainer::restore(const std::map<std::string, std::string>& facts) {
  const std::string made_in = precision_text(fact(facts, "precision"), facts.contains("tf32")),
                    now_in = precision_text(options_.precision, options_.allow_tf32);
  if (made_in != now_in)
    throw UserError(
        {"checkpoint " + options_.checkpoint.string(), "was made in another precision", made_in, now_in});
  const int64_t step = fact_number(facts, "step");
  const data::LoaderState state = data::LoaderState::of_text(fact(facts, "loader"));
  check_place(facts, step, state);
  for (const auto& [name, callback] : named_callbacks())
    if (const auto it = facts.find(name); it != facts.end()) callback->restore(it->second);
  loader_.restore(state);
  begun_.clear(), failed_.reset();
  done_ = step;
}

std::map<std::string, std::string> Trainer::try_resume() {
  if (!options_.resume || options_.checkpoint.empty() || !std::filesystem::exists(options_.checkpoint))
    return {};
  return load_checkpoint(options_.checkpoint, checkpoint_cells(), [this](const auto& f) { restore(f); });
}

void Trainer::check_held_out() const {
  std::optional<size_t> values;
  for (const auto& c : callbacks_) {
    const size_t needed = c->held_out_values();
    if (needed == 0) continue;
    if (!values) values = options_.held_out ? options_.held_out().size() : 0;
    const size_t given = *values;
    if (given < needed)
      throw UserError({c->name(), "the trainer gives no such value",
                       options_.held_out ? fmt::format("{} held-out values", given) : "no held_out",
                       fmt::format("TrainerOptions::held_out with {} or more", needed)});
  }
}

void Trainer::begin(const std::map<std::string, std::string>& facts) {
  if (!options_.checkpoint.empty()) check_writable(options_.checkpoint);
  open_cells_.clear();
  for (const NamedParameter& c : checkpoint_cells())
    if (!c.parameter.trainable() && !all_finite(c.parameter.storage())) open_cells_.insert(c.name);
  for (const auto& c : callbacks_) c->on_begin();
  check_held_out();
  (void)step(), (void)step_of(last_batch());  // what is wrong with them is known before the first step
  note_settings(facts);
  const std::string plan_before = fact(facts, "plan");
  if (plan_before.empty() || plan_before == plan()) return;
  const std::string note = fmt::format(
      "checkpoint {} was made by another plan ({}; now {}): the training goes on, its rounding may differ",
      options_.checkpoint.string(), plan_before, plan());
  for (const auto& c : callbacks_) c->on_note(note);
}

void Trainer::begin_step() {
  const int64_t number = done_ + static_cast<int64_t>(begun_.size()) + 1;
  const data::Batch batch = loader_.next();
  Step& s = step_of(batch.size);
  Begun b{.step = &s};
  b.run = of_step(place(number, batch.epoch, batch.index), [&] {
    for (size_t i = 0; i < batch.arrays.size(); ++i) s.set_input(i, batch.arrays[i]);
    if (options_.rate) optimiser_.set_rate(options_.rate(number - 1));
    return s.submit();
  });
  b.progress = {.step = number,
                .steps = total_steps(),
                .epoch = batch.epoch,
                .batch = batch.index,
                .batches = loader_.batches_per_epoch(),
                .values = {},
                .rate = optimiser_.rate(),
                .loss_scale = options_.loss_scale > 0 ? options_.loss_scale : 1,
                .skipped = false,
                .seconds = 0,
                .end_of_epoch = batch.index + 1 == loader_.batches_per_epoch()};
  begun_.push_back(std::move(b));
}

void Trainer::begin_steps() {
  if (begun_.empty() && failed_) {
    const std::exception_ptr error = failed_->error;
    failed_.reset();
    std::rethrow_exception(error);
  }
  if (begun_.empty()) begin_step();
  const size_t most = options_.device.is_gpu() && !options_.one_by_one && !options_.sync ? most_under_way : 1;
  while (begun_.size() < most && !failed_ && !interrupted() && !begun_.back().progress.end_of_epoch &&
         begun_.back().progress.step < total_steps()) {
    const data::LoaderState before = loader_.state();
    try {
      begin_step();
    } catch (const target::DeviceError&) {
      failed_ = {std::current_exception(), before, true};
    } catch (...) {  // thrown when those before it are done
      failed_ = {std::current_exception(), before, false};
    }
  }
}

void Trainer::finish(Begun& begun) {
  begun.step->wait(begun.run);
  std::vector<double>& values = begun.progress.values = scalar_results(*begun.step);
  if (scale_) {
    begun.skipped = static_cast<int64_t>(values.back());
    begun.progress.loss_scale = values[values.size() - 2];
    values.resize(values.size() - 2);
  }
  begun.over = true;
}

Progress Trainer::finish_oldest() {
  Begun oldest = std::move(begun_.front());
  begun_.pop_front();
  Progress& p = oldest.progress;
  try {
    if (!oldest.over) of_step(place(p.step, p.epoch, p.batch), [&] { finish(oldest); });
  } catch (const UserError& e) {
    const bool others = !begun_.empty() || failed_;
    drain();
    begun_.clear();
    forget_failed();
    const auto* of_device = dynamic_cast<const target::DeviceError*>(&e);
    if (!others || !of_device || !of_device->lost()) throw;
    ErrorFields f = e.fields();
    f.where += fmt::format(" (or step {}, which was under way)", p.step + 1);
    throw target::DeviceError(std::move(f), true);
  }
  done_ = p.step;
  p.skipped = oldest.skipped > skipped_;
  skipped_ = oldest.skipped;
  return std::move(p);
}

void Trainer::drain() {
  for (size_t i = 0; i < begun_.size(); ++i) {
    try {
      if (!begun_[i].over) finish(begun_[i]);
    } catch (const UserError&) {  // the first error is the one that is told; this one when training goes on
      begun_.resize(i);
      failed_ = {std::current_exception(), loader_.state(), true};
    }
  }
  if (failed_ && !failed_->may_have_run) forget_failed();
}

void Trainer::forget_failed() {
  if (!failed_) return;
  loader_.restore(failed_->before);
  failed_.reset();
}

std::string Trainer::kept() const {
  std::error_code none;
  if (options_.checkpoint.empty() || !std::filesystem::exists(options_.checkpoint, none)) return "";
  return "; the last checkpoint is kept in " + options_.checkpoint.string();
}

void Trainer::check_finite(const Progress& p) const {
  const bool loss = std::isfinite(p.values[0]), gradients = !p.skipped || p.loss_scale > 1;
  if (loss && gradients) return;
  const std::string place_now = place(p.step, p.epoch, p.batch);
  if (!loss)
    throw UserError({place_now, "the loss is not finite" + kept(), number_text(p.values[0]),
                     "a finite loss: try a lower learning rate or f32 precision"});
  throw UserError({place_now, "the gradients are not finite" + kept(), "loss scale 1",
                   "finite gradients: try a lower learning rate, bf16 or f32 precision"});
}

void Trainer::check_cells(const Progress& p) {
  for (const NamedParameter& c : checkpoint_cells())
    if (!open_cells_.contains(c.name) && !all_finite(c.parameter.storage()))
      throw UserError({place(p.step, p.epoch, p.batch), c.name + " is not finite after the update" + kept(),
                       c.parameter.type().text(),
                       "finite elements: try a lower learning rate or limit the norm of the gradients"});
}

void Trainer::pass_notes() {
  for (const auto& from : callbacks_)
    if (const std::string note = from->take_note(); !note.empty())
      for (const auto& to : callbacks_) to->on_note(note);
}

std::exception_ptr Trainer::end_epoch(Progress& p, bool& stop) {
  std::exception_ptr failure;
  const auto attempt = [&](const auto& act) {
    try {
      act();
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
  };
  if (options_.held_out) attempt([&] { p.held_out = options_.held_out(); });
  for (const auto& c : callbacks_) attempt([&] { c->on_step(p); });
  for (const auto& c : callbacks_) attempt([&] { stop = c->on_epoch(p) || stop; });
  attempt([&] { pass_notes(); });
  return failure;
}

std::optional<Ending> Trainer::after_step(Progress& p) {
  check_finite(p);
  if (p.end_of_epoch) check_cells(p);
  bool stop = false;
  std::exception_ptr failure;  // the epoch that is done is kept first
  if (p.end_of_epoch) failure = end_epoch(p, stop);
  else
    for (const auto& c : callbacks_) c->on_step(p);
  // Asked once: what is seen later waits for the next step.
  const bool cut =
      begun_.empty() && (!failed_ || !failed_->may_have_run) && interrupted() && done_ < total_steps();
  const bool over = stop || failure || cut || done_ == total_steps();
  if (over && !p.end_of_epoch) check_cells(p);
  const bool due =
      p.end_of_epoch && options_.checkpoint_every > 0 && (p.epoch + 1) % options_.checkpoint_every == 0;
  if (cut) forget_failed();
  if (!options_.checkpoint.empty() && (due || over)) save();
  if (failure) std::rethrow_exception(failure);
  if (stop) return Ending::stopped_early;
  return cut ? std::optional(Ending::interrupted) : std::nullopt;
}

Ending Trainer::train(int64_t start, Progress& last) {
  try {
    while (done_ < total_steps()) {
      begin_steps();
      last = finish_oldest();
      last.seconds = static_cast<double>(now_ns() - start) * 1e-9;
      if (const std::optional<Ending> ending = after_step(last)) return *ending;
    }
  } catch (...) {
    drain();
    throw;
  }
  return Ending::finished;
}

Ending Trainer::fit() {
  give_signals_a_stack();
  const std::map<std::string, std::string> facts = try_resume();
  if (scale_ && begun_.empty()) skipped_ = scale_->skipped();
  const bool stopped =
      std::any_of(callbacks_.begin(), callbacks_.end(), [](const auto& c) { return c->has_ended(); });
  const int64_t start = now_ns();
  Ending ending = stopped ? Ending::stopped_early : Ending::finished;
  Progress last{.step = done_, .steps = total_steps(), .values = {}};
  if (!stopped && done_ < total_steps()) {
    begin(facts);
    ending = train(start, last);
  }
  for (const auto& c : callbacks_) c->on_end(last);
  pass_notes();
  return ending;
}

}  // namespace espalier::train
