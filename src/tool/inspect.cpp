// espalier inspect: what is in a model, what a pass makes of it, what will run.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "run/program.h"
#include "run/targets.h"
#include "tool/commands.h"
#include "tool/model_file.h"

namespace espalier::tool {

namespace {

struct Options {
  std::string model, precision = "f32";
  int64_t batch = 1;
  bool graph = false, passes = false, plan = false, json = false;
};

void print_summary(const ModelFile& file, bool json) {
  const Model& m = file.model;
  std::map<std::string, int> ops;
  for (const ir::Node* n : m.graph().nodes())
    if (n->op().kind != ir::Kind::leaf) ++ops[std::string(n->op().name)];
  int64_t elements = 0;
  for (const Parameter& p : m.parameters()) elements += p.storage().size();
  nlohmann::json out{{"name", m.graph().name},
                     {"parameters", elements},
                     {"parameter_tensors", m.parameters().size()},
                     {"ops", ops},
                     {"metadata", file.metadata}};
  for (size_t i = 0; i < m.arguments(); ++i) out["inputs"][m.argument_names()[i]] = m.argument_type(i).text();
  for (const ir::Output& o : m.graph().outputs) out["outputs"][o.name] = o.value.type().text();
  if (json) {
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("model {}: {} parameters in {} tensors\n", m.graph().name, elements, m.parameters().size());
  for (size_t i = 0; i < m.arguments(); ++i)
    fmt::print("input  {} {}\n", m.argument_names()[i], m.argument_type(i).text());
  for (const ir::Output& o : m.graph().outputs) fmt::print("output {} {}\n", o.name, o.value.type().text());
  for (const auto& [name, count] : ops) fmt::print("  {:4} x {}\n", count, name);
  for (const auto& [key, value] : file.metadata) fmt::print("{} = {}\n", key, value);
}

void run_inspect(const Options& o) {
  const ModelFile file = load_model(o.model);
  if (o.graph) {
    ir::ConstantPool pool;
    fmt::print("{}", ir::print(file.model.graph(), &pool));
  }
  if (o.passes || o.plan) {
    run::CompileOptions c;
    c.precision = pass::precision_of_name(o.precision);
    const ir::Graph graph = file.model.frozen();
    for (const std::string& symbol : ir::symbols_of(graph)) c.symbols[symbol] = o.batch;
    if (o.passes)
      c.print_changed = [](std::string_view pass, const std::string& text) {
        fmt::print("# after {}\n{}", pass, text);
      };
    const auto program = run::Program::compile(graph, c);
    if (o.plan) fmt::print("{}", program->text());
  }
  if (!o.graph && !o.passes && !o.plan) print_summary(file, o.json);
}

}  // namespace

void add_inspect(CLI::App& app, int&) {
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand(
      "inspect", "Show a model's inputs, outputs, ops; its graph, what each pass makes of it, its plan");
  c->add_option("MODEL", o->model, "an ONNX file")->required();
  c->add_flag("--graph", o->graph, "the graph as text");
  c->add_flag("--passes", o->passes, "the graph after every pass that changed it");
  c->add_flag("--plan", o->plan, "the planned program: kernels, buffers, memory");
  c->add_option("--precision", o->precision, "for --passes and --plan")->capture_default_str();
  c->add_option("--batch", o->batch, "for --passes and --plan")->capture_default_str();
  c->add_flag("--json", o->json, "the summary as one JSON object");
  c->footer(
      "Examples:\n  espalier inspect model.onnx\n  espalier inspect model.onnx --plan --precision bf16 "
      "--batch 16");
  c->callback([o] { run_inspect(*o); });
}

}  // namespace espalier::tool
