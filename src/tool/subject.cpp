#include "tool/subject.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "base/text.h"
#include "base/threads.h"
#include "run/runner.h"
#include "tool/choices.h"
#include "tool/model_file.h"
#include "tool/options.h"

namespace espalier::tool {

void add_program_options(CLI::App& command, SubjectOptions& o) {
  command.add_option("MODEL", o.model, "an ONNX file");
  command.add_option("--net", o.net, "a network built in")
      ->type_name("NAME")
      ->check(CLI::IsMember(network_names()));
  command.add_flag("--train", o.train, "the whole training step (forward, backward, update) of a network");
  add_batch_option(command, o.batch, o.batch_given, "examples per run");
  add_dims_option(command, o.dims);
  add_precision_option(command, o.precision,
                       "of matrix work and activations (default: what the file was optimised for, else f32)");
  add_exact_option(command, o.exact);
  add_tf32_option(command, o.tf32);
  add_disable_option(command, o.disabled);
}

void add_subject_options(CLI::App& command, SubjectOptions& o) {
  add_program_options(command, o);
  add_threads_option(command, o.threads);
  add_device_option(command, o.device);
}

namespace {

/// The model of a file, run as it is.
void take_model(SubjectFunction& f, const SubjectOptions& o) {
  if (o.train) throw UserError({"--train", "works on networks built in", o.model, "--net NAME"});
  f.name = o.model;
  ModelFile file = load_model(o.model, dims_of(o.dims));
  f.options.precision = precision_of(o.precision, file.metadata);
  const auto model = std::make_shared<const Model>(std::move(file.model));
  f.batch = batch_of(*model, o.batch, o.batch_given);
  f.types = model_types(*model, o.batch);
  f.function = [model](const std::vector<Tensor>& in) { return (*model)(in); };
}

void take_network(SubjectFunction& f, const SubjectOptions& o) {
  if (!o.dims.empty()) throw UserError({"--dims", "is of models in files", "--net " + o.net, "MODEL"});
  f.name = o.net;
  f.options.precision = precision_of(o.precision, {});
  f.batch = o.batch;
  f.network = std::make_shared<Network>(make_network(o.net, o.batch));
  f.types.push_back(f.network->input);
  if (o.train) {
    f.types.push_back(f.network->target);
    if (f.network->classes) f.options.argument_ranges[1] = {0, f.network->classes};
  }
  f.function = [net = f.network, train = o.train](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    if (!train) return {net->forward(in[0], nn::Mode::eval)};
    const Tensor loss = net->loss(net->forward(in[0], nn::Mode::train), in[1]);
    net->optimiser->minimise(loss);
    return {loss};
  };
}

}  // namespace

SubjectFunction subject_function(const SubjectOptions& o) {
  if (o.model.empty() == o.net.empty())
    throw UserError(
        {"--net or MODEL", "name exactly one", o.model.empty() ? "none" : "both", "a file, or --net NAME"});
  SubjectFunction f;
  f.options.exact = o.exact;
  f.options.allow_tf32 = o.tf32;
  f.options.freeze = !o.train;
  f.options.disabled_passes = {o.disabled.begin(), o.disabled.end()};
  if (o.model.empty()) take_network(f, o);
  else take_model(f, o);
  return f;
}

Subject::Subject(const SubjectOptions& o) : gpu_(o.gpu) {
  if (o.threads != 0) set_threads(o.threads);
  device_ = device_of(o.device, o.gpu);
  place_ = tuned_place(device_.device, o.choices);
  const int64_t start = now_ns();
  function_ = subject_function(o);
  function_.options.device = device_.device;
  function_.options.sync = o.gpu.sync;
  function_.options.graphs = !o.gpu.no_graphs;
  compiled_ = std::make_unique<Compiled>(function_.function, function_.options);
  const std::vector<ir::Type>& types = function_.types;
  step_ = &compiled_->step(types);
  compile_seconds_ = static_cast<double>(now_ns() - start) * 1e-9;
  for (size_t i = 0; i < types.size(); ++i) {
    const bool target = i == 1 && o.train;
    batch_.push_back(random_data(types[i], target ? function_.network->classes : 2,
                                 target && function_.network->binary, 7 + i));
    step_->set_input(i, batch_.back());
  }
  copies_batch_ = o.train;
}

void Subject::say_why_no_graphs() {
  const run::DeviceExecutor* const device = step_->runner().on_device();
  if (!device || gpu_.sync || gpu_.no_graphs) return;
  if (!device->why_no_graphs().empty())
    fmt::print(stderr, "espalier: runs are launched record by record: {}\n", device->why_no_graphs());
  else if (!device->failed_capture().empty())
    fmt::print(stderr, "espalier: a run was launched record by record, as it could not be captured: {}\n",
               device->failed_capture());
}

void Subject::feed() {
  for (size_t i = 0; i < batch_.size(); ++i) step_->set_input(i, batch_[i]);
}

void Subject::run() {
  if (copies_batch_) feed();
  step_->run();
}

}  // namespace espalier::tool
