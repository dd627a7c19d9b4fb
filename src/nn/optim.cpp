#include "nn/optim.h"

#include <cmath>
#include <numbers>

namespace espalier::nn {

Schedule constant_rate(double rate) {
  return [rate](int64_t) { return rate; };
}
Schedule step_decay(double rate, double factor, int64_t every) {
  if (every < 1) throw UserError({"step_decay", "interval out of range", std::to_string(every), ">= 1"});
  return [=](int64_t step) { return rate * std::pow(factor, static_cast<double>(step / every)); };
}
Schedule cosine_rate(double rate, int64_t total, int64_t warmup) {
  if (total < 1 || warmup < 0 || warmup >= total)
    throw UserError({"cosine_rate", "steps out of range",
                     std::to_string(warmup) + " of " + std::to_string(total), "0 <= warmup < total"});
  return [=](int64_t step) {
    if (step < warmup) return rate * static_cast<double>(step + 1) / static_cast<double>(warmup);
    const double t =
        static_cast<double>(std::min(step, total) - warmup) / static_cast<double>(total - warmup);
    return rate * 0.5 * (1 + std::cos(std::numbers::pi * t));
  };
}

std::vector<Tensor> clip_by_norm(std::span<const Tensor> gradients, double limit) {
  Tensor sum;
  for (const Tensor& g : gradients) sum = sum ? sum + g.square().sum() : g.square().sum();
  const Tensor norm = sum.sqrt();
  const Tensor scale = minimum(limit / (norm + 1e-6), norm * 0 + 1);
  std::vector<Tensor> out;
  for (const Tensor& g : gradients) out.push_back(g * scale);
  return out;
}

Optimiser::Optimiser(std::vector<Parameter> parameters, double rate)
    : rate_(Array::scalar(Dtype::f32, rate), false, "optimiser.rate") {
  for (Parameter& p : parameters)
    if (p.trainable()) parameters_.push_back(std::move(p));
  state_.emplace_back("rate", rate_);
}

std::vector<Parameter> Optimiser::moments(const char* name) {
  std::vector<Parameter> out;
  for (const Parameter& p : parameters_) {
    out.emplace_back(Array(p.type().dtype, p.dims()), false, p.name() + "." + name);
    state_.emplace_back(p.name() + "." + name, out.back());
  }
  return out;
}

void Optimiser::minimise(const Tensor& loss) {
  std::vector<Tensor> wrt;
  for (const Parameter& p : parameters_) wrt.push_back(p.tensor());
  update(grad(loss, wrt));
}

void Optimiser::set_rate(double rate) { static_cast<float*>(rate_.data())[0] = static_cast<float>(rate); }
double Optimiser::rate() const { return static_cast<double>(rate_.storage().data<float>()[0]); }

void Optimiser::each_state(const ParameterVisitor& visit, const std::string& prefix) {
  for (auto& [name, p] : state_) visit(join_path(prefix, name), p);
}

Sgd::Sgd(std::vector<Parameter> parameters, SgdOptions options)
    : Optimiser(std::move(parameters), options.rate), options_(options) {
  if (options_.momentum != 0) velocity_ = moments("velocity");
}

void Sgd::update(std::span<const Tensor> gradients) {
  const Tensor rate = rate_.tensor();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor p = parameters_[i].tensor();
    Tensor g = options_.weight_decay == 0 ? gradients[i] : gradients[i] + p * options_.weight_decay;
    if (options_.momentum != 0) {
      const Tensor v = velocity_[i].tensor() * options_.momentum + g;
      velocity_[i].assign(v);
      g = options_.nesterov ? g + v * options_.momentum : v;
    }
    parameters_[i].assign(p - g * rate);
  }
}

Adam::Adam(std::vector<Parameter> parameters, AdamOptions options)
    : Optimiser(std::move(parameters), options.rate),
      options_(options),
      first_(moments("first")),
      second_(moments("second")),
      count_(Array(Dtype::f32, {}), false, "optimiser.count") {
  state_.emplace_back("count", count_);
}

void Adam::update(std::span<const Tensor> gradients) {
  const AdamOptions& o = options_;
  const Tensor rate = rate_.tensor(), count = count_.tensor() + 1;
  count_.assign(count);
  const Tensor step = rate / (1 - pow(Tensor(o.beta1), count));      // rate over the bias of the first moment
  const Tensor root = 1 / (1 - pow(Tensor(o.beta2), count)).sqrt();  // of the second
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor p = parameters_[i].tensor();
    Tensor g = gradients[i];
    if (o.weight_decay != 0 && !o.decoupled) g = g + p * o.weight_decay;
    const Tensor m = first_[i].tensor() * o.beta1 + g * (1 - o.beta1);
    const Tensor v = second_[i].tensor() * o.beta2 + g.square() * (1 - o.beta2);
    first_[i].assign(m);
    second_[i].assign(v);
    const Tensor kept = o.weight_decay != 0 && o.decoupled ? p - p * (rate * o.weight_decay) : p;
    parameters_[i].assign(kept - m / (v.sqrt() * root + o.eps) * step);
  }
}

std::unique_ptr<Adam> adamw(std::vector<Parameter> parameters, double rate, double weight_decay) {
  return std::make_unique<Adam>(std::move(parameters),
                                AdamOptions{.rate = rate, .weight_decay = weight_decay, .decoupled = true});
}

}  // namespace espalier::nn
