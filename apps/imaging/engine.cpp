#include "apps/imaging/engine.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "base/clock.h"
#include "op/norm.h"
#include "pass/passes.h"
#include "run/executor.h"
#include "run/targets.h"

namespace espalier::imaging {

namespace {

/// A line of /proc/self/status ("VmRSS", "VmHWM") in bytes; -1 when it is not there.
int64_t process_bytes(const std::string& name) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(name + ":")) return std::strtoll(line.c_str() + name.size() + 1, nullptr, 10) * 1024;
  return -1;
}

/// Let VmHWM start again from what is resident now; false where that is not allowed.
bool reset_peak() {
  std::ofstream out("/proc/self/clear_refs");
  out << "5" << std::flush;
  return out.good();
}

int64_t count_norms(const ir::Graph& graph) {
  const auto nodes = graph.nodes();
  return std::count_if(nodes.begin(), nodes.end(),
                       [](const ir::Node* n) { return &n->op() == &op::batch_norm_op; });
}

}  // namespace

ir::Graph freeze(const nn::UNet& network, data::Size2 size) {
  const ir::Type image{
      ir::Dtype::f32,
      {ir::Dim::symbol("batch"), size.height, size.width, network.encoder.options.in_channels}};
  CompileOptions options;
  options.argument_names = {"image"};
  options.result_names = {"logits"};
  options.name = "unet_resnet18";
  const auto forward = [&](const std::vector<Tensor>& x) {
    return std::vector<Tensor>{network(x[0], nn::Mode::eval)};
  };
  return Model::traced(forward, std::span(&image, 1), options).frozen();
}

Engine compile_engine(const ir::Graph& graph, const std::string& precision, int64_t batch) {
  Engine e{.precision = precision, .program = nullptr};
  ::malloc_trim(0);
  e.resident_before = process_bytes("VmRSS");
  const target::Target& target = run::default_target();
  const pass::PassContext context{.spec = target.spec(), .evaluate = {}};
  e.norms = count_norms(graph);
  e.folded = e.norms - count_norms(pass::fold_batch_norm(graph, context));
  for (const ir::Node* n : graph.nodes()) e.nodes += n->op().kind != ir::Kind::leaf;
  const int64_t start = now_ns();
  e.program = run::Program::compile(
      graph,
      {.target = &target, .precision = pass::precision_of_name(precision), .symbols = {{"batch", batch}}});
  e.compile_seconds = static_cast<double>(now_ns() - start) * 1e-9;
  return e;
}

Measurement measure(const Engine& engine, const data::SliceDataset& slices, int64_t runs, double seconds) {
  Measurement m;
  ::malloc_trim(0);
  const bool peak_known = reset_peak();
  const auto outputs = static_cast<int64_t>(slices.volumes().outputs().size());
  const data::Size2 size = slices.sample_size();
  std::vector<DiceCount> counts(static_cast<size_t>(outputs));
  std::vector<std::vector<float>> logits(static_cast<size_t>(slices.size()));
  run::Executor executor(engine.program);
  data::Rng rng(0, 0, 0);
  std::vector<ir::Array> images;
  for (int64_t i = 0; i < slices.size(); ++i) images.push_back(slices.get(i, rng)[0].value);
  std::memcpy(executor.input(0), images[0].data(), static_cast<size_t>(images[0].bytes()));
  executor.run();  // once untimed: pages come in
  const int64_t begin = now_ns();
  int64_t spent = 0;
  for (int64_t round = 0; round == 0 || (static_cast<int64_t>(m.milliseconds.size()) < runs &&
                                         static_cast<double>(now_ns() - begin) < seconds * 1e9);
       ++round)
    for (size_t i = 0; i < images.size(); ++i) {
      const int64_t start = now_ns();
      std::memcpy(executor.input(0), images[i].data(), static_cast<size_t>(images[i].bytes()));
      executor.run();
      const int64_t ns = now_ns() - start;
      spent += ns;
      m.milliseconds.push_back(static_cast<double>(ns) * 1e-6);
      if (round > 0) continue;
      const auto* out = static_cast<const float*>(executor.output(0));
      count_slice(slices, static_cast<int64_t>(i), out, counts);
      logits[i].assign(out, out + size.height * size.width * outputs);
    }
  if (peak_known && engine.resident_before > 0)
    m.peak_bytes = process_bytes("VmHWM") - engine.resident_before;
  m.slices_per_second = static_cast<double>(m.milliseconds.size()) / (static_cast<double>(spent) * 1e-9);
  std::sort(m.milliseconds.begin(), m.milliseconds.end());
  m.dice = dice_of(counts);
  m.logits = std::move(logits);
  return m;
}

}  // namespace espalier::imaging
