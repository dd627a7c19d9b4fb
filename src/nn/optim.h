#pragma once
// Optimisers: graph that updates parameters in place inside a traced training step, and schedules of the learning rate.
#include <functional>
#include <memory>

#include "tensor/parameter.h"

namespace espalier::nn {

/// Learning rate as a function of the step, counted from 0.
using Schedule = std::function<double(int64_t step)>;
/// `rate` at every step.
ESPALIER_API Schedule constant_rate(double rate);
/// rate * factor^(step / every), divided rounding down; UserError unless every >= 1.
ESPALIER_API Schedule step_decay(double rate, double factor, int64_t every);
/// rate * (step + 1) / warmup for step < warmup, then rate * (1 + cos(pi (step - warmup) / (total - warmup))) / 2
/// (Loshchilov and Hutter 2017), and 0 from `total` on. UserError unless 0 <= warmup < total.
ESPALIER_API Schedule cosine_rate(double rate, int64_t total, int64_t warmup = 0);

/// `schedule`, begun gently: rate * (step + 1) / steps of it for step < steps, itself from there on (Goyal et al. 2017). UserError
/// unless steps >= 0 and there is a schedule.
ESPALIER_API Schedule with_warmup(Schedule schedule, int64_t steps);

/// Gradients scaled by min(1, limit / (norm + 1e-6)), norm taken over all of them together (Pascanu et al. 2013).
/// Each keeps its dtype; the norm is taken in f32, or f64 where one of them is f64. UserError unless limit >= 0.
ESPALIER_API std::vector<Tensor> clip_by_norm(std::span<const Tensor> gradients, double limit);

/// A loss scale that keeps small gradients of f16 training above zero and finds its own size (Micikevicius et al. 2017,
/// arXiv:1710.03740): a step whose gradients overflow changes no parameter and no moment and halves the scale (down to 1);
/// after `grow_after` good steps it doubles (up to 2^24). The cells are part of the step, on the device.
class ESPALIER_API LossScale {
 public:
  /// UserError unless `initial` is a power of two in 1..2^24 and grow_after >= 1.
  explicit LossScale(double initial = 65536, int64_t grow_after = 2000);
  /// Of the next run of the step.
  double value() const;
  /// Steps that changed nothing, so far.
  int64_t skipped() const;
  /// Inside a traced step: the scale, and its update by whether this step's gradients were finite (a bool scalar).
  Tensor tensor() const { return scale_.tensor(); }
  void follow(const Tensor& finite) const;
  /// Behind follow(): steps that changed nothing, this one included.
  Tensor count() const { return skipped_.tensor(); }
  void each_state(const ParameterVisitor& visit, const std::string& prefix = "loss_scale");

 private:
  double grow_after_;
  Parameter scale_, good_, skipped_;
};

struct MinimiseOptions {
  double clip_norm = 0;                   ///< limit of clip_by_norm, 0: none
  const LossScale* loss_scale = nullptr;  ///< of f16 training; must outlive the trace
};

class ESPALIER_API Optimiser {
 public:
  virtual ~Optimiser() = default;
  /// Inside a traced step: assign every parameter its update by these gradients (one per parameter, in order). Computed in f32 (f64
  /// for f64 parameters) and rounded to the parameter's dtype. UserError for another number of gradients or other dims.
  void update(std::span<const Tensor> gradients);
  /// The parameters it updates (the trainable ones of those given).
  const std::vector<Parameter>& parameters() const { return parameters_; }
  /// Gradients of `loss` and their update, in one call. UserError for a negative clip_norm.
  void minimise(const Tensor& loss, const MinimiseOptions& options = {});
  /// The learning rate of the next run of the step. UserError for one that is not finite.
  void set_rate(double rate);
  double rate() const;
  /// Moments, counters and the rate: what a checkpoint must hold beside the parameters.
  virtual void each_state(const ParameterVisitor& visit, const std::string& prefix = "optimiser");

 protected:
  /// UserError where no parameter is trainable or one stands twice.
  Optimiser(std::vector<Parameter> parameters, double rate);
  /// The update: one gradient for each parameter, of its dims, both in the dtype that is computed in.
  virtual void apply(std::span<const Tensor> values, std::span<const Tensor> gradients) = 0;
  /// A zeroed cell beside each parameter, of the dtype that is computed in.
  std::vector<Parameter> moments(const char* name);
  /// The new value of parameter i, rounded to its dtype.
  void set(size_t i, const Tensor& value);
  std::vector<Parameter> parameters_;
  std::vector<std::pair<std::string, Parameter>> state_;
  Parameter rate_;

 private:
  std::vector<Parameter> cells() const;
};

struct SgdOptions {
  double rate = 1e-2, momentum = 0, weight_decay = 0;
  bool nesterov = false;
};
/// v = momentum v + g (+ weight_decay p); p -= rate v, or rate (g + momentum v) with Nesterov's look-ahead (Sutskever 2013).
class ESPALIER_API Sgd : public Optimiser {
 public:
  /// UserError unless rate and weight_decay are finite and >= 0, and momentum in [0, 1).
  explicit Sgd(std::vector<Parameter> parameters, SgdOptions options = {});

 private:
  void apply(std::span<const Tensor> values, std::span<const Tensor> gradients) override;
  SgdOptions options_;
  std::vector<Parameter> velocity_;
};

struct AdamOptions {
  double rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0;
  bool decoupled =
      false;  ///< AdamW: the decay acts on the parameter, not on the gradient (Loshchilov and Hutter 2019)
};
/// Adam with bias correction (Kingma and Ba 2015).
class ESPALIER_API Adam : public Optimiser {
 public:
  /// UserError unless rate, eps and weight_decay are finite and >= 0, and the betas in [0, 1).
  explicit Adam(std::vector<Parameter> parameters, AdamOptions options = {});

 private:
  void apply(std::span<const Tensor> values, std::span<const Tensor> gradients) override;
  AdamOptions options_;
  std::vector<Parameter> first_, second_;
  Parameter count_;
};
/// Adam with decoupled weight decay.
ESPALIER_API std::unique_ptr<Adam> adamw(std::vector<Parameter> parameters, double rate = 1e-3,
                                         double weight_decay = 1e-2);

}  // namespace espalier::nn
