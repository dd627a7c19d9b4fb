#include "tensor/compile.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/text.h"
#include "run/runner.h"
#include "tensor/impl.h"
#include "tensor/input_ranges.h"
#include "tensor/tracing.h"

namespace espalier {

using ir::Value;

namespace {

std::string name_or(const std::vector<std::string>& names, size_t i, const char* prefix) {
  return i < names.size() ? names[i] : prefix + std::to_string(i);
}

/// Tensors with known elements that a traced function met become constants of its graph.
void capture_constants(ir::Graph& graph, std::span<const Tensor> roots) {
  const auto known = TensorAccess::known_below(roots);
  std::vector<Value> outputs = graph.output_values();
  ir::ValueMap map;
  for (const Value& v : inputs_below(outputs, known))
    if (const auto it = known.find(v); it != known.end()) map.set(v, ir::constant(it->second));
  outputs = rebuild_over(outputs, map);
  for (size_t i = 0; i < outputs.size(); ++i) graph.outputs[i].value = outputs[i];
}

/// `given`, then defaults, for `count` arguments or results of function `of`. UserError where two are equal.
std::vector<std::string> names_of(const std::vector<std::string>& given, const char* prefix, size_t count,
                                  const std::string& of) {
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) {
    names.push_back(name_or(given, i, prefix));
    if (std::find(names.begin(), names.end() - 1, names.back()) != names.end() - 1)
      throw UserError(
          {"function " + of, "two arguments or two results have one name", names.back(), "a name for each"});
  }
  return names;
}

void check_results(const std::vector<Tensor>& results, const std::string& name) {
  for (size_t i = 0; i < results.size(); ++i)
    if (!results[i].defined())
      throw UserError({"function " + name, "result " + std::to_string(i) + " is empty", "", "a tensor"});
}

/// `i`; UserError where the step has no such argument or result.
size_t below(size_t i, size_t count, const char* what) {
  if (i < count) return i;
  throw UserError({std::string("step: ") + what, "there is none of that number", std::to_string(i),
                   "below " + std::to_string(count)});
}

}  // namespace

Trace trace(const TensorFn& fn, std::span<const ir::Type> arguments, const CompileOptions& options) {
  const std::vector<std::string> argument_names =
      names_of(options.argument_names, "x", arguments.size(), options.name);
  Tracing tracing(options.freeze, argument_names, options.result_names);
  Trace out;
  out.graph.name = options.name;
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < arguments.size(); ++i) {
    out.graph.inputs.push_back(ir::new_input(argument_names[i], arguments[i]));
    inputs.push_back(Tensor::from(out.graph.inputs.back(), std::span<const Tensor>()));
  }
  std::vector<Tensor> results = fn(inputs);
  check_results(results, options.name);
  tracing.advance_counters();
  const std::vector<std::string> result_names =
      names_of(options.result_names, "y", results.size(), options.name);
  for (size_t i = 0; i < results.size(); ++i)
    out.graph.outputs.push_back({result_names[i], results[i].value()});
  for (Tracing::Entry& e : tracing.entries()) {
    if (!options.freeze) {
      out.graph.inputs.push_back(e.old);
      out.inputs.push_back(e.input);
      out.parameters.push_back(e.parameter);
    }
    if (!e.assigned) continue;
    out.graph.outputs.push_back({next_name(e.input), e.now.value()});
    out.graph.state.push_back({e.input, next_name(e.input)});
    results.push_back(e.now);
  }
  capture_constants(out.graph, results);
  out.graph.note_constant_names();
  return out;
}

Step::Step(std::unique_ptr<run::Runner> runner, size_t arguments, size_t results)
    : runner_(std::move(runner)), arguments_(arguments), results_(results) {}
Step::~Step() = default;
Step::Step(Step&&) noexcept = default;

const run::Program& Step::program() const { return runner_->program(); }
ir::Type Step::argument_type(size_t i) const {
  return program().inputs()[below(i, arguments_, "argument")].type;
}
ir::Type Step::result_type(size_t i) const { return program().outputs()[below(i, results_, "result")].type; }
void* Step::input(size_t i) { return runner_->input(below(i, arguments_, "argument")); }
const void* Step::output(size_t i) const { return runner_->output(below(i, results_, "result")); }
void Step::bind_input(size_t i, const void* data) {
  runner_->bind_input(below(i, arguments_, "argument"), data);
}
void Step::bind_output(size_t i, void* data) { runner_->bind_output(below(i, results_, "result"), data); }
int64_t Step::planned_bytes() const { return program().planned_bytes(); }
void Step::run() { runner_->run(); }
int64_t Step::submit() { return runner_->submit(); }
void Step::wait(int64_t run) { runner_->wait(run); }

run::Executor& Step::executor() {
  if (run::Executor* host = runner_->on_host()) return *host;
  throw UserError(
      {"step " + program().name(), "is of a GPU", std::string(program().target()), "one of the host"});
}

void Step::set_input(size_t i, const Array& array) {
  const run::Port& port = program().inputs()[below(i, arguments_, "argument")];
  if (array.type() != port.type)
    throw UserError({"argument " + port.name, "is of another type", array.type().text(), port.type.text()});
  void* const to = input(i);
  if (!to)
    throw UserError({"argument " + port.name, "is bound to memory of the caller's", "", "writing there"});
  std::memcpy(to, array.data(), static_cast<size_t>(array.bytes()));
}

Array Step::result(size_t i) const {
  const ir::Type type = result_type(i);
  Array a(type.dtype, ir::static_dims(type.dims));
  std::memcpy(a.write(), output(i), static_cast<size_t>(a.bytes()));
  return a;
}

namespace {

std::vector<run::BoundCell> cells_of(const Trace& t, const run::Program& program) {
  std::vector<run::BoundCell> cells;
  for (size_t p = 0; p < t.parameters.size(); ++p)
    for (size_t i = 0; i < program.inputs().size(); ++i)
      if (program.inputs()[i].name == t.inputs[p]) cells.push_back({i, t.parameters[p].cell()->elements});
  return cells;
}

}  // namespace

Compiled::Compiled(TensorFn fn, CompileOptions options) : fn_(std::move(fn)), options_(std::move(options)) {}

Compiled compile(TensorFn fn, CompileOptions options) { return {std::move(fn), std::move(options)}; }

Step& Compiled::step(std::span<const ir::Type> arguments) {
  std::string key;
  for (const ir::Type& t : arguments) key += t.text() + ";";
  std::unique_ptr<Step>& slot = steps_[key];
  if (slot) return *slot;
  if (!(options_.loss_scale > 0) || !std::isfinite(options_.loss_scale))
    throw UserError({"function " + options_.name + ": loss_scale", "out of range",
                     number_text(options_.loss_scale), "a finite number > 0"});
  Trace t = trace(fn_, arguments, options_);
  run::CompileOptions o;
  const run::Location place = run::find_location(options_.device.name());
  o.target = place.target;
  o.precision = pass::precision_of_name(options_.precision);
  o.exact = options_.exact;
  o.allow_tf32 = options_.allow_tf32;
  o.loss_scale = options_.loss_scale;
  o.disabled = options_.disabled_passes;
  o.print_changed = options_.print_changed;
  for (const auto& [i, range] : options_.argument_ranges)
    o.ranges.push_back({name_or(options_.argument_names, i, "x"), range.first, range.second});
  for (run::InputRange& r : input_ranges(t.graph, arguments.size()))
    if (std::none_of(o.ranges.begin(), o.ranges.end(), [&](const auto& x) { return x.input == r.input; }))
      o.ranges.push_back(std::move(r));
  const size_t results = t.graph.outputs.size() - t.graph.state.size();
  std::shared_ptr<const run::Program> program = run::Program::compile(t.graph, o);
  std::vector<run::BoundCell> cells = cells_of(t, *program);
  slot = std::make_unique<Step>(
      run::make_runner(std::move(program), place, std::move(cells),
                       {.stream = options_.stream, .sync = options_.sync, .graphs = options_.graphs}),
      arguments.size(), results);
  return *slot;
}

std::vector<Tensor> Compiled::operator()(const std::vector<Tensor>& arguments) {
  std::vector<ir::Type> types;
  for (const Tensor& t : arguments) types.push_back({t.dtype(), t.dims()});
  evaluate(arguments);
  Step& s = step(types);
  for (size_t i = 0; i < arguments.size(); ++i) s.set_input(i, arguments[i].array());
  s.run();
  std::vector<Tensor> out;
  for (size_t i = 0; i < s.results(); ++i) out.emplace_back(s.result(i));
  return out;
}

Generator::Generator(int64_t seed)
    : key_(Array::of<int64_t>({}, {seed}), false, "rng.key"),
      counter_(Array(Dtype::i64, {}), false, "rng.counter") {}

Generator::Draw Generator::draw() const {
  if (!key_) throw UserError({"generator", "has no seed", "", "Generator(seed)"});
  Draw d{key_.tensor(), counter_.tensor(), 0};
  if (Tracing* tracing = Tracing::current()) d.stream = tracing->draw(counter_);
  else ++static_cast<int64_t*>(counter_.write())[0];
  return d;
}
void Generator::each(const ParameterVisitor& visit, const std::string& prefix) {
  visit(join_path(prefix, "rng.key"), key_);
  visit(join_path(prefix, "rng.counter"), counter_);
}
int64_t Generator::seed() const { return key_.storage().data<int64_t>()[0]; }
void Generator::reseed(int64_t seed) const {
  key_.assign(Tensor(Array::of<int64_t>({}, {seed})));
  counter_.assign(Tensor(Array(Dtype::i64, {})));
}

}  // namespace espalier
