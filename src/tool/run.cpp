// espalier run: a saved model on arrays from files.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/threads.h"
#include "format/numpy.h"
#include "tool/commands.h"
#include "tool/json.h"
#include "tool/model_file.h"
#include "tool/options.h"

namespace espalier::tool {

namespace {

struct Options {
  std::string model, output, precision, target;
  std::vector<std::string> inputs, disabled;
  int threads = 0;
  bool exact = false, json = false;
};

using Arrays = std::map<std::string, ir::Array>;

/// The arrays of `NAME=FILE.npy` options.
Arrays read_arrays(const std::vector<std::string>& options) {
  Arrays arrays;
  for (const std::string& o : options) {
    const NamedText n = named_text("--input", o, "NAME=FILE.npy");
    if (!arrays.emplace(n.name, format::load_npy(n.text)).second)
      throw UserError({"--input", "names an input twice", o, "each input once"});
  }
  return arrays;
}

/// The model with the arrays' dims where its inputs are symbolic.
ModelFile load_for(const std::string& path, const Arrays& arrays) {
  std::map<std::string, std::vector<int64_t>> dims;
  for (const auto& [name, array] : arrays) dims[name] = array.dims();
  return load_model(path, dims);
}

/// In the order of the model's arguments.
std::vector<Tensor> in_order(const Model& model, const Arrays& arrays) {
  const std::vector<std::string>& names = model.argument_names();
  for (const auto& [name, array] : arrays)
    if (std::find(names.begin(), names.end(), name) == names.end())
      throw UserError({"--input", "names no input of the model", name, join(names, ", ")});
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < names.size(); ++i) {
    const auto at = arrays.find(names[i]);
    if (at == arrays.end())
      throw UserError({"--input", "is missing for " + names[i], "", names[i] + "=FILE.npy"});
    const ir::Type want = model.argument_type(i), got = at->second.type();
    if (want.dtype != got.dtype)
      throw UserError({"input " + names[i], "has another dtype than the model's", got.text(), want.text()});
    tensors.emplace_back(at->second);
  }
  return tensors;
}

/// A name as a file's: nothing that leads out of the folder.
std::string file_name(std::string name) {
  for (char& c : name)
    if (c == '/' || c == '\\' || c == '\0') c = '_';
  return (name.empty() || name[0] == '.' ? "_" + name : name) + ".npy";
}

void run_model(const Options& o) {
  if (o.threads != 0) set_threads(o.threads);
  const Arrays arrays = read_arrays(o.inputs);
  const ModelFile file = load_for(o.model, arrays);
  const std::vector<Tensor> inputs = in_order(file.model, arrays);
  CompileOptions c;
  const auto kept = file.metadata.find("espalier.precision");
  c.precision = !o.precision.empty() ? o.precision : kept != file.metadata.end() ? kept->second : "f32";
  c.target = o.target;
  c.exact = o.exact;
  c.freeze = true;
  c.disabled_passes = {o.disabled.begin(), o.disabled.end()};
  Compiled program = compile([&](const std::vector<Tensor>& in) { return file.model(in); }, c);
  const std::vector<Tensor> results = program(inputs);
  std::filesystem::create_directories(o.output);
  nlohmann::json written = nlohmann::json::array();
  for (size_t i = 0; i < results.size(); ++i) {
    const std::string& name = file.model.result_names()[i];
    const std::filesystem::path path = std::filesystem::path(o.output) / file_name(name);
    const std::string type = results[i].array().type().text();
    format::save_npy(path, results[i].array());
    written.push_back({{"name", name}, {"file", path.string()}, {"type", type}});
    if (!o.json) fmt::print("{} {}\n", path.string(), type);
  }
  if (o.json)
    fmt::print("{}\n", json_line({{"model", o.model}, {"precision", c.precision}, {"outputs", written}}));
}

}  // namespace

void add_run(CLI::App& app, int&) {
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("run", "Run a model on arrays from .npy files");
  c->add_option("MODEL", o->model, "an ONNX file")->required();
  c->add_option("--input", o->inputs, "NAME=FILE.npy, once for each input; its dims bind symbolic ones")
      ->required();
  c->add_option("--output", o->output, "folder for one NAME.npy per output")->required();
  add_precision_option(*c, o->precision,
                       "f32, bf16 or f16 (default: what the file was optimised for, else f32)");
  add_threads_option(*c, o->threads);
  add_target_option(*c, o->target);
  add_exact_option(*c, o->exact);
  add_disable_option(*c, o->disabled);
  c->add_flag("--json", o->json, "the files written, as one JSON object");
  c->footer(
      "Examples:\n  espalier run model.onnx --input x=slices.npy --output results\n"
      "  espalier run model.onnx --input x=a.npy --input y=b.npy --output results --precision bf16 --json");
  c->callback([o] { run_model(*o); });
}

}  // namespace espalier::tool
