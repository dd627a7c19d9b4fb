// How long a program for a GPU takes to be ready, as far as that can be measured without one: planning for sm_90, then NVRTC over all of its
// kernels with an empty cache and with a full one, and cuDNN's plans for an H200, as they are first made and from the texts that are kept on disk.
// Heuristics of cuBLASLt and loading into a device are not part of it. Wall time and processor time, so that neighbours can be told from work.
// cuDNN loads where there is a driver; where there is none, one that only lets it load:
//   LD_LIBRARY_PATH=build/release/fakes/driver_for_cudnn build/release/bin/bench/bench_gpu_compile
#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <thread>

#include "nn/losses.h"
#include "nn/models.h"
#include "nn/optim.h"
#include "run/device_program.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/driver/dnn_engine.h"
#include "target/cuda/driver/nvrtc_compiler.h"
#include "target/cuda/port.h"
#include "tensor/compile.h"

namespace {

using namespace espalier;
namespace driver = target::cuda::driver;

struct Time {
  double wall, cpu;
};

template <class Work>
Time measured(const Work& work) {
  const auto cpu = [] {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const auto start = std::chrono::steady_clock::now();
  const double before = cpu();
  work();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), cpu() - before};
}

/// The plans of a program's convolutions, each once, one after the other as a device that is loaded makes them; none where there is no cuDNN.
struct Plans {
  size_t count = 0;
  Time cold{}, warm{};
};
std::optional<Plans> measured_plans(driver::Libraries& libraries, const run::Program& program) {
  if (!libraries.dnn().api) return std::nullopt;
  std::map<std::string, target::ConvCall> calls;
  for (const run::Step& s : program.steps())
    for (const target::CallRecord& c : s.kernel->calls())
      if (const auto* conv = std::get_if<target::ConvCall>(&c.work))
        calls.emplace(target::text(*conv), *conv);
  const driver::DnnPlanner planner(*libraries.dnn().api, driver::dnn_h200_json);
  std::vector<std::string> kept;
  Plans out{.count = calls.size()};
  out.cold = measured([&] {
    for (const auto& [text, call] : calls) {
      auto made = planner.plan(call);
      if (const auto* refusal = std::get_if<driver::DnnRefusal>(&made))
        throw std::runtime_error(text + ": " + refusal->reason);
      kept.push_back(std::get<driver::DnnPlan>(made).json());
    }
  });
  out.warm = measured([&] {
    for (const std::string& json : kept)
      if (const auto again = planner.restore(json); std::holds_alternative<driver::DnnRefusal>(again))
        throw std::runtime_error("a plan is not made again: " + std::get<driver::DnnRefusal>(again).reason);
  });
  return out;
}

void measure(const std::string& name, const TensorFn& fn, const std::vector<ir::Type>& types, bool train) {
  CompileOptions traced;
  traced.freeze = !train;
  const Trace t = trace(fn, types, traced);
  run::CompileOptions options;
  options.target = &target::cuda::cuda_target(90);
  options.precision = pass::Precision::bf16;
  std::shared_ptr<const run::Program> program;
  const Time plan = measured([&] { program = run::Program::compile(t.graph, options); });
  const std::vector<target::KernelSource> sources = run::kernel_sources(*program);

  driver::Libraries libraries(driver::search_places(driver::search_environment()));
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / fmt::format("espalier_gpu_compile_{}", ::getpid());
  const auto compile = [&] {
    ObjectCache cache(folder);
    driver::NvrtcCompiler nvrtc(
        libraries,
        {target::cuda::port_text(),
         {std::begin(target::cuda::nvrtc_options), std::end(target::cuda::nvrtc_options)}},
        cache);
    return measured([&] { nvrtc.compile(sources, 90); });
  };
  libraries.nvrtc();
  const Time cold = compile(), warm = compile();
  std::filesystem::remove_all(folder);
  fmt::print("| {}, {} | {} | {} | {:.2f} ({:.2f}) | {:.2f} ({:.2f}) | {:.3f} ({:.3f}) |", name,
             train ? "training" : "inference", program->steps().size(), sources.size(), plan.wall, plan.cpu,
             cold.wall, cold.cpu, warm.wall, warm.cpu);
  if (const auto dnn = measured_plans(libraries, *program))
    fmt::print(" {} | {:.2f} ({:.2f}) | {:.2f} ({:.2f}) |\n", dnn->count, dnn->cold.wall, dnn->cold.cpu,
               dnn->warm.wall, dnn->warm.cpu);
  else fmt::print(" | | |\n");
}

template <class Net>
void measure_both(const std::string& name, Net net, const ir::Type& x, const ir::Type& y,
                  Tensor (*loss)(const Tensor&, const Tensor&)) {
  measure(
      name, [&](const std::vector<Tensor>& in) { return std::vector{net(in[0], nn::Mode::eval)}; }, {x},
      false);
  nn::Sgd sgd(parameters_of(net), nn::SgdOptions{.rate = 0.1, .momentum = 0.9});
  measure(
      name,
      [&](const std::vector<Tensor>& in) {
        const Tensor value = loss(net(in[0], nn::Mode::train), in[1]);
        sgd.minimise(value);
        return std::vector{value};
      },
      {x, y}, true);
}

}  // namespace

int main() try {
  constexpr int64_t batch = 32;
  fmt::print("bf16, batch {}, for sm_90; {} processors; seconds of wall time (of processor time)\n\n", batch,
             std::thread::hardware_concurrency());
  fmt::print(
      "| program | steps | kernels | planning | NVRTC, cold | warm | cuDNN's plans | cold | warm |\n"
      "|---|---|---|---|---|---|---|---|---|\n");
  nn::Init init(1);
  measure_both("ResNet-50, 224 x 224", nn::resnet50(init), {ir::Dtype::f32, {batch, 224, 224, 3}},
               {ir::Dtype::i64, {batch}}, nn::cross_entropy);
  measure_both("U-Net (ResNet-18), 128 x 128", nn::UNet(3, 1, init), {ir::Dtype::f32, {batch, 128, 128, 3}},
               {ir::Dtype::f32, {batch, 128, 128, 1}}, nn::bce_with_logits);
} catch (const std::exception& e) {
  fmt::print(stderr, "gpu_compile: {}\n", e.what());
  return 1;
}
