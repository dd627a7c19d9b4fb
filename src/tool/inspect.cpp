// espalier inspect: what is in a model, what each pass makes of it and how long it takes, what will run.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>

#include "base/text.h"
#include "run/program.h"
#include "run/targets.h"
#include "target/reference/interpreter.h"
#include "tensor/precision_text.h"
#include "tool/commands.h"
#include "tool/json.h"
#include "tool/model_file.h"
#include "tool/options.h"

namespace espalier::tool {

namespace {

struct Options {
  std::string model, precision, device = "cpu", stop_after;
  std::vector<std::string> disabled, dims;
  int64_t batch = 1;
  bool graph = false, passes = false, time = false, plan = false, list_passes = false, json = false;
  bool exact = false, tf32 = false, no_verify = false, batch_given = false;
  /// Is anything asked for that needs the passes to run?
  bool runs_passes() const {
    return passes || time || plan || !stop_after.empty() || !disabled.empty() || no_verify;
  }
  run::Location where{};  ///< of the device
};

nlohmann::json summary(const ModelFile& file) {
  const Model& m = file.model;
  std::map<std::string, int> ops;
  for (const ir::Node* n : m.graph().nodes())
    if (n->op().kind != ir::Kind::leaf) ++ops[std::string(n->op().name)];
  int64_t elements = 0;
  for (const Parameter& p : m.parameters()) elements += p.storage().size();
  nlohmann::json out{{"name", m.graph().name},
                     {"parameters", elements},
                     {"parameter_tensors", m.parameters().size()},
                     {"inputs", nlohmann::json::object()},
                     {"outputs", nlohmann::json::object()},
                     {"ops", ops},
                     {"metadata", file.metadata}};
  for (size_t i = 0; i < m.arguments(); ++i) out["inputs"][m.argument_names()[i]] = m.argument_type(i).text();
  for (const ir::Output& o : m.graph().outputs) out["outputs"][o.name] = o.value.type().text();
  return out;
}

void print_summary(const ModelFile& file, const nlohmann::json& s) {
  const Model& m = file.model;
  fmt::print("model {}: {} parameters in {} tensors\n", m.graph().name, s["parameters"].get<int64_t>(),
             m.parameters().size());
  for (size_t i = 0; i < m.arguments(); ++i)
    fmt::print("input  {} {}\n", m.argument_names()[i], m.argument_type(i).text());
  for (const ir::Output& o : m.graph().outputs) fmt::print("output {} {}\n", o.name, o.value.type().text());
  for (const auto& [name, count] : s["ops"].items()) fmt::print("  {:4} x {}\n", count.get<int>(), name);
  for (const auto& [key, value] : file.metadata) fmt::print("{} = {}\n", key, value);
}

/// The passes' results: one entry per pass, its text where it changed the graph.
struct Passes {
  pass::PipelineResult result;
  std::map<std::string, std::string, std::less<>> texts;
};

Passes run_passes(const Options& o, const Model& model) {
  ir::Graph graph = model.frozen();
  std::map<std::string, int64_t> symbols;
  for (const std::string& symbol : ir::symbols_of(graph)) symbols[symbol] = o.batch;
  Passes out;
  const pass::RunnerOptions options{.disabled = {o.disabled.begin(), o.disabled.end()},
                                    .stop_after = o.stop_after,
                                    .verify = !o.no_verify,
                                    .print_changed = [&](std::string_view pass, const std::string& text) {
                                      out.texts.emplace(pass, text);
                                    }};
  const pass::PassContext context{.spec = o.where.target->spec(),
                                  .evaluate = target::reference::evaluate_node,
                                  .precision = pass::precision_of_name(o.precision),
                                  .exact = o.exact};
  out.result = pass::run_passes(ir::specialise(graph, symbols), pass::pipeline(), context, options);
  return out;
}

std::string plan_text(const Options& o, const pass::PipelineResult& passed) {
  run::CompileOptions c;
  c.target = o.where.target;
  c.exact = o.exact;
  c.allow_tf32 = o.tf32;
  c.verify = !o.no_verify;
  return run::Program::compile_fused(passed.graph, c, passed.notes)->text();
}

const char* outcome(const pass::PassReport& r) {
  return r.skipped ? "disabled" : r.changed ? "changed" : "same";
}

void print_times(const Passes& passes) {
  int64_t sum = 0;
  for (const pass::PassReport& r : passes.result.reports) {
    fmt::print("{:20} {:9.3f} ms  {}\n", r.name, static_cast<double>(r.ns) * 1e-6, outcome(r));
    sum += r.ns;
  }
  fmt::print("{:20} {:9.3f} ms\n", "all passes", static_cast<double>(sum) * 1e-6);
}

nlohmann::json passes_json(const Options& o, const Passes& passes) {
  nlohmann::json out = nlohmann::json::array();
  for (const pass::PassReport& r : passes.result.reports) {
    nlohmann::json row{{"name", r.name}, {"ms", static_cast<double>(r.ns) * 1e-6}, {"outcome", outcome(r)}};
    if (const auto it = passes.texts.find(r.name); o.passes && it != passes.texts.end())
      row["graph"] = it->second;
    out.push_back(std::move(row));
  }
  return out;
}

void list_passes(bool json) {
  nlohmann::json out = nlohmann::json::array();
  for (const pass::Pass& p : pass::pipeline()) {
    if (!json) fmt::print("{:20} {}\n", p.name, p.doc);
    out.push_back({{"name", p.name}, {"why", p.doc}});
  }
  if (json) fmt::print("{}\n", json_line({{"passes", out}}));
}

void print_text(const Options& o, const ModelFile& file) {
  if (o.graph) {
    ir::ConstantPool pool;
    fmt::print("{}", ir::print(file.model.graph(), &pool));
  }
  if (o.runs_passes()) {
    const Passes passes = run_passes(o, file.model);
    if (o.passes)
      for (const pass::PassReport& r : passes.result.reports)
        if (const auto it = passes.texts.find(r.name); it != passes.texts.end())
          fmt::print("# after {}\n{}", r.name, it->second);
    if (o.time) print_times(passes);
    if (o.plan)
      fmt::print("# precision {}\n{}", precision_text(o.precision, o.tf32), plan_text(o, passes.result));
    if (!o.passes && !o.time && !o.plan) {
      ir::ConstantPool pool;
      fmt::print("{}", ir::print(passes.result.graph, &pool));
    }
  } else if (!o.graph) {
    print_summary(file, summary(file));
  }
}

void print_json(const Options& o, const ModelFile& file) {
  nlohmann::json out = summary(file);
  ir::ConstantPool pool;
  if (o.graph) out["graph"] = ir::print(file.model.graph(), &pool);
  if (o.runs_passes()) {
    const Passes passes = run_passes(o, file.model);
    out["passes"] = passes_json(o, passes);
    out["precision"] = o.precision;
    out["tf32"] = o.tf32;
    if (o.plan) out["plan"] = plan_text(o, passes.result);
  }
  fmt::print("{}\n", json_line(out));
}

void run_inspect(const Options& o) {
  if (o.list_passes) return list_passes(o.json);
  if (o.model.empty()) throw UserError({"--list-passes or MODEL", "is missing", "", "an ONNX file"});
  const ModelFile file = load_model(o.model, dims_of(o.dims));
  (void)batch_of(file.model, o.batch, o.batch_given);
  Options known = o;
  known.precision = precision_of(o.precision, file.metadata);
  if (o.json) print_json(known, file);
  else print_text(known, file);
}

}  // namespace

void add_inspect(CLI::App& app, int&) {
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand(
      "inspect", "Show a model's inputs, outputs, ops; its graph, what each pass makes of it, its plan");
  c->add_option("MODEL", o->model, "an ONNX file");
  c->add_flag("--graph", o->graph, "the graph as text");
  c->add_flag("--passes", o->passes, "the graph after every pass that changed it");
  c->add_flag("--time", o->time, "how long each pass took and whether it changed the graph");
  c->add_flag("--plan", o->plan, "the planned program: kernels, buffers, memory");
  c->add_flag("--list-passes", o->list_passes, "the passes in order, each with its reason; needs no model");
  std::vector<std::string> names;
  for (const pass::Pass& p : pass::pipeline()) names.emplace_back(p.name);
  c->add_option("--stop-after", o->stop_after, "the last pass to run; alone: the graph after it")
      ->type_name("PASS")
      ->check(CLI::IsMember(names));
  add_disable_option(*c, o->disabled);
  c->add_flag("--no-verify", o->no_verify, "do not check the graph after every pass");
  add_precision_option(*c, o->precision,
                       "of the passes and the plan (default: what the file was optimised for, else f32)");
  add_batch_option(*c, o->batch, o->batch_given, "the number that symbolic dims get for passes and plan");
  add_dims_option(*c, o->dims);
  add_device_option(*c, o->device);
  add_exact_option(*c, o->exact);
  add_tf32_option(*c, o->tf32);
  c->add_flag("--json", o->json, "all of it as one JSON object");
  c->footer(
      "Examples:\n  espalier inspect model.onnx\n  espalier inspect model.onnx --plan --precision bf16 "
      "--batch 16\n  espalier inspect model.onnx --passes --disable fold_batch_norm\n"
      "  espalier inspect model.onnx --stop-after expand_composites\n  espalier inspect model.onnx --time\n"
      "  espalier inspect --list-passes");
  c->callback([o] {
    const ChosenDevice device = device_of(o->device);
    o->where = run::find_location(device.device.name());
    run_inspect(*o);
  });
}

}  // namespace espalier::tool
