// espalier optimise: a saved model with its constants folded, for one precision; and what its program will be.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#include "base/text.h"
#include "format/onnx.h"
#include "pass/passes.h"
#include "run/program.h"
#include "run/targets.h"
#include "target/reference/interpreter.h"
#include "tool/commands.h"
#include "tool/json.h"
#include "tool/model_file.h"
#include "tool/options.h"

namespace espalier::tool {

namespace {

struct Options {
  std::string model, output, precision = "f32", device = "cpu";
  std::vector<std::string> dims, disabled;
  int64_t batch = 1;
  bool tf32 = false, batch_given = false, json = false;
};

/// The tensor-level passes that leave a graph any tool can read: algebra, constants, batch norms; without those disabled.
ir::Graph folded(const ir::Graph& graph, const kernel::TargetSpec& spec,
                 const std::vector<std::string>& disabled) {
  pass::PassContext context{.spec = spec, .evaluate = target::reference::evaluate_node};
  const pass::Pass passes[] = {pass::find_pass("simplify"), pass::find_pass("fold_constants"),
                               pass::find_pass("fold_batch_norm"), pass::find_pass("simplify"),
                               pass::find_pass("fold_constants")};
  pass::RunnerOptions options;
  for (const pass::Pass& p : passes)
    if (std::find(disabled.begin(), disabled.end(), p.name) != disabled.end())
      options.disabled.emplace(p.name);
  return pass::run_passes(graph, passes, context, options).graph;
}

void run_optimise(const Options& o) {
  const ChosenDevice device = device_of(o.device);
  const run::Location where = run::find_location(device.device.name());
  const target::Target& target = *where.target;
  ModelFile file = load_model(o.model, dims_of(o.dims));
  const int64_t batch = batch_of(file.model, o.batch, o.batch_given);
  const ir::Graph graph = folded(file.model.frozen(), target.spec(), o.disabled);
  run::CompileOptions c;
  c.disabled = {o.disabled.begin(), o.disabled.end()};
  c.target = &target;
  c.precision = pass::precision_of_name(o.precision);
  c.allow_tf32 = o.tf32;
  for (const std::string& symbol : ir::symbols_of(graph)) c.symbols[symbol] = o.batch;
  const auto program = run::Program::compile(graph, c);
  std::map<std::string, int> kernels;
  for (const run::Step& s : program->steps()) ++kernels[std::string(s.kernel->name())];
  file.metadata["espalier.precision"] = o.precision;
  format::OnnxSaveOptions save;
  file.metadata.erase("espalier.parameters");  // folded, they are others
  save.metadata = file.metadata;
  format::save_onnx(o.output, graph, save);
  const size_t before = file.model.graph().nodes().size(), after = graph.nodes().size();
  if (o.json) {
    fmt::print("{}\n", json_line({{"nodes_before", before},
                                  {"nodes_after", after},
                                  {"steps", program->steps().size()},
                                  {"planned_bytes", program->planned_bytes()},
                                  {"precision", o.precision},
                                  {"kernels", kernels},
                                  {"file", o.output}}));
    return;
  }
  fmt::print("{}: {} nodes became {}; {} kernels in {}, {} planned for batch {}\n", o.output, before, after,
             program->steps().size(), o.precision, bytes_text(program->planned_bytes()), batch);
  for (const auto& [name, count] : kernels) fmt::print("  {:4} x {}\n", count, name);
}

}  // namespace

void add_optimise(CLI::App& app, int&) {
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand(
      "optimise", "Fold constants and batch norms of a model and compile it for a precision");
  c->add_option("MODEL", o->model, "an ONNX file")->required();
  c->add_option("--output,-o", o->output, "the optimised model")->required();
  add_precision_option(*c, o->precision, "kept in the file");
  add_tf32_option(*c, o->tf32);
  add_batch_option(*c, o->batch, o->batch_given, "the batch whose plan is reported");
  add_dims_option(*c, o->dims);
  add_device_option(*c, o->device);
  add_disable_option(*c, o->disabled);
  c->add_flag("--json", o->json, "one JSON object");
  c->footer(
      "Examples:\n  espalier optimise model.onnx --precision bf16 -o model-bf16.onnx\n"
      "  espalier optimise model.onnx --dims x=1,512,512,3 -o model-512.onnx --json");
  c->callback([o] { run_optimise(*o); });
}

}  // namespace espalier::tool
