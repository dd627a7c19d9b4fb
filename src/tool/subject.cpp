#include "tool/subject.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "base/threads.h"
#include "run/open_device.h"
#include "run/runner.h"
#include "run/tuner.h"
#include "tool/model_file.h"
#include "tool/options.h"

namespace espalier::tool {

void add_subject_options(CLI::App& command, SubjectOptions& o) {
  command.add_option("MODEL", o.model, "an ONNX file");
  command.add_option("--net", o.net, "a network built in")
      ->type_name("NAME")
      ->check(CLI::IsMember(network_names()));
  command.add_flag("--train", o.train, "the whole training step (forward, backward, update) of a network");
  add_batch_option(command, o.batch, o.batch_given, "examples per run");
  add_dims_option(command, o.dims);
  add_precision_option(command, o.precision,
                       "of matrix work and activations (default: what the file was optimised for, else f32)");
  add_threads_option(command, o.threads);
  add_device_option(command, o.device);
  add_exact_option(command, o.exact);
  add_disable_option(command, o.disabled);
}

void add_run_switches(CLI::App& command, SubjectOptions& o) { add_gpu_switches(command, o.gpu); }

void add_choices_option(CLI::App& command, SubjectOptions& o) {
  command.add_option("--choices", o.choices, "plan with what `espalier tune` wrote to this file");
}

namespace {

/// The GPU, with the choices of a file.
run::Location tuned_place(const Device& device, const std::string& file) {
  run::Location place = run::find_location(device.name());
  if (!place.device) throw UserError({"--choices " + file, "are a GPU's", device.name(), "--device cuda"});
  const std::string unused =
      run::use_choices(place.device->device(), target::parse_choices(read_file(file), file));
  if (!unused.empty()) fmt::print(stderr, "espalier: {} is not used: {}\n", file, unused);
  return place;
}

}  // namespace

Subject::Subject(const SubjectOptions& o) : gpu_(o.gpu) {
  if (o.model.empty() == o.net.empty())
    throw UserError(
        {"--net or MODEL", "name exactly one", o.model.empty() ? "none" : "both", "a file, or --net NAME"});
  if (o.threads != 0) set_threads(o.threads);
  device_ = device_of(o.device, o.gpu);
  if (!o.choices.empty()) place_ = tuned_place(device_.device, o.choices);
  CompileOptions c;
  c.device = device_.device;
  c.sync = o.gpu.sync;
  c.graphs = !o.gpu.no_graphs;
  c.exact = o.exact;
  c.freeze = !o.train;
  c.disabled_passes = {o.disabled.begin(), o.disabled.end()};
  std::vector<ir::Type> types;
  const int64_t start = now_ns();
  if (!o.model.empty()) {
    if (o.train) throw UserError({"--train", "works on networks built in", o.model, "--net NAME"});
    name_ = o.model;
    ModelFile file = load_model(o.model, dims_of(o.dims));
    model_ = std::move(file.model);
    c.precision = precision_of(o.precision, file.metadata);
    batch_size_ = batch_of(model_, o.batch, o.batch_given);
    types = model_types(model_, o.batch);
    compiled_ = std::make_unique<Compiled>([this](const std::vector<Tensor>& in) { return model_(in); }, c);
  } else {
    if (!o.dims.empty()) throw UserError({"--dims", "is of models in files", "--net " + o.net, "MODEL"});
    name_ = o.net;
    c.precision = precision_of(o.precision, {});
    batch_size_ = o.batch;
    network_ = make_network(o.net, o.batch);
    types.push_back(network_.input);
    if (o.train) {
      types.push_back(network_.target);
      if (network_.classes) c.argument_ranges[1] = {0, network_.classes};
    }
    compiled_ = std::make_unique<Compiled>(
        [this, train = o.train](const std::vector<Tensor>& in) -> std::vector<Tensor> {
          if (!train) return {network_.forward(in[0], nn::Mode::eval)};
          const Tensor loss = network_.loss(network_.forward(in[0], nn::Mode::train), in[1]);
          network_.optimiser->minimise(loss);
          return {loss};
        },
        c);
  }
  precision_ = c.precision;
  step_ = &compiled_->step(types);
  compile_seconds_ = static_cast<double>(now_ns() - start) * 1e-9;
  for (size_t i = 0; i < types.size(); ++i) {
    const bool target = i == 1 && o.train;
    batch_.push_back(random_data(types[i], target ? network_.classes : 2, target && network_.binary, 7 + i));
    step_->set_input(i, batch_.back());
  }
  copies_batch_ = o.train;
}

void Subject::say_why_no_graphs() {
  const run::DeviceExecutor* const device = step_->runner().on_device();
  if (!device || gpu_.sync || gpu_.no_graphs || device->why_no_graphs().empty()) return;
  fmt::print(stderr, "espalier: runs are launched record by record: {}\n", device->why_no_graphs());
}

void Subject::feed() {
  for (size_t i = 0; i < batch_.size(); ++i) step_->set_input(i, batch_[i]);
}

void Subject::run() {
  if (copies_batch_) feed();
  step_->run();
}

}  // namespace espalier::tool
