// espalier optimise: a saved model with its constants folded, for one precision; and what its program will be.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "format/onnx.h"
#include "pass/passes.h"
#include "run/program.h"
#include "run/targets.h"
#include "target/reference/interpreter.h"
#include "tool/commands.h"
#include "tool/model_file.h"

namespace espalier::tool {

namespace {

struct Options {
  std::string model, output, precision = "f32", target;
  int64_t batch = 1;
  bool json = false;
};

/// The tensor-level passes that leave a graph any tool can read: algebra, constants, batch norms.
ir::Graph folded(const ir::Graph& graph, const kernel::TargetSpec& spec) {
  pass::PassContext context{.spec = spec, .evaluate = target::reference::evaluate_node};
  const pass::Pass passes[] = {pass::find_pass("simplify"), pass::find_pass("fold_constants"),
                               pass::find_pass("fold_batch_norm"), pass::find_pass("simplify"),
                               pass::find_pass("fold_constants")};
  return pass::run_passes(graph, passes, context).graph;
}

void run_optimise(const Options& o) {
  (void)pass::precision_of_name(o.precision);
  const target::Target& target = o.target.empty() ? run::default_target() : run::find_target(o.target);
  ModelFile file = load_model(o.model);
  const ir::Graph graph = folded(file.model.frozen(), target.spec());
  run::CompileOptions c;
  c.target = &target;
  c.precision = pass::precision_of_name(o.precision);
  for (const std::string& symbol : ir::symbols_of(graph)) c.symbols[symbol] = o.batch;
  const auto program = run::Program::compile(graph, c);
  std::map<std::string, int> kernels;
  for (const run::Step& s : program->steps()) ++kernels[std::string(s.kernel->name())];
  file.metadata["espalier.precision"] = o.precision;
  format::OnnxSaveOptions save;
  save.metadata = file.metadata;
  format::save_onnx(o.output, graph, save);
  const size_t before = file.model.graph().nodes().size(), after = graph.nodes().size();
  if (o.json) {
    fmt::print("{}\n", nlohmann::json{{"nodes_before", before},
                                      {"nodes_after", after},
                                      {"steps", program->steps().size()},
                                      {"planned_bytes", program->planned_bytes()},
                                      {"precision", o.precision},
                                      {"kernels", kernels},
                                      {"file", o.output}}
                           .dump());
    return;
  }
  fmt::print("{}: {} nodes became {}; {} kernels in {}, {} planned for batch {}\n", o.output, before, after,
             program->steps().size(), o.precision, bytes_text(program->planned_bytes()), o.batch);
  for (const auto& [name, count] : kernels) fmt::print("  {:4} x {}\n", count, name);
}

}  // namespace

void add_optimise(CLI::App& app, int&) {
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand(
      "optimise", "Fold constants and batch norms of a model and compile it for a precision");
  c->add_option("MODEL", o->model, "an ONNX file")->required();
  c->add_option("--output,-o", o->output, "the optimised model")->required();
  c->add_option("--precision", o->precision, "f32 or bf16; kept in the file")->capture_default_str();
  c->add_option("--batch", o->batch, "the batch whose plan is reported")->capture_default_str();
  c->add_option("--target", o->target, "cpu, reference or null (default: the best)");
  c->add_flag("--json", o->json, "one JSON object");
  c->footer("Example:\n  espalier optimise model.onnx --precision bf16 -o model-bf16.onnx");
  c->callback([o] { run_optimise(*o); });
}

}  // namespace espalier::tool
