#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/file.h"
#include "gpu_check/check.h"
#include "tensor/compile.h"
#include "tool/json.h"
#include "tool/networks.h"

namespace espalier::gpu_check {

namespace {

using nlohmann::json;

struct Case {
  const char* network;
  int64_t batch;
  bool trains;
  pass::Precision precision;
  bool tf32 = false;  ///< f32 that may round to TF32
};

const char* precision_of(const Case& c) {
  using enum pass::Precision;
  return c.precision == bf16 ? "bf16" : c.precision == f16 ? "f16" : c.tf32 ? "tf32" : "f32";
}

std::string name_of(const Case& c) {
  return fmt::format("{} {} batch {} {}", c.network, c.trains ? "training" : "inference", c.batch,
                     precision_of(c));
}

/// The step of a case as a graph; the states begin as the network's parameters.
struct Step {
  ir::Graph graph;
  std::vector<Parameter> parameters;
  std::vector<std::string> inputs;  ///< of the parameters
  std::vector<ir::Array> data;
};

Step step_of(const Case& c) {
  tool::Network net = tool::make_network(c.network, c.batch);
  Step step;
  if (c.trains) {
    const std::vector<ir::Type> types{net.input, net.target};
    Trace t = trace(
        [&](const std::vector<Tensor>& in) {
          const Tensor loss = net.loss(net.forward(in[0], nn::Mode::train), in[1]);
          net.optimiser->minimise(loss);
          return std::vector<Tensor>{loss};
        },
        types);
    step = {std::move(t.graph), std::move(t.parameters), std::move(t.inputs), {}};
    step.data.push_back(tool::random_data(net.input, 0, false, 1));
    step.data.push_back(tool::random_data(net.target, net.classes, net.binary, 2));
  } else {
    const std::vector<ir::Type> types{net.input};
    step.graph = Model::traced(
                     [&](const std::vector<Tensor>& in) {
                       return std::vector<Tensor>{net.forward(in[0], nn::Mode::eval)};
                     },
                     types)
                     .frozen();
    step.data.push_back(tool::random_data(net.input, 0, false, 1));
  }
  return step;
}

/// The elements of a program's input: those of the parameter that it is, else the next of the data.
const ir::Array& elements(const Step& step, const std::string& input, size_t& next) {
  const auto p = std::find(step.inputs.begin(), step.inputs.end(), input);
  return p == step.inputs.end() ? step.data.at(next++)
                                : step.parameters[static_cast<size_t>(p - step.inputs.begin())].storage();
}

/// What the device is given stays the same; it is uploaded with every step, as a loader's batches would be. States only when `first`.
void feed(run::DeviceExecutor& e, const Step& step, bool first) {
  size_t next = 0;
  for (size_t i = 0; i < e.program().inputs().size(); ++i) {
    const std::string& name = e.program().inputs()[i].name;
    const ir::Array& a = elements(step, name, next);
    if (!e.program().is_state_input(i)) std::memcpy(e.input(i), a.data(), static_cast<size_t>(a.bytes()));
    else if (first) e.write_state(name, a.data());
  }
}

/// What part 3 writes down, and the ceilings that it is held against.
struct Speeds {
  bool begun = false;
  json rows = json::array();
  double copy_gbps = 0;
  std::map<std::string, double> tflops;  ///< of large products, by precision
};

bool same_case(const json& a, const json& b) {
  for (const char* key : {"what", "case", "batch", "precision"})
    if (a.value(key, json()) != b.value(key, json())) return false;
  return true;
}

/// Where this run makes a part of the checks, what an earlier one wrote of this device.
void begin(const Place& place, Speeds& speeds) {
  if (speeds.begun) return;
  speeds.begun = true;
  const std::filesystem::path file = place.folder / "speed.json";
  if (!place.partial || !std::filesystem::exists(file)) return;
  const json earlier = json::parse(read_file(file), nullptr, false);
  if (!earlier.is_object() || earlier.value("device", "") != place.device->info().name.value_or("")) return;
  speeds.rows = earlier.value("steps", json::array());
  speeds.copy_gbps = earlier.value("ceiling_gbps", 0.0);
  speeds.tflops = earlier.value("ceiling_tflops", speeds.tflops);
}

void write(const Place& place, const Speeds& speeds) {
  json libraries = json::object();
  for (const target::DeviceLibrary& l : place.device->libraries())
    libraries[l.name] = l.missing.empty() ? l.version : "missing: " + l.missing;
  write_file(place.folder / "speed.json", tool::json_line({{"device", place.device->info().name.value_or("")},
                                                           {"libraries", libraries},
                                                           {"ceiling_gbps", speeds.copy_gbps},
                                                           {"ceiling_tflops", speeds.tflops},
                                                           {"steps", speeds.rows}}) +
                                              "\n");
}

void add_row(Speeds& speeds, json row) {
  for (json& r : speeds.rows)
    if (same_case(r, row)) {
      r = std::move(row);
      return;
    }
  speeds.rows.push_back(std::move(row));
}

std::string ceilings(const Place& place, Speeds& speeds) {
  begin(place, speeds);
  speeds.copy_gbps = copy_gbps(place);
  std::string missing;
  for (const auto& [name, dtype, tf32] :
       {std::tuple{"f32", ir::Dtype::f32, false}, std::tuple{"bf16", ir::Dtype::bf16, false},
        std::tuple{"f16", ir::Dtype::f16, false}, std::tuple{"tf32", ir::Dtype::f32, true}})
    try {
      speeds.tflops[name] = product_tflops(place, dtype, tf32);
    } catch (const Lacks& e) {
      missing = e.what();
    }
  write(place, speeds);
  if (!missing.empty()) return fmt::format("{:.0f} GB/s; {}", speeds.copy_gbps, missing);
  return fmt::format("{:.0f} GB/s, {:.0f} TFLOP/s in f32, {:.0f} in bf16", speeds.copy_gbps,
                     speeds.tflops["f32"], speeds.tflops["bf16"]);
}

std::string share(double of, double ceiling) {
  return ceiling > 0 ? fmt::format(" ({:.2f} of the ceiling)", of / ceiling) : "";
}

/// Steps behind each other, as a training has them: milliseconds of one.
std::string speed_of(const Place& place, const Case& c, Speeds& speeds, const Loaded& programs) {
  begin(place, speeds);
  const Step step = step_of(c);
  const auto& program = programs.at(0);
  run::DeviceExecutor e(program);
  for (int slot = 0; slot < e.options().slots; ++slot) {
    feed(e, step, slot == 0);
    e.submit();
  }
  const int group = place.small ? 1 : 10;
  const double ms = median_ms(place.small ? 3 : 10,
                              [&] {
                                run::Ticket last = 0;
                                for (int i = 0; i < group; ++i) {
                                  (void)e.input(0);  // what the slot holds is sent again
                                  last = e.submit();
                                }
                                e.wait(last);
                              }) /
                    group;
  const double tflops = 1e-9 * e.program().flops() / ms;
  int64_t bytes = 0;
  for (const target::CallRecord& call : program->calls()) bytes += call.cost.bytes;
  const double gbps = 1e-6 * static_cast<double>(bytes) / ms, most = speeds.tflops[precision_of(c)];
  add_row(speeds, {{"what", c.trains ? "train" : "infer"},
                   {"case", c.network},
                   {"batch", c.batch},
                   {"precision", precision_of(c)},
                   {"ms", ms},
                   {"tflops", tflops},
                   {"gbps", gbps},
                   {"launches", program->calls().size()},
                   {"planned_bytes", e.program().planned_bytes()},
                   {"load", target::text(program->executable().report())}});
  write(place, speeds);
  return fmt::format("{:.3f} ms a step, {:.1f} TFLOP/s{}, {:.0f} GB/s{}, {} launches; {}", ms, tflops,
                     share(tflops, most), gbps, share(gbps, speeds.copy_gbps), program->calls().size(),
                     target::text(program->executable().report()));
}

}  // namespace

std::vector<Check> speed_checks(bool small) {
  using enum pass::Precision;
  static constexpr Case full[] = {
      {"resnet50", 64, true, bf16},      {"unet-r18", 64, true, bf16},     {"resnet50", 64, false, bf16},
      {"unet-r18", 64, false, bf16},     {"resnet50", 64, true, f32},      {"unet-r18", 64, true, f32},
      {"resnet50", 1, false, bf16},      {"unet-r18", 1, false, bf16},     {"resnet50", 64, false, f32},
      {"unet-r18", 64, false, f32},      {"mlp-fraud", 256, true, f32},    {"mlp-fraud", 1, false, f32},
      {"resnet50", 64, true, f32, true}, {"unet-r18", 64, true, f32, true}};
  static constexpr Case few[] = {{"mlp-fraud", 4, true, f32, true}, {"mlp-fraud", 1, false, bf16}};
  const auto speeds = std::make_shared<Speeds>();
  std::vector<Check> all;
  all.push_back({"ceilings", {}, [speeds](const Place& p, const Loaded&) { return ceilings(p, *speeds); }});
  for (const Case& c : small ? std::span<const Case>(few) : std::span<const Case>(full))
    all.push_back({name_of(c),
                   [c] {
                     return std::vector<Wanted>{{step_of(c).graph, false, c.precision, c.tf32}};
                   },
                   [c, speeds](const Place& p, const Loaded& l) { return speed_of(p, c, *speeds, l); }});
  return all;
}

}  // namespace espalier::gpu_check
