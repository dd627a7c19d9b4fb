// Whole networks as the CUDA target plans them: the steps of small ones as text, and what steps of large ones move and launch beside what
// they must (support/traffic_bound.h). See tests/golden/README.md.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "run/program.h"
#include "support/golden.h"
#include "support/network_graphs.h"
#include "support/traffic_bound.h"
#include "target/cuda/cuda_target.h"

namespace espalier::test {
namespace {

namespace fs = std::filesystem;

fs::path golden_file(const std::string& name) {
  return fs::path(ESPALIER_SOURCE_DIR) / "tests/golden/cuda_programs" / (name + ".txt");
}

void expect_golden(const std::string& name, const std::string& got) {
  const fs::path file = golden_file(name);
  if (updates_golden()) return write_file(file, got);
  EXPECT_TRUE(golden(fs::exists(file) ? read_file(file) : "", got, file));
}

std::shared_ptr<const run::Program> planned(const ir::Graph& graph, pass::Precision precision) {
  run::CompileOptions options;
  options.target = &target::cuda::cuda_target(90);
  options.precision = precision;
  return run::Program::compile(graph, options);
}

/// A record without the hash in a kernel's name, which changes with every word of its text.
std::string text_of(const target::CallRecord& call) {
  std::string text = target::text(call);
  if (const auto* kernel = std::get_if<target::KernelCall>(&call.work)) {
    const size_t at = text.find(kernel->kernel), end = at + kernel->kernel.size();
    text.erase(end - 17, 17);
  }
  return text;
}

/// Steps and records without places, which follow from sizes, workspaces and the order of steps.
std::string text_of(const run::Program& p) {
  int64_t copied = 0;
  for (const run::State& s : p.state()) copied += !s.in_place;
  std::string out = fmt::format("{} states, {} of them copied\n", p.state().size(), copied);
  for (const run::Step& s : p.steps()) {
    out += fmt::format("{} [{}] {}\n", s.op, s.kernel->name(), s.detail);
    for (const target::CallRecord& c : s.kernel->calls())
      out += fmt::format("  {}, {} bytes\n", text_of(c), c.cost.bytes);
  }
  return out;
}

TEST(CudaPrograms, StepsOfNetworksAreAsTheyWere) {
  for (const NetworkGraph& n : network_graphs(small_networks(), Optimisation::momentum))
    expect_golden(n.name, text_of(*planned(n.graph, pass::Precision::f32)));
}

/// Training in f16 with a scale of the loss that is found on the way, as the Trainer has it: the scale, whether the gradients are finite and
/// what follows from it are steps of the program, and the scale and the count of skipped steps come out as the loss does.
TEST(CudaPrograms, LossScalesAreStepsOfTheProgram) {
  nn::Init init(1);
  nn::Mlp net({32, 48, 10}, init);
  nn::Sgd optimiser(parameters_of(net), {.rate = 0.1});
  const nn::LossScale scale;
  const std::vector<ir::Type> arguments{{ir::Dtype::f32, {16, 32}}, {ir::Dtype::i64, {16}}};
  const Trace t = trace(
      [&](const std::vector<Tensor>& in) {
        const Tensor loss = nn::cross_entropy(net(in[0]), in[1]), used = scale.tensor();
        optimiser.minimise(loss, {.loss_scale = &scale});
        return std::vector<Tensor>{loss, used, scale.count()};
      },
      arguments);
  const auto program = planned(t.graph, pass::Precision::f16);
  std::string outputs;
  for (const run::Port& o : program->outputs())
    outputs += fmt::format("output {} {}\n", o.name, o.type.text());
  expect_golden("mlp_f16_scaled", text_of(*program) + outputs);
}

struct Traffic {
  int64_t bytes = 0, launches = 0;
};
Traffic traffic_of(const run::Program& p) {
  Traffic t;
  for (const run::Step& s : p.steps())
    for (const target::CallRecord& c : s.kernel->calls()) {
      t.bytes += c.cost.bytes;
      ++t.launches;
    }
  return t;
}

/// Counted, not measured: what the documentation shows.
TEST(CudaPrograms, LargeNetworksMoveAndLaunchLittleMoreThanTheyMustHeavy) {
  constexpr double most = 1.15;
  std::string table = "program          launches  least  ratio          bytes          least  ratio\n";
  for (const Optimisation how : {Optimisation::momentum, Optimisation::adam})
    for (const NetworkGraph& n : network_graphs({}, how)) {
      const Traffic t = traffic_of(*planned(n.graph, pass::Precision::f32));
      const TrafficBound least = traffic_bound(n.graph);
      const double bytes = static_cast<double>(t.bytes) / static_cast<double>(least.bytes),
                   launches = static_cast<double>(t.launches) / static_cast<double>(least.launches);
      table += fmt::format("{:<16} {:>8} {:>6} {:>6.2f} {:>14} {:>14} {:>6.2f}\n", n.name, t.launches,
                           least.launches, launches, t.bytes, least.bytes, bytes);
      EXPECT_LE(bytes, most) << n.name;
      EXPECT_LE(launches, most) << n.name;
      EXPECT_GT(bytes, 0.8) << n.name << ": what must move is counted too high to hold a plan against";
    }
  expect_golden("traffic", table);
}

}  // namespace
}  // namespace espalier::test
