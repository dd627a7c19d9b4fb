// espalier devices: what this machine can run on.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/threads.h"
#include "run/ceilings.h"
#include "run/targets.h"
#include "target/cpu/cpu_features.h"
#include "target/cpu/jit/object_cache.h"
#include "tool/commands.h"
#include "tool/json.h"

namespace espalier::tool {

namespace {

nlohmann::json describe(bool measure) {
  nlohmann::json targets = nlohmann::json::array();
  for (const run::NamedTarget& t : run::targets())
    targets.push_back({{"name", std::string(t.name)}, {"what", std::string(t.doc)}});
  const target::cpu::ObjectCache& cache = target::cpu::object_cache();
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

}  // namespace

void add_devices(CLI::App& app, int&) {
  struct Options {
    bool json = false, measure = false;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("devices", "List the processors and targets of this machine");
  c->add_flag("--json", o->json, "one JSON object");
  c->add_flag("--measure", o->measure, "measure the ceilings too (about a second)");
  c->footer("Examples:\n  espalier devices\n  espalier devices --measure --json");
  c->callback([o] {
    const nlohmann::json out = describe(o->measure);
    if (o->json) {
      fmt::print("{}\n", json_line(out));
      return;
    }
    const auto text = [&](const char* key) { return out[key].get<std::string>(); };
    fmt::print("cpu      {} ({}), {} threads, fastest precision {}\n", text("cpu"), text("features"),
               available_threads(), text("fast_precision"));
    if (o->measure)
      fmt::print("         f32 {:.0f} GFLOP/s, bf16 {:.0f} GFLOP/s, memory {:.1f} GB/s\n",
                 out["f32_gflops"].get<double>(), out["bf16_gflops"].get<double>(),
                 out["read_gbps"].get<double>());
    const std::string folder = out["kernel_cache"]["folder"], refused = out["kernel_cache"]["refused"];
    fmt::print("cache    {}\n", !folder.empty() ? folder : refused.empty() ? "none" : "none: " + refused);
    for (const auto& t : out["targets"])
      fmt::print("target   {:10} {}\n", t["name"].get<std::string>(), t["what"].get<std::string>());
  });
}

}  // namespace espalier::tool
