#include <fmt/format.h>

#include "gpu_check/check.h"
#include "support/training_steps.h"

namespace espalier::gpu_check {

namespace {

using test::Trained;
using test::Training;

int steps_of(const Place& place) { return place.small ? 3 : 20; }

/// The tolerance widens with the steps: roundings feed back into the network.
std::string training_agrees(const Place& place, const Training& t) {
  const int steps = steps_of(place);
  run::DeviceExecutor e(loaded(place, t.graph, true));
  const Trained got = test::train_on_device(t, e, steps), want = test::train_on_cpu(t, steps);
  const double more = steps / 3.0;
  const std::string off = test::difference(t, got, want, 1e-5 * more * more, 1e-4 * more * more);
  demand(off.empty(), off);
  return fmt::format("{} steps, loss {:.6g} -> {:.6g} (CPU {:.6g})", steps, got.losses.front(),
                     got.losses.back(), want.losses.back());
}

std::string graphs_change_no_bit(const Place& place, const Training& t) {
  const auto program = loaded(place, t.graph);
  const int steps = steps_of(place) + 3;
  run::DeviceExecutor with(program), without(program, {.graphs = false});
  const Trained a = test::train_on_device(t, with, steps), b = test::train_on_device(t, without, steps);
  demand(with.replays() > 0, "no run was replayed");
  demand(a.losses == b.losses, "losses differ");
  for (const auto& [name, array] : a.states) demand(array == b.states.at(name), name + " differs");
  return fmt::format("{} of {} runs were replays", with.replays(), steps);
}

std::string precision_follows(const Place& place, const Training& t, pass::Precision precision) {
  const int steps = steps_of(place);
  run::DeviceExecutor e(loaded(place, t.graph, false, precision));
  const Trained got = test::train_on_device(t, e, steps), want = test::train_on_cpu(t, steps);
  for (size_t s = 0; s < want.losses.size(); ++s)
    demand(std::fabs(got.losses[s] - want.losses[s]) <= 0.05 * std::max(1.0, std::fabs(want.losses[s])),
           fmt::format("the loss of step {} is {}, in f32 {}", s, got.losses[s], want.losses[s]));
  return fmt::format("loss {:.4g} -> {:.4g}, in f32 {:.4g}", got.losses.front(), got.losses.back(),
                     want.losses.back());
}

/// What the driver says is gone, beside what the plan said would be.
std::string memory_is_planned(const Place& place, const Training& t) {
  const auto program = loaded(place, t.graph);
  { run::DeviceExecutor warm(program); }
  const int64_t before = place.device->free_bytes();
  run::DeviceExecutor e(program);
  test::train_on_device(t, e, 3);
  const int64_t taken = before - place.device->free_bytes(), planned = e.allocated_bytes();
  constexpr int64_t granularity = int64_t{4} << 20;  // drivers give whole pages, and graphs take some
  demand(taken <= planned + 4 * granularity, fmt::format("{} bytes were taken, {} planned", taken, planned));
  return fmt::format("{} bytes planned, {} more were taken", planned, taken - planned);
}

}  // namespace

void check_models(const Place& place, Log& log) {
  const std::pair<const char*, Training (*)()> networks[] = {
      {"mlp", test::mlp_training}, {"resnet-18", test::resnet_training}, {"u-net", test::unet_training}};
  for (const auto& [name, make] : networks)
    log.check(fmt::format("{} trains as on the CPU", name),
              [&, make = make] { return training_agrees(place, make()); });
  for (const auto& [name, make] : networks) {
    log.check(fmt::format("{}: graphs change no bit", name),
              [&, make = make] { return graphs_change_no_bit(place, make()); });
    log.check(fmt::format("{}: memory is the plan's", name),
              [&, make = make] { return memory_is_planned(place, make()); });
    log.check(fmt::format("{} in bf16", name),
              [&, make = make] { return precision_follows(place, make(), pass::Precision::bf16); });
    log.check(fmt::format("{} in f16", name),
              [&, make = make] { return precision_follows(place, make(), pass::Precision::f16); });
  }
}

}  // namespace espalier::gpu_check
