// espalier run: a saved model on arrays from files.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "base/threads.h"
#include "format/numpy.h"
#include "format/onnx.h"
#include "tool/choices.h"
#include "tool/commands.h"
#include "tool/json.h"
#include "tool/model_file.h"
#include "tool/options.h"

namespace espalier::tool {

namespace {

struct Options {
  std::string model, output, precision, device = "cpu", choices;
  std::vector<std::string> inputs, disabled;
  int threads = 0;
  bool exact = false, tf32 = false, json = false;
  GpuSwitches gpu;
};

using Arrays = std::map<std::string, ir::Array>;

/// `NAME=FILE.npy` taken apart; a name may hold '=' itself, so the model's names decide.
NamedText input_of(const std::string& option, const std::vector<std::string>& names) {
  const std::string* longest = nullptr;
  for (const std::string& name : names)
    if (option.starts_with(name + "=") && (!longest || name.size() > longest->size())) longest = &name;
  if (longest) return {*longest, option.substr(longest->size() + 1)};
  const NamedText other = named_text("--input", option, "NAME=FILE.npy");
  throw UserError({"--input", "names no input of the model", other.name, join(names, ", ")});
}

/// The arrays of `NAME=FILE.npy` options.
Arrays read_arrays(const std::vector<std::string>& options, const std::vector<std::string>& names) {
  Arrays arrays;
  for (const std::string& o : options) {
    const NamedText n = input_of(o, names);
    if (n.text.empty()) throw UserError({"--input", "names no file", o, "NAME=FILE.npy"});
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

/// A name as a file's: nothing that leads out of the folder, and no control characters.
std::string file_name(std::string name) {
  for (char& c : name)
    if (c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '_';
  return name.empty() || name[0] == '.' ? "_" + name : name;
}

/// A file for each output: of its name, numbered where two names make one.
std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder,
                                            const std::vector<std::string>& names) {
  std::vector<std::filesystem::path> files;
  for (const std::string& name : names) {
    std::filesystem::path file = folder / (file_name(name) + ".npy");
    for (int n = 2; std::find(files.begin(), files.end(), file) != files.end(); ++n)
      file = folder / fmt::format("{}_{}.npy", file_name(name), n);
    files.push_back(std::move(file));
  }
  return files;
}

/// Compute; `prepare` is called when the inputs are known to fit, before the work.
std::vector<Tensor> compute(const Model& model, const CompileOptions& options,
                            const std::vector<Tensor>& inputs, const std::function<void()>& prepare) {
  Compiled program = compile([&](const std::vector<Tensor>& in) { return model(in); }, options);
  std::vector<ir::Type> types;
  for (const Tensor& t : inputs) types.push_back(t.array().type());
  (void)program.step(types);
  prepare();
  return program(inputs);
}

void run_model(const Options& o) {
  if (o.device == "null")
    throw UserError(
        {"--device", "computes nothing that could be written", o.device, "cpu, cuda or reference"});
  if (o.threads != 0) set_threads(o.threads);
  const ChosenDevice device = device_of(o.device, o.gpu);
  const run::Location tuned = tuned_place(device.device, o.choices);
  const Arrays arrays = read_arrays(o.inputs, format::onnx_input_names(o.model));
  const ModelFile file = load_for(o.model, arrays);
  const std::vector<Tensor> inputs = in_order(file.model, arrays);
  CompileOptions c;
  c.precision = precision_of(o.precision, file.metadata);
  c.device = device.device;
  c.sync = o.gpu.sync;
  c.graphs = !o.gpu.no_graphs;
  c.exact = o.exact;
  c.allow_tf32 = o.tf32;
  c.freeze = true;
  c.disabled_passes = {o.disabled.begin(), o.disabled.end()};
  const std::vector<std::filesystem::path> files = files_of(o.output, file.model.result_names());
  const std::vector<Tensor> results = compute(file.model, c, inputs, [&] {
    make_folder(o.output);
    for (const std::filesystem::path& f : files) check_writable(f);
  });
  nlohmann::json written = nlohmann::json::array();
  for (size_t i = 0; i < results.size(); ++i) {
    const std::string& name = file.model.result_names()[i];
    const std::string type = results[i].array().type().text();
    format::save_npy(files[i], results[i].array());
    written.push_back({{"name", name}, {"file", files[i].string()}, {"type", type}});
    if (!o.json) fmt::print("{} {}\n", files[i].string(), type);
  }
  if (o.json)
    fmt::print(
        "{}\n",
        json_line(
            {{"model", o.model}, {"precision", c.precision}, {"tf32", c.allow_tf32}, {"outputs", written}}));
}

}  // namespace

void add_run(CLI::App& app, int&) {
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("run", "Run a model on arrays from .npy files");
  c->add_option("MODEL", o->model, "an ONNX file")->required();
  c->add_option("--input", o->inputs, "an array for each input; its dims bind symbolic ones")
      ->type_name("NAME=FILE.npy")
      ->allow_extra_args(false);
  c->add_option("--output", o->output, "folder for one NAME.npy per output")->required();
  add_precision_option(*c, o->precision,
                       "f32, bf16 or f16 (default: what the file was optimised for, else f32)");
  add_threads_option(*c, o->threads);
  add_device_option(*c, o->device);
  add_choices_option(*c, o->choices);
  add_gpu_switches(*c, o->gpu);
  add_exact_option(*c, o->exact);
  add_tf32_option(*c, o->tf32);
  add_disable_option(*c, o->disabled);
  c->add_flag("--json", o->json, "the files written, as one JSON object");
  c->footer(
      "Examples:\n  espalier run model.onnx --input x=slices.npy --output results\n"
      "  espalier run model.onnx --input x=a.npy --input y=b.npy --output results --precision bf16 --json");
  c->callback([o] { run_model(*o); });
}

}  // namespace espalier::tool
