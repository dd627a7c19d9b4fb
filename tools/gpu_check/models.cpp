#include <fmt/format.h>

#include <numeric>

#include "gpu_check/check.h"
#include "run/tuner.h"
#include "support/training_steps.h"

namespace espalier::gpu_check {

namespace {

using test::Trained;
using test::Training;

struct Network {
  const char* name;
  Training (*make)();
};
constexpr Network networks[] = {
    {"mlp", test::mlp_training}, {"resnet-18", test::resnet_training}, {"u-net", test::unet_training}};

int steps_of(bool small) { return small ? 3 : 20; }

/// Of a loss, beside another: of its size, at least 1.
double loss_difference(double got, double want) {
  return std::fabs(got - want) / std::max(1.0, std::fabs(want));
}

/// Do the losses go the way of those of a CPU in f32? Roundings feed back into the network: single steps may differ more and more. In words
/// where they do not.
std::string other_way(const std::vector<double>& got, const std::vector<double>& want) {
  const auto end = [](const std::vector<double>& losses) {
    const size_t n = std::min<size_t>(5, losses.size());
    return std::accumulate(losses.end() - static_cast<std::ptrdiff_t>(n), losses.end(), 0.0) /
           static_cast<double>(n);
  };
  if (loss_difference(end(got), end(want)) <= 0.1) return "";
  return fmt::format("the last losses are {} in the mean, the CPU's {}\n", end(got), end(want));
}

/// Three steps within roundings of this machine's CPU and of the committed log, then the log's way. All is run before anything is judged.
std::string training_agrees(const Place& place, const Network& network, const Loaded& programs) {
  const Training t = network.make();
  const auto steps = static_cast<size_t>(steps_of(place.small));
  if (place.logs->records()) place.logs->set_losses(network.name, test::train_on_cpu(t, 20).losses);
  const std::vector<double> logged = place.logs->losses(network.name, steps);
  run::DeviceExecutor first(programs.at(0)), e(programs.at(0));
  const Trained three = test::train_on_device(t, first, 3), cpu = test::train_on_cpu(t, 3),
                got = test::train_on_device(t, e, static_cast<int>(steps));
  constexpr double most = 1e-5;
  double beside_cpu = 0, beside_log = 0;
  std::string wrong = test::difference(t, three, cpu, most, 1e-4);
  for (size_t s = 0; s < 3; ++s) {
    beside_cpu = std::max(beside_cpu, loss_difference(three.losses[s], cpu.losses[s]));
    const double off = loss_difference(three.losses[s], logged[s]);
    beside_log = std::max(beside_log, off);
    if (!(off <= most))
      wrong += fmt::format("the loss of step {} is {}, in the log {}\n", s, three.losses[s], logged[s]);
  }
  wrong += other_way(got.losses, logged);
  const std::string losses = fmt::format(
      "{} steps, loss {:.6g} -> {:.6g} (log {:.6g}); of three steps off by {:.1e} (CPU), {:.1e} (log)", steps,
      got.losses.front(), got.losses.back(), logged.back(), beside_cpu, beside_log);
  demand(wrong.empty(), losses + "\n" + wrong);
  return losses;
}

std::string graphs_change_no_bit(const Place& place, const Network& network, const Loaded& programs) {
  const Training t = network.make();
  const int steps = steps_of(place.small) + 3;
  run::DeviceExecutor with(programs.at(0)), without(programs.at(0), {.graphs = false});
  const Trained a = test::train_on_device(t, with, steps), b = test::train_on_device(t, without, steps);
  demand(with.replays() > 0, "no run was replayed");
  demand(a.losses == b.losses, "losses differ");
  for (const auto& [name, array] : a.states) demand(array == b.states.at(name), name + " differs");
  return fmt::format("{} of {} runs were replays", with.replays(), steps);
}

std::string precision_follows(const Place& place, const Network& network, const Loaded& programs) {
  const auto steps = static_cast<size_t>(steps_of(place.small));
  const std::vector<double> want = place.logs->losses(network.name, steps);
  run::DeviceExecutor e(programs.at(0));
  const Trained got = test::train_on_device(network.make(), e, static_cast<int>(steps));
  std::string wrong = other_way(got.losses, want);
  if (!(loss_difference(got.losses[0], want[0]) <= 0.05))
    wrong += fmt::format("the loss of the first step is {}, in f32 {}\n", got.losses[0], want[0]);
  demand(wrong.empty(), wrong);
  return fmt::format("loss {:.4g} -> {:.4g}, in f32 {:.4g}", got.losses.front(), got.losses.back(),
                     want.back());
}

/// What the driver says is gone, beside what the plan said would be.
std::string memory_is_planned(const Place& place, const Network& network, const Loaded& programs) {
  const Training t = network.make();
  {
    run::DeviceExecutor warm(programs.at(0));  // what libraries and drivers load when it is first used stays
    test::train_on_device(t, warm, 3);
  }
  const int64_t before = place.device->free_bytes();
  run::DeviceExecutor e(programs.at(0));
  test::train_on_device(t, e, 3);
  const int64_t taken = before - place.device->free_bytes(), planned = e.allocated_bytes();
  constexpr int64_t granularity = int64_t{4} << 20;  // drivers give whole pages, and graphs take some
  demand(taken <= planned + 4 * granularity, fmt::format("{} bytes were taken, {} planned", taken, planned));
  return fmt::format("{} bytes planned, {} more were taken", planned, taken - planned);
}

/// A step in f16 whose loss scale begins far too large.
Training scaled_training() {
  nn::Init init(1);
  nn::Mlp net({20, 32, 32, 5}, init);
  const nn::LossScale scale(1 << 24);
  nn::Sgd optimiser(parameters_of(net), {.rate = 1e-2, .momentum = 0.9});
  const std::vector<ir::Type> arguments{{ir::Dtype::f32, {16, 20}}, {ir::Dtype::i64, {16}}};
  const Trace t = trace(
      [&](const std::vector<Tensor>& in) {
        const Tensor loss = nn::cross_entropy(net(in[0]), in[1]);
        optimiser.minimise(loss, {.loss_scale = &scale});
        return std::vector<Tensor>{loss};
      },
      arguments);
  Training out{t.graph, {}, {}};
  for (size_t i = 0; i < t.graph.inputs.size(); ++i) {
    const auto p = std::find(t.inputs.begin(), t.inputs.end(), t.graph.input_name(i));
    out.inputs.push_back(p == t.inputs.end()
                             ? test::data_of(arguments[i], i == 1 ? 5 : 0)
                             : t.parameters[static_cast<size_t>(p - t.inputs.begin())].storage().copied());
  }
  return out;
}

double scalar_of(const Trained& t, const std::string& part) {
  for (const auto& [name, array] : t.states)
    if (name.find(part) != std::string::npos) return array.at(0);
  throw std::runtime_error("there is no state " + part);
}

/// Steps that overflow change nothing and halve the scale, by the device alone; then the network learns.
std::string scale_is_found(const Place& place, const Loaded& programs) {
  const Training t = scaled_training();
  run::DeviceExecutor e(programs.at(0));
  const Trained got = test::train_on_device(t, e, 20);
  const double skipped = scalar_of(got, "loss_scale.skipped"), scale = scalar_of(got, "loss_scale.value");
  demand(skipped > 0 && skipped < 20, fmt::format("{} of 20 steps were skipped", skipped));
  demand(scale == std::ldexp(1.0, 24 - static_cast<int>(skipped)),
         fmt::format("the scale is {} after {} skipped steps", scale, skipped));
  for (int s = 0; s < static_cast<int>(skipped); ++s)
    demand(got.losses[static_cast<size_t>(s)] == got.losses[0],
           fmt::format("skipped step {} changed something", s));
  for (const auto& [name, array] : got.states)
    for (int64_t i = 0; i < array.size(); ++i)
      demand(std::isfinite(array.at(i)), fmt::format("{} has {}", name, array.at(i)));
  const std::vector<double> f32 = place.logs->losses("mlp", 3);
  demand(std::fabs(got.losses[0] - f32[0]) <= 0.05 * std::max(1.0, std::fabs(f32[0])),
         fmt::format("the first loss is {}, in f32 {}", got.losses[0], f32[0]));
  demand(got.losses.back() < got.losses.front(), "nothing was learnt");
  return fmt::format("{} steps skipped, scale {}, loss {:.4g} -> {:.4g}", skipped, scale, got.losses.front(),
                     got.losses.back());
}

/// The ways of the libraries for every product and convolution, timed; with those chosen the network trains as before.
std::string tuning_holds(const Place& place, const Network& network, const Loaded& programs) {
  const Training t = network.make();
  const run::TuneReport report = run::tune(programs.at(0)->program(), *place.device,
                                           {.top = place.small ? 2 : 8, .runs = place.small ? 1 : 10});
  if (report.records.empty()) throw Lacks("no library is asked for anything");
  int other = 0, ways = 0;
  for (const run::TunedRecord& r : report.records) {
    demand(r.chosen >= 0, r.record + ": every way was dropped");
    other += r.chosen > 0;
    ways += static_cast<int>(r.ways.size());
  }
  const std::string unused = run::use_choices(*place.device, report.choices);
  demand(unused.empty(), unused);
  const std::vector<double> want = place.logs->losses(network.name, 3);
  try {
    run::DeviceExecutor e(
        std::make_shared<run::DeviceProgram>(planned({t.graph, true}, *place.target), place.device));
    const Trained got = test::train_on_device(t, e, 3);
    for (size_t s = 0; s < 3; ++s)
      demand(std::fabs(got.losses[s] - want[s]) <= 1e-4 * std::max(1.0, std::fabs(want[s])),
             fmt::format("the loss of step {} is {}, in the log {}", s, got.losses[s], want[s]));
  } catch (...) {
    place.device->use(nullptr);
    throw;
  }
  place.device->use(nullptr);
  return fmt::format("{} records, {} ways, {} others than the first; {:.1f} -> {:.1f} us",
                     report.records.size(), ways, other, report.first_us, report.chosen_us);
}

}  // namespace

std::vector<Check> model_checks(bool small) {
  std::vector<Check> all;
  using Run = std::string (*)(const Place&, const Network&, const Loaded&);
  const auto add = [&](const Network& n, const std::string& name, Run run, bool exact,
                       pass::Precision precision) {
    all.push_back({n.name + name,
                   [n, exact, precision] {
                     return std::vector<Wanted>{{n.make().graph, exact, precision}};
                   },
                   [n, run](const Place& p, const Loaded& l) { return run(p, n, l); }});
  };
  using enum pass::Precision;
  for (const Network& n : networks) add(n, " trains as on the CPU", training_agrees, true, f32);
  all.push_back({"mlp: f16's loss scale is found",
                 [] {
                   return std::vector<Wanted>{{scaled_training().graph, false, f16}};
                 },
                 scale_is_found});
  for (const Network& n : networks) {
    add(n, ": graphs change no bit", graphs_change_no_bit, false, f32);
    add(n, ": memory is the plan's", memory_is_planned, false, f32);
    add(n, " in bf16", precision_follows, false, bf16);
    add(n, " in f16", precision_follows, false, f16);
  }
  for (const Network& n : networks)  // last: it takes the longest
    if (!small || n.make == test::mlp_training) add(n, ": tuned", tuning_holds, true, f32);
  return all;
}

}  // namespace espalier::gpu_check
