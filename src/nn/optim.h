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

/// Gradients scaled by min(1, limit / (norm + 1e-6)), norm taken over all of them together (Pascanu et al. 2013).
ESPALIER_API std::vector<Tensor> clip_by_norm(std::span<const Tensor> gradients, double limit);

class ESPALIER_API Optimiser {
 public:
  virtual ~Optimiser() = default;
  /// Inside a traced step: assign every parameter its update by these gradients (one per parameter, in order).
  virtual void update(std::span<const Tensor> gradients) = 0;
  /// The parameters it updates (the trainable ones of those given).
  const std::vector<Parameter>& parameters() const { return parameters_; }
  /// Gradients of `loss` and their update, in one call.
  void minimise(const Tensor& loss);
  /// The learning rate of the next run of the step.
  void set_rate(double rate);
  double rate() const;
  /// Moments, counters and the rate: what a checkpoint must hold beside the parameters.
  virtual void each_state(const ParameterVisitor& visit, const std::string& prefix = "optimiser");

 protected:
  Optimiser(std::vector<Parameter> parameters, double rate);
  /// A zeroed cell beside each parameter.
  std::vector<Parameter> moments(const char* name);
  std::vector<Parameter> parameters_;
  std::vector<std::pair<std::string, Parameter>> state_;
  Parameter rate_;
};

struct SgdOptions {
  double rate = 1e-2, momentum = 0, weight_decay = 0;
  bool nesterov = false;
};
/// v = momentum v + g (+ weight_decay p); p -= rate v, or rate (g + momentum v) with Nesterov's look-ahead (Sutskever 2013).
class ESPALIER_API Sgd : public Optimiser {
 public:
  explicit Sgd(std::vector<Parameter> parameters, SgdOptions options = {});
  void update(std::span<const Tensor> gradients) override;

 private:
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
  explicit Adam(std::vector<Parameter> parameters, AdamOptions options = {});
  void update(std::span<const Tensor> gradients) override;

 private:
  AdamOptions options_;
  std::vector<Parameter> first_, second_;
  Parameter count_;
};
/// Adam with decoupled weight decay.
ESPALIER_API std::unique_ptr<Adam> adamw(std::vector<Parameter> parameters, double rate = 1e-3,
                                         double weight_decay = 1e-2);

}  // namespace espalier::nn
