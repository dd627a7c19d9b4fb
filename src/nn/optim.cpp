#include "nn/optim.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <set>

#include "base/text.h"
#include "op/widen.h"

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

Schedule with_warmup(Schedule schedule, int64_t steps) {
  if (!schedule) throw UserError({"with_warmup", "the schedule is empty", "", "a schedule"});
  if (steps < 0) throw UserError({"with_warmup", "steps out of range", std::to_string(steps), ">= 0"});
  return [schedule = std::move(schedule), steps](int64_t step) {
    const double full = schedule(step);
    return step < steps ? full * static_cast<double>(step + 1) / static_cast<double>(steps) : full;
  };
}

namespace {

constexpr double largest_scale = 1 << 24;

/// Are all elements of all tensors finite? A bool scalar.
Tensor all_finite(std::span<const Tensor> tensors) {
  Tensor all(1.0);
  for (const Tensor& t : tensors) {
    const Tensor largest = t.abs().max();  // NaN where there is one
    all = minimum(
        all,
        (largest < Tensor::full({}, std::numeric_limits<double>::infinity(), t.dtype())).cast(Dtype::f32));
  }
  return all > 0.5;
}

}  // namespace

std::vector<Tensor> clip_by_norm(std::span<const Tensor> gradients, double limit) {
  if (!(limit >= 0)) throw UserError({"clip_by_norm: limit", "out of range", number_text(limit), ">= 0"});
  if (gradients.empty()) return {};
  Dtype dtype = Dtype::f32;
  for (const Tensor& g : gradients)
    if (g.dtype() == Dtype::f64) dtype = Dtype::f64;
  Tensor sum = Tensor::zeros({}, dtype);
  for (const Tensor& g : gradients) sum = sum + g.cast(op::wide_dtype(g.dtype())).square().sum().cast(dtype);
  const Tensor scale = minimum(limit / (sum.sqrt() + 1e-6), Tensor::ones({}, dtype));
  std::vector<Tensor> out;
  for (const Tensor& g : gradients)
    out.push_back(
        (g.cast(op::wide_dtype(g.dtype())) * scale.cast(op::wide_dtype(g.dtype()))).cast(g.dtype()));
  return out;
}

LossScale::LossScale(double initial, int64_t grow_after)
    : grow_after_(static_cast<double>(grow_after)),
      scale_(Array::scalar(Dtype::f32, initial), false, "loss_scale.value"),
      good_(Array(Dtype::f32, {}), false, "loss_scale.good"),
      skipped_(Array(Dtype::f32, {}), false, "loss_scale.skipped") {
  int exponent = 0;
  if (!(initial >= 1 && initial <= largest_scale) || std::frexp(initial, &exponent) != 0.5)
    throw UserError({"loss scale", "out of range", number_text(initial), "a power of two in 1..2^24"});
  if (grow_after < 1)
    throw UserError({"loss scale: grow_after", "out of range", std::to_string(grow_after), ">= 1"});
}

double LossScale::value() const { return static_cast<double>(scale_.storage().data<float>()[0]); }
int64_t LossScale::skipped() const { return static_cast<int64_t>(skipped_.storage().data<float>()[0]); }

void LossScale::follow(const Tensor& finite) const {
  const Tensor scale = scale_.tensor(), good = good_.tensor() + 1, zero(0.0);
  const Tensor grow = good > grow_after_ - 0.5;
  const Tensor larger = minimum(scale * 2, Tensor(largest_scale)),
               smaller = maximum(scale * 0.5, Tensor(1.0));
  scale_.assign(where(finite, where(grow, larger, scale), smaller));
  good_.assign(where(finite, where(grow, zero, good), zero));
  skipped_.assign(where(finite, skipped_.tensor(), skipped_.tensor() + 1));
}

void LossScale::each_state(const ParameterVisitor& visit, const std::string& prefix) {
  visit(join_path(prefix, "value"), scale_);
  visit(join_path(prefix, "good"), good_);
  visit(join_path(prefix, "skipped"), skipped_);
}

namespace {

/// UserError unless `good`.
void check_field(const char* optimiser, const char* field, double value, bool good, const char* allowed) {
  if (!good)
    throw UserError({std::string(optimiser) + ": " + field, "out of range", number_text(value), allowed});
}

void check_from_zero(const char* optimiser, const char* field, double value) {
  check_field(optimiser, field, value, value >= 0 && std::isfinite(value), "finite and >= 0");
}

void check_below_one(const char* optimiser, const char* field, double value) {
  check_field(optimiser, field, value, value >= 0 && value < 1, "0 <= it < 1");
}

/// The trainable ones. UserError where there is none, or one stands twice.
std::vector<Parameter> trainable(std::vector<Parameter> all) {
  std::vector<Parameter> out;
  std::set<const Parameter::Cell*> seen;
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string where = fmt::format("optimiser: parameters, number {}", i);
    if (!all[i]) throw UserError({where, "is empty", "", "a parameter"});
    if (!seen.insert(all[i].cell()).second)
      throw UserError({where, "stands twice", all[i].name() + " : " + all[i].type().text(), "each once"});
    if (all[i].trainable()) out.push_back(std::move(all[i]));
  }
  if (out.empty())
    throw UserError({"optimiser: parameters", "none is trainable", fmt::format("{} parameters", all.size()),
                     "one or more that are"});
  return out;
}

SgdOptions checked(const SgdOptions& o) {
  check_from_zero("Sgd", "rate", o.rate);
  check_below_one("Sgd", "momentum", o.momentum);
  check_from_zero("Sgd", "weight_decay", o.weight_decay);
  return o;
}

AdamOptions checked(const AdamOptions& o) {
  check_from_zero("Adam", "rate", o.rate);
  check_below_one("Adam", "beta1", o.beta1);
  check_below_one("Adam", "beta2", o.beta2);
  check_from_zero("Adam", "eps", o.eps);
  check_from_zero("Adam", "weight_decay", o.weight_decay);
  return o;
}

}  // namespace

Optimiser::Optimiser(std::vector<Parameter> parameters, double rate)
    : parameters_(trainable(std::move(parameters))),
      rate_(Array::scalar(Dtype::f32, rate), false, "optimiser.rate") {
  state_.emplace_back("rate", rate_);
}

std::vector<Parameter> Optimiser::moments(const char* name) {
  std::vector<Parameter> out;
  for (const Parameter& p : parameters_) {
    out.emplace_back(Array(op::wide_dtype(p.type().dtype), p.dims()), false, p.name() + "." + name);
    state_.emplace_back(p.name() + "." + name, out.back());
  }
  return out;
}

std::vector<Parameter> Optimiser::cells() const {
  std::vector<Parameter> all = parameters_;
  for (const auto& [name, p] : state_) all.push_back(p);
  return all;
}

void Optimiser::set(size_t i, const Tensor& value) {
  parameters_[i].assign(value.cast(parameters_[i].type().dtype));
}

void Optimiser::update(std::span<const Tensor> gradients) {
  if (gradients.size() != parameters_.size())
    throw UserError({"optimiser", "wrong number of gradients", std::to_string(gradients.size()),
                     std::to_string(parameters_.size()) + ", one for each trainable parameter"});
  std::vector<Tensor> values, wide_gradients;
  for (size_t i = 0; i < gradients.size(); ++i) {
    const Tensor value = parameters_[i].tensor();
    if (gradients[i].dims() != value.dims())
      throw UserError({"optimiser, parameter " + parameters_[i].name(), "the gradient has other dims",
                       ir::dims_text(gradients[i].dims()), ir::dims_text(value.dims())});
    values.push_back(value.cast(op::wide_dtype(value.dtype())));
    wide_gradients.push_back(gradients[i].cast(op::wide_dtype(value.dtype())));
  }
  apply(values, wide_gradients);
}

void Optimiser::minimise(const Tensor& loss, const MinimiseOptions& options) {
  if (!(options.clip_norm >= 0))
    throw UserError({"optimiser: clip_norm", "out of range", std::to_string(options.clip_norm), ">= 0"});
  std::vector<Tensor> wrt;
  for (const Parameter& p : parameters_) wrt.push_back(p.tensor());
  const auto clipped = [&](std::vector<Tensor> g) {
    return options.clip_norm > 0 ? clip_by_norm(g, options.clip_norm) : std::move(g);
  };
  if (!options.loss_scale) {
    update(clipped(grad(loss, wrt)));
    return;
  }
  const Tensor scale = options.loss_scale->tensor();
  std::vector<Tensor> gradients = grad(loss * scale.cast(loss.dtype()), wrt);
  for (Tensor& g : gradients)
    g = g.cast(op::wide_dtype(g.dtype())) * (1 / scale).cast(op::wide_dtype(g.dtype()));
  const Tensor finite = all_finite(gradients);
  std::vector<Tensor> old;
  for (const Parameter& p : cells()) old.push_back(p.tensor());
  update(clipped(std::move(gradients)));
  for (size_t i = 0; const Parameter& p : cells()) {
    const Tensor now = p.tensor();
    if (now.value() != old[i].value()) p.assign(where(finite, now, old[i]));
    ++i;
  }
  options.loss_scale->follow(finite);
}

void Optimiser::set_rate(double rate) {
  if (!std::isfinite(rate))
    throw UserError({"optimiser: rate", "out of range", number_text(rate), "a finite number"});
  static_cast<float*>(rate_.write())[0] = static_cast<float>(rate);
}
double Optimiser::rate() const { return static_cast<double>(rate_.storage().data<float>()[0]); }

void Optimiser::each_state(const ParameterVisitor& visit, const std::string& prefix) {
  for (auto& [name, p] : state_) visit(join_path(prefix, name), p);
}

Sgd::Sgd(std::vector<Parameter> parameters, SgdOptions options)
    : Optimiser(std::move(parameters), checked(options).rate), options_(options) {
  if (options_.momentum != 0) velocity_ = moments("velocity");
}

void Sgd::apply(std::span<const Tensor> values, std::span<const Tensor> gradients) {
  const Tensor rate = rate_.tensor();
  for (size_t i = 0; i < values.size(); ++i) {
    const Tensor& p = values[i];
    Tensor g = options_.weight_decay == 0 ? gradients[i] : gradients[i] + p * options_.weight_decay;
    if (options_.momentum != 0) {
      const Tensor v = velocity_[i].tensor() * options_.momentum + g;
      velocity_[i].assign(v);
      g = options_.nesterov ? g + v * options_.momentum : v;
    }
    set(i, p - g * rate.cast(p.dtype()));
  }
}

Adam::Adam(std::vector<Parameter> parameters, AdamOptions options)
    : Optimiser(std::move(parameters), checked(options).rate),
      options_(options),
      first_(moments("first")),
      second_(moments("second")),
      count_(Array(Dtype::f32, {}), false, "optimiser.count") {
  state_.emplace_back("count", count_);
}

void Adam::apply(std::span<const Tensor> values, std::span<const Tensor> gradients) {
  const AdamOptions& o = options_;
  const Tensor now = count_.tensor() + 1;
  count_.assign(now);
  for (size_t i = 0; i < values.size(); ++i) {
    const Tensor& p = values[i];
    const Tensor rate = rate_.tensor().cast(p.dtype()), count = now.cast(p.dtype());
    const auto power = [&](double base) { return pow(Tensor::full({}, base, p.dtype()), count); };
    const Tensor step = rate / (1 - power(o.beta1));      // rate over the bias of the first moment
    const Tensor root = 1 / (1 - power(o.beta2)).sqrt();  // of the second
    Tensor g = gradients[i];
    if (o.weight_decay != 0 && !o.decoupled) g = g + p * o.weight_decay;
    const Tensor m = first_[i].tensor() * o.beta1 + g * (1 - o.beta1);
    const Tensor v = second_[i].tensor() * o.beta2 + g.square() * (1 - o.beta2);
    first_[i].assign(m);
    second_[i].assign(v);
    const Tensor kept = o.weight_decay != 0 && o.decoupled ? p - p * (rate * o.weight_decay) : p;
    set(i, kept - m / (v.sqrt() * root + o.eps) * step);
  }
}

std::unique_ptr<Adam> adamw(std::vector<Parameter> parameters, double rate, double weight_decay) {
  return std::make_unique<Adam>(std::move(parameters),
                                AdamOptions{.rate = rate, .weight_decay = weight_decay, .decoupled = true});
}

}  // namespace espalier::nn
