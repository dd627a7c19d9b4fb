// espalier train: a network built in, on Fashion-MNIST or on random data, saved as ONNX.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/file.h"
#include "base/text.h"
#include "base/threads.h"
#include "data/fashion_mnist.h"
#include "format/onnx.h"
#include "nn/losses.h"
#include "tool/choices.h"
#include "tool/commands.h"
#include "tool/json.h"
#include "tool/networks.h"
#include "tool/options.h"
#include "train/callbacks.h"

namespace espalier::tool {

namespace {

struct Options {
  std::string net = "lenet", data = "fashion-mnist", folder, output, checkpoint, log, precision = "f32",
              device = "cpu", choices;
  int64_t epochs = 1, batch = 64, fake_size = 256;
  double rate = 1e-3, clip = 0, loss_scale = 0;
  uint64_t seed = 0;
  int threads = 0;
  bool tf32 = false, json = false;
  GpuSwitches gpu;
};

/// Training data, and what held-out accuracy is measured on (null: none).
struct Data {
  std::shared_ptr<const data::Dataset> train, test;
};

Data make_data(const Options& o, const Network& net) {
  const auto sample = [](ir::Type t) {
    t.dims.erase(t.dims.begin());
    return t;
  };
  if (o.data == "fake") {
    const ir::Type target = sample(net.target);
    std::vector<data::FakeField> fields{
        {"x", sample(net.input), -1, 1},
        {"y", target, 0, net.classes ? static_cast<double>(net.classes - 1) : 1.0}};
    return {std::make_shared<data::FakeData>(o.fake_size, fields, o.seed), nullptr};
  }
  const std::filesystem::path folder = o.folder.empty() ? "/usr/share/datasets/fashion-mnist" : o.folder;
  const auto as_net =
      [&](std::shared_ptr<const data::Dataset> images) -> std::shared_ptr<const data::Dataset> {
    const std::vector<int64_t> dims = ir::static_dims(sample(net.input).dims);
    if (ir::count(std::span<const int64_t>(dims)) != 28 * 28 || net.classes != 10)
      throw UserError({"--net", "does not fit Fashion-MNIST", net.name, "lenet or mlp"});
    return std::make_shared<data::Mapped>(images, [dims](data::Sample s, data::Rng&) {
      s[0].value = s[0].value.reshaped(dims);
      s[1].value = s[1].value.cast(Dtype::i64);
      return s;
    });
  };
  return {as_net(std::make_shared<data::FashionMnist>(data::Part::train, folder)),
          as_net(std::make_shared<data::FashionMnist>(data::Part::test, folder))};
}

double test_accuracy(const Network& net, const std::shared_ptr<const data::Dataset>& test, int64_t batch,
                     const CompileOptions& options) {
  data::DataLoader loader(test, {.batch_size = batch, .workers = 1});
  Compiled score = compile(
      [&](const std::vector<Tensor>& in) {
        return std::vector<Tensor>{nn::accuracy(net.forward(in[0], nn::Mode::eval), in[1])};
      },
      options);
  double right = 0;
  int64_t seen = 0;
  for (int64_t b = 0; b < loader.batches_per_epoch(); ++b) {
    const data::Batch batch_now = loader.next();
    const double a = score({Tensor(batch_now.arrays[0]), Tensor(batch_now.arrays[1])})[0].item();
    right += a * static_cast<double>(batch_now.size);
    seen += batch_now.size;
  }
  return right / static_cast<double>(seen);
}

void save_model(const Options& o, const Network& net) {
  ir::Type input = net.input;
  input.dims[0] = Dim::symbol("batch");
  CompileOptions names;
  names.name = net.name;
  names.argument_names = {"x"};
  names.result_names = {"y"};
  const Model model = Model::traced(
      [&](const std::vector<Tensor>& in) { return std::vector<Tensor>{net.forward(in[0], nn::Mode::eval)}; },
      std::vector{input}, names);
  format::save_onnx(o.output, model.frozen(), {.metadata = model.metadata()});
}

/// Where a path leads, links followed, also to what is not there yet.
std::filesystem::path target_of(std::filesystem::path path) {
  std::error_code error;
  for (int links = 0; links < 40 && std::filesystem::is_symlink(path, error); ++links)
    path = path.parent_path() / std::filesystem::read_symlink(path, error);
  const std::filesystem::path known =
      std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
  return error ? path : known;
}

/// UserError where two of the files that are written are one. (A device takes any number of writers.)
void check_files_differ(const Options& o) {
  const std::pair<const char*, const std::string&> files[] = {
      {"--output", o.output}, {"--checkpoint", o.checkpoint}, {"--log", o.log}};
  for (size_t i = 0; i < std::size(files); ++i)
    for (size_t j = i + 1; j < std::size(files); ++j) {
      const auto& [first, a] = files[i];
      const auto& [second, b] = files[j];
      if (a.empty() || b.empty()) continue;
      std::error_code none;
      const bool same = target_of(a) == target_of(b) || std::filesystem::equivalent(a, b, none);
      if (same && !std::filesystem::is_character_file(a, none))
        throw UserError({second, fmt::format("is the file of {} too", first), b, "a file for each"});
    }
}

/// What a resumed training may have otherwise, as it is named on the command line.
std::map<std::string, std::string> settings_of(const Options& o) {
  std::map<std::string, std::string> all{{"--data", o.data}, {"--rate", fmt::format("{}", o.rate)}};
  if (!o.folder.empty()) all["--folder"] = quote(o.folder);
  return all;
}

void run_train(const Options& o, int& exit_code) {
  check_files_differ(o);
  if (o.loss_scale > 0 && o.precision != "f16")
    throw UserError(
        {"--loss-scale", "is of f16 training alone", "--precision " + o.precision, "--precision f16"});
  if (o.threads != 0) set_threads(o.threads);
  const ChosenDevice device = device_of(o.device, o.gpu);
  const run::Location tuned = tuned_place(device.device, o.choices);
  Network net = make_network(o.net, o.batch, o.seed);
  const Data data = make_data(o, net);
  data::DataLoader loader(
      data.train, {.batch_size = o.batch, .shuffle = true, .drop_last = true, .workers = 1, .seed = o.seed});
  train::TrainerOptions t;
  t.epochs = o.epochs;
  t.precision = o.precision;
  t.allow_tf32 = o.tf32;
  t.device = device.device;
  t.sync = o.gpu.sync;
  t.graphs = !o.gpu.no_graphs;
  t.clip_norm = o.clip;
  t.loss_scale = o.loss_scale;
  t.checkpoint = o.checkpoint;
  t.settings = settings_of(o);
  if (net.classes) t.argument_ranges[1] = {0, net.classes};
  const int64_t steps = o.epochs * loader.batches_per_epoch();
  t.rate = nn::cosine_rate(o.rate, std::max<int64_t>(steps, 1), std::min<int64_t>(steps / 10, 100));
  train::Trainer trainer(
      [&](const std::vector<Tensor>& in) {
        return std::vector<Tensor>{net.loss(net.forward(in[0], nn::Mode::train), in[1])};
      },
      net.parameters, *net.optimiser, loader, t);
  trainer.add(std::make_shared<train::ProgressBar>());
  if (!o.log.empty()) trainer.add(std::make_shared<train::CsvLog>(o.log));
  if (!o.output.empty()) check_writable(o.output);
  train::interrupt_on_signals();
  const train::Ending ending = trainer.fit();
  if (ending == train::Ending::interrupted) {
    fmt::print(stderr, "interrupted after step {}{}\n", trainer.steps_done(),
               o.checkpoint.empty() ? "" : "; the same command goes on from " + o.checkpoint);
    exit_code = exit_interrupted;
    return;
  }
  nlohmann::json out{{"net", net.name}, {"steps", trainer.steps_done()}};
  if (o.precision == "f16") out["steps_skipped"] = trainer.steps_skipped();
  if (data.test && net.classes) {
    CompileOptions c;
    c.device = t.device;
    c.sync = t.sync;
    c.graphs = t.graphs;
    out["test_accuracy"] = test_accuracy(net, data.test, o.batch, c);
  }
  if (!o.output.empty()) {
    save_model(o, net);
    out["model"] = o.output;
  }
  if (o.json) fmt::print("{}\n", json_line(out));
  else if (out.contains("test_accuracy"))
    fmt::print("test accuracy {:.2f}%\n", 100 * out["test_accuracy"].get<double>());
}

}  // namespace

void add_train(CLI::App& app, int& exit_code) {
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("train", "Train a network built in and save it as ONNX");
  c->add_option("--net", o->net, "the network")
      ->type_name("NAME")
      ->capture_default_str()
      ->check(CLI::IsMember(network_names()));
  c->add_option("--data", o->data, "fashion-mnist (package dataset-fashion-mnist) or fake")
      ->capture_default_str()
      ->check(CLI::IsMember({"fashion-mnist", "fake"}));
  c->add_option("--folder", o->folder, "where the data lies, if elsewhere than its package puts it");
  c->add_option("--fake-size", o->fake_size, "samples of --data fake")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 24));
  c->add_option("--epochs", o->epochs, "passes over the data")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  add_batch_option(*c, o->batch, "examples per step");
  c->add_option("--rate", o->rate, "highest learning rate")->capture_default_str()->check(positive_number());
  c->add_option("--clip", o->clip, "limit of the norm of all gradients together (0: none)")
      ->capture_default_str()
      ->check(number_from_zero());
  add_precision_option(*c, o->precision, "of matrix work and activations");
  add_tf32_option(*c, o->tf32);
  c->add_option("--loss-scale", o->loss_scale, "of f16 training (default: found while it trains, from 65536)")
      ->check(positive_number());
  c->add_option("--seed", o->seed, "of the initial weights and the order")
      ->capture_default_str()
      ->check(whole_number());
  add_threads_option(*c, o->threads);
  add_device_option(*c, o->device);
  add_choices_option(*c, o->choices);
  add_gpu_switches(*c, o->gpu);
  c->add_option("--checkpoint", o->checkpoint,
                "file written every epoch; training goes on from it when it exists");
  c->add_option("--log", o->log, "CSV file with one row per step");
  c->add_option("--output,-o", o->output, "the trained model");
  c->add_flag("--json", o->json, "the result as one JSON object");
  c->footer(
      "Examples:\n  espalier train --net lenet --epochs 3 -o lenet.onnx\n"
      "  espalier train --net unet-r18 --data fake --batch 4 --checkpoint unet.safetensors");
  c->callback([o, &exit_code] { run_train(*o, exit_code); });
}

}  // namespace espalier::tool
