#pragma once
// compile(): a function of tensors as a program. It is traced once per shape and dtype of its arguments, including the
// gradient and the optimiser's update of a whole training step, and replayed without tracing cost.
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "ir/graph.h"
#include "tensor/device.h"
#include "tensor/parameter.h"

namespace espalier {

namespace run {
class Program;
class Executor;
class Runner;
}  // namespace run

using TensorFn = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;

struct CompileOptions {
  Device device{};                ///< where it runs
  std::string precision = "f32";  ///< of matrix work and activations: "f32", "bf16", "f16"
  double loss_scale =
      1;  ///< f16: gradients are computed this many times as large, and divided where they are asked for
  bool exact = false;  ///< no kernel or rewrite that rounds otherwise than the reference order class
  /// Of a GPU: matrix products and convolutions of f32 may round their operands to TF32 (10 bits of fraction in place of 23, the same
  /// range), which tensor cores take; sums stay in f32. Other dtypes and the host are as without it. UserError of a call with `exact`.
  bool allow_tf32 = false;
  bool freeze = false;  ///< parameters become constants (inference): weights are folded and packed
  std::set<std::string, std::less<>> disabled_passes{};
  /// Allowed ranges of arguments, by position, checked on every call: [low, high) for integers, low to high with both ends for
  /// floating dtypes. An argument that is the labels of a cross entropy or the positions of an embedding or a gather, as it is or cast,
  /// reshaped, transposed or broadcast, has [0, classes or rows) by itself, one that is the targets of bce_with_logits 0 to 1.
  std::map<size_t, std::pair<int64_t, int64_t>> argument_ranges{};
  std::vector<std::string> argument_names{}, result_names{};  ///< defaults "x0".., "y0"..; all differ
  std::string name = "function";
  /// Of a GPU: wait after every piece of work, so that an error names the step it came from.
  bool sync = false;
  /// Of a GPU: give it a whole run as one, from the second run on.
  bool graphs = true;
  /// Of a GPU: compute in this stream of yours (a CUstream of the device's primary context) in place of the device's own; it must outlive
  /// the compiled function. Null is the default stream, which waits for your blocking streams and they for it; it cannot be captured, so
  /// every piece of work is launched by itself there.
  std::optional<void*> stream{};
  /// Called with every pass that changed the graph and its text.
  std::function<void(std::string_view pass, const std::string& text)> print_changed{};
};

/// What tracing a function gives: the graph (state pairs for assigned parameters), the parameters behind its state inputs.
struct ESPALIER_API Trace {
  ir::Graph graph;
  std::vector<Parameter> parameters;  ///< read or assigned, in order of first use
  std::vector<std::string> inputs;    ///< the graph's input of each parameter
};
/// Trace `fn` over arguments of these types (dims may be symbolic). UserError inside another trace, and for an empty result.
ESPALIER_API Trace trace(const TensorFn& fn, std::span<const ir::Type> arguments,
                         const CompileOptions& options = {});

/// One specialisation of a compiled function: fixed shapes, bound buffers. The fast way to run a step many times: write
/// the arguments into input(), call run(), read output(). Not thread-safe; make one per thread. UserError for an argument or a
/// result that it has not.
class ESPALIER_API Step {
 public:
  Step(std::unique_ptr<run::Runner> runner, size_t arguments, size_t results);
  ~Step();
  Step(Step&&) noexcept;
  size_t arguments() const { return arguments_; }
  size_t results() const { return results_; }
  ir::Type argument_type(size_t i) const;
  ir::Type result_type(size_t i) const;
  /// Where the next run reads argument i: row-major, of argument_type(i), 64-byte aligned, of the host. The address never changes on the
  /// host, and on a GPU as long as every run is waited for before the next begins and none of its results is held (dlpack::share()).
  /// Null for one that is bound.
  void* input(size_t i);
  /// Where the run that was last waited for left result i, of result_type(i), on the host; overwritten by the next run. UserError before
  /// any.
  const void* output(size_t i) const;
  /// Copy an array in; UserError when its type differs.
  void set_input(size_t i, const Array& array);
  /// Read argument i from here on from memory where the function runs (a GPU's address, for a GPU), row-major and 64-byte aligned (else
  /// UserError): it must hold the elements until the run is over. UserError on a GPU for an argument with a range, which only the host
  /// checks.
  void bind_input(size_t i, const void* data);
  /// Write result i from the next run on to memory where the function runs (a GPU's address, for a GPU: it is then not copied to the host, and
  /// output() is a UserError), row-major and 64-byte aligned (else UserError). It must be there until the run is over, and must not be memory of
  /// an argument, a parameter or another result: then run() is a UserError.
  void bind_output(size_t i, void* data);
  /// A copy of result i.
  Array result(size_t i) const;
  /// Compute once, and update the parameters that were assigned to. UserError where an argument leaves its declared range; DeviceError
  /// from a GPU.
  void run();
  /// Begin a run; its number, for wait(). On the host it is over on return. On a GPU two may be under way: a third waits for the first.
  int64_t submit();
  /// Until that run is over. DeviceError: what went wrong in it or before.
  void wait(int64_t run);
  /// Exact peak of memory of this program: arena, constants, packed weights and the parameters it binds.
  int64_t planned_bytes() const;
  const run::Program& program() const;
  /// What runs it, of a device or the host.
  run::Runner& runner() { return *runner_; }
  /// Of the host; UserError for a GPU.
  run::Executor& executor();

 private:
  std::unique_ptr<run::Runner> runner_;
  size_t arguments_, results_;
};

/// A compiled function. Calls with new shapes trace and compile; calls with known ones replay.
class ESPALIER_API Compiled {
 public:
  Compiled(TensorFn fn, CompileOptions options);
  /// Run on tensors (copied in; results are copies).
  std::vector<Tensor> operator()(const std::vector<Tensor>& arguments);
  /// The specialisation for arguments of these static types.
  Step& step(std::span<const ir::Type> arguments);
  const CompileOptions& options() const { return options_; }

 private:
  TensorFn fn_;
  CompileOptions options_;
  std::map<std::string, std::unique_ptr<Step>> steps_;
};

/// `fn` as a compiled function; nothing is traced before the first call. UserError of a call: an unknown target or precision,
/// whatever tracing `fn` throws.
ESPALIER_API Compiled compile(TensorFn fn, CompileOptions options = {});

/// A graph whose parameters are cells: what a file holds, what a traced model is. Callable like a function.
class ESPALIER_API Model {
 public:
  Model() = default;
  /// Named constants of `graph` become parameters: those that `metadata` (of metadata(), of the file) lists, trainable as it says;
  /// without a list all of floating dtype and more than one element, trainable. UserError for a list that metadata() does not give.
  explicit Model(ir::Graph graph, const std::map<std::string, std::string>& metadata = {});
  /// Trace an inference function of a layer; its parameters stay shared with the layer.
  static Model traced(const TensorFn& fn, std::span<const ir::Type> arguments,
                      const CompileOptions& options = {});

  /// One tensor per result. UserError for another number of arguments, other dtypes, and dims that do not fit the graph's
  /// (a symbol stands for one number throughout a call).
  std::vector<Tensor> operator()(const std::vector<Tensor>& arguments) const;
  const std::vector<Parameter>& parameters() const { return parameters_; }
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
  size_t arguments() const { return argument_names_.size(); }
  const std::vector<std::string>& argument_names() const { return argument_names_; }
  const std::vector<std::string>& result_names() const { return result_names_; }
  ir::Type argument_type(size_t i) const;
  /// The graph with the parameters' present values as named constants: what is saved.
  ir::Graph frozen() const;
  /// What a file must hold beside frozen() so that the same parameters come back: key "espalier.parameters", a line for each, "+name"
  /// where it is trainable, "-name" where it is not.
  std::map<std::string, std::string> metadata() const;
  /// The graph over arguments, then parameters.
  const ir::Graph& graph() const { return graph_; }

 private:
  ir::Graph graph_;
  std::vector<Parameter> parameters_;
  std::vector<std::string> argument_names_, result_names_;
};

/// Counter-based random numbers: a seed and a counter, which are cells, so that a checkpoint goes on with the same numbers.
/// Inside a traced function each draw of the trace has a stream of its own, by order, and the counter goes up by one with
/// every run; outside, it goes up with every draw. Copies share the cells.
class ESPALIER_API Generator {
 public:
  Generator() = default;  ///< none: a draw is a UserError
  explicit Generator(int64_t seed);
  /// What a random op takes (op/random.h).
  struct Draw {
    Tensor key, counter;
    int64_t stream;
  };
  /// The next draw. UserError inside a function that is compiled with frozen parameters: it could only repeat itself.
  Draw draw() const;
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
  int64_t seed() const;
  void reseed(int64_t seed) const;  ///< and count from 0

 private:
  Parameter key_, counter_;
};

}  // namespace espalier
