#pragma once
// What bench and profile measure: a saved model or a network by name, as one compiled step filled with random data.
#include <memory>

#include "run/targets.h"
#include "tensor/compile.h"
#include "tool/networks.h"
#include "tool/options.h"

namespace CLI {
class App;
}

namespace espalier::tool {

struct SubjectOptions {
  std::string model, net, precision,
      device = "cpu",  ///< precision "": what a file was optimised for, else f32
      choices;         ///< a file of `espalier tune`
  std::vector<std::string> disabled, dims;
  int64_t batch = 1;
  int threads = 0;  ///< 0: all available
  GpuSwitches gpu;
  bool train = false, exact = false, tf32 = false, batch_given = false;
};

/// The options that name what is compiled, and how.
void add_program_options(CLI::App& command, SubjectOptions& options);
/// Those and where it runs.
void add_subject_options(CLI::App& command, SubjectOptions& options);

/// A subject before it is compiled for a machine.
struct SubjectFunction {
  std::string name;
  int64_t batch = 1;                 ///< examples per run
  std::shared_ptr<Network> network;  ///< null: a model of a file
  std::vector<ir::Type> types;       ///< of the arguments
  CompileOptions options;            ///< but for the device
  TensorFn function;
};
/// UserError where neither or both of model and net are named, a model is to be trained, or batch or dims do not fit it.
SubjectFunction subject_function(const SubjectOptions& options);

class Subject {
 public:
  /// Build, compile and fill with random data. UserError as subject_function().
  explicit Subject(const SubjectOptions& options);
  Step& step() { return *step_; }
  /// Copy the batch in.
  void feed();
  /// One run; a training step copies its batch in first. Results lie in the step's outputs.
  void run();
  /// Say on standard error where a GPU's runs are not launched as one without anybody having asked for that.
  void say_why_no_graphs();
  const std::string& name() const { return function_.name; }
  /// Of its kernels.
  const std::string& precision() const { return function_.options.precision; }
  bool tf32() const { return function_.options.allow_tf32; }
  /// Examples per run.
  int64_t batch() const { return function_.batch; }
  double compile_seconds() const { return compile_seconds_; }

 private:
  ChosenDevice device_;
  GpuSwitches gpu_;
  run::Location place_;  ///< kept open, with its choices
  SubjectFunction function_;
  std::unique_ptr<Compiled> compiled_;
  Step* step_ = nullptr;
  std::vector<ir::Array> batch_;
  bool copies_batch_ = false;
  double compile_seconds_ = 0;
};

}  // namespace espalier::tool
