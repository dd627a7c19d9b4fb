// espalier devices: what this machine can run on.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/object_cache.h"
#include "base/threads.h"
#include "run/ceilings.h"
#include "run/targets.h"
#include "target/cpu/cpu_features.h"
#include "target/cuda/plugin.h"
#include "tool/commands.h"
#include "tool/cuda_report.h"
#include "tool/json.h"

namespace espalier::tool {

namespace {

nlohmann::json describe(bool measure) {
  nlohmann::json targets = nlohmann::json::array();
  for (const run::NamedTarget& t : run::targets())
    targets.push_back({{"name", std::string(t.name)}, {"what", std::string(t.doc)}});
  const ObjectCache& cache = object_cache();
  nlohmann::json out{
      {"cpu", target::cpu::cpu_name()},
      {"features", target::cpu::cpu_features().text()},
      {"threads", available_threads()},
      {"fast_precision", std::string(ir::dtype_name(run::default_target().spec().fast_dtype()))},
      {"kernel_cache", {{"folder", cache.directory().string()}, {"refused", cache.refusal()}}},
      {"targets", targets}};
  if (measure) {
    const run::Ceilings& ceilings = run::ceilings();
    out["f32_gflops"] = ceilings.f32_flops * 1e-9;
    out["bf16_gflops"] = ceilings.bf16_flops * 1e-9;
    out["read_gbps"] = ceilings.read_bytes * 1e-9;
  }
  return out;
}

void print_cpu(const nlohmann::json& out) {
  const auto text = [&](const char* key) { return out[key].get<std::string>(); };
  fmt::print("cpu      {} ({}), {} threads, fastest precision {}\n", text("cpu"), text("features"),
             available_threads(), text("fast_precision"));
  if (out.contains("f32_gflops"))
    fmt::print("         f32 {:.0f} GFLOP/s, bf16 {:.0f} GFLOP/s, memory {:.1f} GB/s\n",
               out["f32_gflops"].get<double>(), out["bf16_gflops"].get<double>(),
               out["read_gbps"].get<double>());
  const std::string folder = out["kernel_cache"]["folder"], refused = out["kernel_cache"]["refused"];
  fmt::print("cache    {}\n", !folder.empty() ? folder : refused.empty() ? "none" : "none: " + refused);
  for (const auto& t : out["targets"])
    fmt::print("target   {:10} {}\n", t["name"].get<std::string>(), t["what"].get<std::string>());
}

}  // namespace

void add_devices(CLI::App& app, int&) {
  struct Options {
    bool json = false, measure = false;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand(
      "devices", "List the processors, the GPUs, NVIDIA's libraries and the targets of this machine");
  c->add_flag("--json", o->json, "one JSON object (docs/devices.schema.json); what is unavailable is null");
  c->add_flag("--measure", o->measure, "measure the CPU's ceilings too (about a second)");
  c->footer(
      "A machine without a GPU is no error. For each library that is missing, the places where it was looked "
      "for are listed with the reason.\n"
      "ESPALIER_CUDA_PATH=FOLDER[:FOLDER...] is searched first; the word off in it ends the search.\n"
      "ESPALIER_PLUGIN_PATH=FOLDER[:FOLDER...] is searched first for libespalier_cuda.so.\n"
      "Examples:\n"
      "  espalier devices\n"
      "  espalier devices --measure --json\n"
      "  espalier devices --json | jq '.gpus[] | {name, memory_free_bytes, temperature_celsius}'\n"
      "  ESPALIER_CUDA_PATH=/opt/nvidia/lib espalier devices\n"
      "  CUDA_VISIBLE_DEVICES=1 espalier devices");
  c->callback([o] {
    nlohmann::json out = describe(o->measure);
    const target::cuda::CudaReport report = target::cuda::report(target::cuda::Ask::everything);
    out.update(cuda_json(report, target::cuda::plugin()));
    if (o->json) {
      fmt::print("{}\n", json_line(out));
      return;
    }
    print_cpu(out);
    fmt::print("{}", cuda_text(report, target::cuda::plugin()));
  });
}

}  // namespace espalier::tool
