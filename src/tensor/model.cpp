#include <cstring>
#include <optional>
#include <sstream>

#include "tensor/compile.h"
#include "tensor/tracing.h"

namespace espalier {

using ir::Value;

namespace {

constexpr const char* parameters_key = "espalier.parameters";

/// Is each parameter that the metadata lists trainable? By name; nullopt without a list.
std::optional<std::map<std::string, bool>> listed(const std::map<std::string, std::string>& metadata) {
  const auto it = metadata.find(parameters_key);
  if (it == metadata.end()) return std::nullopt;
  std::map<std::string, bool> out;
  std::istringstream in(it->second);
  for (std::string line; std::getline(in, line);) {
    if (line.size() < 2 || (line[0] != '+' && line[0] != '-'))
      throw UserError({"metadata " + std::string(parameters_key), "cannot be read", line, "+name or -name"});
    out[line.substr(1)] = line[0] == '+';
  }
  return out;
}

}  // namespace

Model::Model(ir::Graph graph, const std::map<std::string, std::string>& metadata) {
  const auto list = listed(metadata);
  ir::Graph out{.name = graph.name, .inputs = graph.inputs, .outputs = {}, .state = {}, .info = graph.info};
  for (size_t i = 0; i < graph.inputs.size(); ++i) argument_names_.push_back(graph.input_name(i));
  ir::ValueMap cells;
  for (const ir::Node* n : graph.nodes()) {
    const Array* a = ir::constant_value(n->value());
    const std::string& name = ir::constant_name(n->value());
    if (name.empty()) continue;
    bool trainable = true;
    if (list) {
      const auto it = list->find(name);
      if (it == list->end()) continue;
      trainable = it->second;
    } else if (a->size() < 2 || !ir::is_float(a->dtype())) {
      continue;
    }
    parameters_.emplace_back(*a, trainable, name);
    out.inputs.push_back(ir::new_input(name, a->type()));
    cells.set(n->value(), out.inputs.back());
  }
  out.outputs = graph.outputs;
  graph_ = ir::transform(out, [&](const ir::Node& n, const std::vector<Value>&) -> std::vector<Value> {
    const Value* cell = cells.find(n.value());
    return cell ? std::vector<Value>{*cell} : std::vector<Value>{};
  });
  for (const ir::Output& o : graph_.outputs) result_names_.push_back(o.name);
}

Model Model::traced(const TensorFn& fn, std::span<const ir::Type> arguments, const CompileOptions& options) {
  Trace t = trace(fn, arguments, options);
  Model m;
  m.graph_ = std::move(t.graph);
  m.parameters_ = std::move(t.parameters);
  for (size_t i = 0; i < arguments.size(); ++i) m.argument_names_.push_back(m.graph_.input_name(i));
  if (!m.graph_.state.empty())
    throw UserError({"model", "an inference function assigns to a parameter", m.graph_.state[0].input,
                     "a function in evaluation mode"});
  for (const ir::Output& o : m.graph_.outputs) m.result_names_.push_back(o.name);
  return m;
}

ir::Type Model::argument_type(size_t i) const { return graph_.inputs[i].type(); }

std::vector<Tensor> Model::operator()(const std::vector<Tensor>& arguments) const {
  if (arguments.size() != argument_names_.size())
    throw UserError({"model " + graph_.name, "wrong number of arguments", std::to_string(arguments.size()),
                     std::to_string(argument_names_.size())});
  std::vector<Value> values;
  std::vector<Tensor> parents = arguments;
  std::map<std::string, int64_t> symbols;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const ir::Type wanted = argument_type(i);
    const Dims& got = arguments[i].dims();
    if (arguments[i].dtype() != wanted.dtype || !ir::bind_dims(wanted.dims, got, symbols))
      throw UserError({"model " + graph_.name + ", argument " + argument_names_[i], "does not fit",
                       ir::Type{arguments[i].dtype(), got}.text(), wanted.text()});
    values.push_back(arguments[i].value());
  }
  for (const Parameter& p : parameters_) {
    parents.push_back(p.tensor());
    values.push_back(parents.back().value());
  }
  std::vector<Tensor> out;
  for (const Value& v : ir::inline_graph(ir::specialise(graph_, symbols), values))
    out.push_back(Tensor::from(v, parents));
  return out;
}

void Model::each(const ParameterVisitor& visit, const std::string& prefix) {
  for (Parameter& p : parameters_) visit(join_path(prefix, p.name()), p);
}

std::map<std::string, std::string> Model::metadata() const {
  std::string list;
  for (size_t i = 0; i < parameters_.size(); ++i)
    list += (parameters_[i].trainable() ? "+" : "-") + graph_.input_name(argument_names_.size() + i) + "\n";
  return {{parameters_key, list}};
}

ir::Graph Model::frozen() const {
  const auto arguments = static_cast<long>(argument_names_.size());
  ir::Graph out{.name = graph_.name,
                .inputs = {graph_.inputs.begin(), graph_.inputs.begin() + arguments},
                .outputs = {},
                .state = {},
                .info = {}};
  std::vector<Value> values = out.inputs;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Array& s = parameters_[i].storage();
    Array copy(s.dtype(), s.dims());
    std::memcpy(copy.write(), s.data(), static_cast<size_t>(s.bytes()));
    values.push_back(ir::constant(std::move(copy), graph_.input_name(argument_names_.size() + i)));
  }
  const std::vector<Value> results = ir::inline_graph(graph_, values);
  for (size_t i = 0; i < results.size(); ++i) out.outputs.push_back({graph_.outputs[i].name, results[i]});
  out.note_constant_names();
  return out;
}

}  // namespace espalier
