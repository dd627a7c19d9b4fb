#include <fmt/format.h>

#include <numeric>

#include "gpu_check/check.h"
#include "support/training_steps.h"

namespace espalier::gpu_check {

namespace {

using test::Trained;
using test::Training;

int steps_of(const Place& place) { return place.small ? 3 : 20; }

/// Do the losses go the CPU's way? Roundings feed back into the network: single steps may differ more and more.
void demand_same_way(const Trained& got, const Trained& want) {
  const auto end = [](const Trained& t) {
    const size_t n = std::min<size_t>(5, t.losses.size());
    return std::accumulate(t.losses.end() - static_cast<std::ptrdiff_t>(n), t.losses.end(), 0.0) /
           static_cast<double>(n);
  };
  demand(std::fabs(end(got) - end(want)) <= 0.1 * std::max(1.0, std::fabs(end(want))),
         fmt::format("the last losses are {} in the mean, the CPU's {}", end(got), end(want)));
}

/// Three steps within roundings, then the same way.
std::string training_agrees(const Place& place, const Training& t) {
  const int steps = steps_of(place);
  const auto program = loaded(place, t.graph, true);
  run::DeviceExecutor first(program), e(program);
  const std::string off =
      test::difference(t, test::train_on_device(t, first, 3), test::train_on_cpu(t, 3), 1e-5, 1e-4);
  demand(off.empty(), off);
  const Trained got = test::train_on_device(t, e, steps), want = test::train_on_cpu(t, steps);
  demand_same_way(got, want);
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
  demand(std::fabs(got.losses[0] - want.losses[0]) <= 0.05 * std::max(1.0, std::fabs(want.losses[0])),
         fmt::format("the loss of the first step is {}, in f32 {}", got.losses[0], want.losses[0]));
  demand_same_way(got, want);
  return fmt::format("loss {:.4g} -> {:.4g}, in f32 {:.4g}", got.losses.front(), got.losses.back(),
                     want.losses.back());
}

/// What the driver says is gone, beside what the plan said would be.
std::string memory_is_planned(const Place& place, const Training& t) {
  const auto program = loaded(place, t.graph);
  {
    run::DeviceExecutor warm(program);  // what libraries and drivers load when it is first used stays
    test::train_on_device(t, warm, 3);
  }
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
