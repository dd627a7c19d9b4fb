// espalier run: a saved model on arrays from files.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "base/text.h"
#include "base/threads.h"
#include "format/numpy.h"
#include "tool/commands.h"
#include "tool/model_file.h"

namespace espalier::tool {

namespace {

struct Options {
  std::string model, output, precision, target;
  std::vector<std::string> inputs;
  int threads = 0;
  bool exact = false;
};

/// The arrays of `NAME=FILE.npy` options, in the order of the model's arguments.
std::vector<Tensor> read_inputs(const Model& model, const std::vector<std::string>& options) {
  const std::vector<std::string>& names = model.argument_names();
  std::vector<Tensor> arrays(names.size());
  for (const std::string& o : options) {
    const size_t equals = o.find('=');
    const std::string name = o.substr(0, equals);
    const auto at = std::find(names.begin(), names.end(), name);
    if (equals == std::string::npos || at == names.end())
      throw UserError(
          {"--input", "names no input of the model", o, "NAME=FILE.npy with NAME of " + join(names, ", ")});
    arrays[static_cast<size_t>(at - names.begin())] = Tensor(format::load_npy(o.substr(equals + 1)));
  }
  for (size_t i = 0; i < arrays.size(); ++i)
    if (!arrays[i]) throw UserError({"--input", "is missing for " + names[i], "", names[i] + "=FILE.npy"});
  return arrays;
}

/// A name as a file's: nothing that leads out of the folder.
std::string file_name(std::string name) {
  for (char& c : name)
    if (c == '/' || c == '\\' || c == '\0') c = '_';
  return (name.empty() || name[0] == '.' ? "_" + name : name) + ".npy";
}

void run_model(const Options& o) {
  if (o.threads != 0) set_threads(o.threads);
  const ModelFile file = load_model(o.model);
  const std::vector<Tensor> inputs = read_inputs(file.model, o.inputs);
  CompileOptions c;
  const auto kept = file.metadata.find("espalier.precision");
  c.precision = !o.precision.empty() ? o.precision : kept != file.metadata.end() ? kept->second : "f32";
  c.target = o.target;
  c.exact = o.exact;
  c.freeze = true;
  Compiled program = compile([&](const std::vector<Tensor>& in) { return file.model(in); }, c);
  const std::vector<Tensor> results = program(inputs);
  std::filesystem::create_directories(o.output);
  for (size_t i = 0; i < results.size(); ++i) {
    const std::filesystem::path path =
        std::filesystem::path(o.output) / file_name(file.model.result_names()[i]);
    format::save_npy(path, results[i].array());
    fmt::print("{} {}\n", path.string(), results[i].array().type().text());
  }
}

}  // namespace

void add_run(CLI::App& app, int&) {
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("run", "Run a model on arrays from .npy files");
  c->add_option("MODEL", o->model, "an ONNX file")->required();
  c->add_option("--input", o->inputs, "NAME=FILE.npy, once for each input")->required();
  c->add_option("--output", o->output, "folder for one NAME.npy per output")->required();
  c->add_option("--precision", o->precision,
                "f32 or bf16 (default: what the file was optimised for, else f32)");
  c->add_option("--threads", o->threads, "threads to use (default: all available)");
  c->add_option("--target", o->target, "cpu or reference (default: the best)");
  c->add_flag("--exact", o->exact, "no kernel or rewrite that rounds otherwise than the graph says");
  c->footer("Example:\n  espalier run model.onnx --input x=slices.npy --output results");
  c->callback([o] { run_model(*o); });
}

}  // namespace espalier::tool
