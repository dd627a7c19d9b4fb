#include "ir/graph.h"

#include <algorithm>
#include <set>
#include <unordered_set>

namespace espalier::ir {

std::string_view level_name(Level level) {
  constexpr std::string_view names[] = {"tensor", "fused", "planned"};
  return names[static_cast<size_t>(level)];
}

std::vector<const Node*> Graph::nodes() const {
  std::vector<const Node*> order;
  std::unordered_set<const Node*> done;
  struct Frame {
    const Node* node;
    size_t next;
  };
  std::vector<Frame> stack;
  for (const Output& out : outputs) {
    if (done.insert(&out.value.node()).second) stack.push_back({&out.value.node(), 0});
    while (!stack.empty()) {
      Frame& top = stack.back();
      if (top.next == top.node->inputs().size()) {
        order.push_back(top.node);
        stack.pop_back();
        continue;
      }
      const Node* operand = &top.node->input(static_cast<int>(top.next++)).node();
      if (done.insert(operand).second) stack.push_back({operand, 0});
    }
  }
  return order;
}

std::vector<Value> Graph::output_values() const {
  std::vector<Value> values;
  for (const Output& o : outputs) values.push_back(o.value);
  return values;
}

std::vector<Type> Graph::input_types() const {
  std::vector<Type> types;
  for (const Value& v : inputs) types.push_back(v.type());
  return types;
}

const std::string& Graph::input_name(size_t i) const { return inputs[i]->attrs<InputAttrs>().name; }

std::optional<size_t> Graph::find_input(std::string_view wanted) const {
  for (size_t i = 0; i < inputs.size(); ++i)
    if (input_name(i) == wanted) return i;
  return std::nullopt;
}

std::optional<size_t> Graph::find_output(std::string_view wanted) const {
  for (size_t i = 0; i < outputs.size(); ++i)
    if (outputs[i].name == wanted) return i;
  return std::nullopt;
}

void Graph::note_constant_names() {
  for (const Node* n : nodes())
    if (const std::string& constant = constant_name(n->value()); !constant.empty())
      info[n->id()].name = constant;
}

namespace {

void verify_names(const Graph& g) {
  std::set<std::string> names;
  for (size_t i = 0; i < g.inputs.size(); ++i) {
    ESPALIER_CHECK(g.inputs[i] && is_input(g.inputs[i]), "graph " + g.name + ": an input is no input node");
    ESPALIER_CHECK(names.insert(g.input_name(i)).second,
                   "graph " + g.name + ": two inputs named " + g.input_name(i));
  }
  names.clear();
  for (const Output& o : g.outputs) {
    ESPALIER_CHECK(static_cast<bool>(o.value), "graph " + g.name + ": output " + o.name + " is empty");
    ESPALIER_CHECK(names.insert(o.name).second, "graph " + g.name + ": two outputs named " + o.name);
  }
}

void verify_state(const Graph& g) {
  for (const StatePair& s : g.state) {
    const auto in = g.find_input(s.input), out = g.find_output(s.output);
    ESPALIER_CHECK(in && out,
                   "graph " + g.name + ": state pair " + s.input + " <- " + s.output + " names no such side");
    ESPALIER_CHECK(
        g.inputs[*in].type() == g.outputs[*out].value.type(),
        "graph " + g.name + ": state pair " + s.input + " <- " + s.output + " has sides of different types");
  }
}

}  // namespace

void verify(const Graph& g) {
  verify_names(g);
  verify_state(g);
  std::unordered_set<const Node*> own;
  for (const Value& v : g.inputs) own.insert(&v.node());
  ESPALIER_CHECK(own.size() == g.inputs.size(), "graph " + g.name + ": an input stands twice");
  for (const Node* n : g.nodes()) {
    if (&n->op() == &input_op)
      ESPALIER_CHECK(own.contains(n),
                     "graph " + g.name + ": input " + n->attrs<InputAttrs>().name + " is not in its list");
    ESPALIER_CHECK(
        g.level != Level::tensor || n->op().kind != Kind::fused,
        "graph " + g.name + ": op " + std::string(n->op().name) + " does not belong to the tensor level");
    n->attrs().each_body([&](const GraphRef& body) {
      if (!body) return;
      ESPALIER_CHECK(body->level <= g.level || n->op().kind == Kind::fused,
                     "graph " + g.name + ": body of " + std::string(n->op().name) + " is of a higher level");
      verify(*body);
    });
  }
}

const Value* ValueMap::find(const Value& from) const {
  const auto it = map_.find(from);
  return it == map_.end() ? nullptr : &it->second;
}

const Value& ValueMap::of(const Value& from) const {
  const Value* to = find(from);
  return to ? *to : from;
}

namespace {

void set_results(ValueMap& map, const Node& from, const std::vector<Value>& to) {
  ESPALIER_CHECK(static_cast<int>(to.size()) == from.results(),
                 "transform of " + std::string(from.op().name) + " gave a wrong number of results");
  for (int i = 0; i < from.results(); ++i) map.set(from.value(i), to[static_cast<size_t>(i)]);
}

std::vector<Value> rebuilt(const Node& n, const std::vector<Value>& operands) {
  if (operands == n.inputs()) {
    std::vector<Value> same;
    for (int i = 0; i < n.results(); ++i) same.push_back(n.value(i));
    return same;
  }
  return make_all(n.op(), operands, n.attrs());
}

std::vector<Value> mapped_operands(const Node& n, const ValueMap& map) {
  std::vector<Value> operands;
  operands.reserve(n.inputs().size());
  for (const Value& v : n.inputs()) operands.push_back(map.of(v));
  return operands;
}

}  // namespace

Graph transform(const Graph& g, const VisitFn& visit) {
  ValueMap map;
  Graph out{.name = g.name, .level = g.level, .inputs = {}, .outputs = {}, .state = g.state, .info = {}};
  for (const Value& in : g.inputs) {
    const std::vector<Value> to = visit(in.node(), {});
    map.set(in, to.empty() ? in : to[0]);
    out.inputs.push_back(map.of(in));
    if (const auto it = g.info.find(in->id()); it != g.info.end()) out.info[map.of(in)->id()] = it->second;
  }
  for (const Node* n : g.nodes()) {
    if (&n->op() == &input_op) continue;
    const std::vector<Value> operands = mapped_operands(*n, map);
    std::vector<Value> results = visit(*n, operands);
    if (results.empty()) results = rebuilt(*n, operands);
    set_results(map, *n, results);
    if (const auto it = g.info.find(n->id()); it != g.info.end()) out.info[results[0]->id()] = it->second;
  }
  for (const Output& o : g.outputs) out.outputs.push_back({o.name, map.of(o.value)});
  return out;
}

std::vector<Value> inline_graph(const Graph& g, std::span<const Value> arguments) {
  ESPALIER_CHECK(arguments.size() == g.inputs.size(),
                 "inlining " + g.name + " with a wrong number of arguments");
  ValueMap map;
  for (size_t i = 0; i < arguments.size(); ++i) {
    ESPALIER_CHECK(arguments[i].type() == g.inputs[i].type(),
                   "inlining " + g.name + ": argument " + std::to_string(i) + " is " +
                       arguments[i].type().text() + ", not " + g.inputs[i].type().text());
    map.set(g.inputs[i], arguments[i]);
  }
  for (const Node* n : g.nodes())
    if (&n->op() != &input_op) set_results(map, *n, rebuilt(*n, mapped_operands(*n, map)));
  std::vector<Value> out;
  for (const Output& o : g.outputs) out.push_back(map.of(o.value));
  return out;
}

Graph specialise(const Graph& g, const std::map<std::string, int64_t>& symbols) {
  if (symbols.empty()) return g;
  const DimMap bind = [&](Dim d) {
    if (d.is_static()) return d;
    const auto it = symbols.find(std::string(d.symbol_name()));
    return it == symbols.end() ? d : Dim(d.factor()) * Dim(it->second);
  };
  for (const auto& [name, value] : symbols)
    if (value < 0) throw UserError({"symbol " + name, "negative size", std::to_string(value), ">= 0"});
  return transform(g, [&](const Node& n, const std::vector<Value>& operands) -> std::vector<Value> {
    if (&n.op() == &input_op) {
      InputAttrs a = n.attrs<InputAttrs>();
      if (a.type.is_static()) return {};
      substitute_field(a.type, bind);
      return {new_input(a.name, a.type)};
    }
    return make_all(n.op(), operands, n.attrs().substituted(bind));
  });
}

std::vector<std::string> symbols_of(const Graph& g) {
  std::set<std::string> names;
  for (const Value& v : g.inputs)
    for (const Dim d : v.dims())
      if (!d.is_static()) names.emplace(d.symbol_name());
  return {names.begin(), names.end()};
}

namespace {

/// Numbers inputs by position and other nodes by order, so that structure can be hashed and compared.
class Numbering {
 public:
  explicit Numbering(const Graph& g) : order(g.nodes()) {
    for (size_t i = 0; i < g.inputs.size(); ++i) number_[&g.inputs[i].node()] = static_cast<int64_t>(i);
    int64_t next = static_cast<int64_t>(g.inputs.size());
    for (const Node* n : order)
      if (&n->op() != &input_op) number_[n] = next++;
  }
  int64_t of(const Value& v) const {
    const auto it = number_.find(&v.node());
    return ((it == number_.end() ? -1 : it->second) << 32) + v.result();
  }
  std::vector<const Node*> order;

 private:
  std::unordered_map<const Node*, int64_t> number_;
};

}  // namespace

bool same_structure(const Graph& a, const Graph& b) {
  if (a.name != b.name || a.level != b.level || a.inputs.size() != b.inputs.size() ||
      a.outputs.size() != b.outputs.size() || a.state != b.state)
    return false;
  const Numbering na(a), nb(b);
  for (size_t i = 0; i < a.inputs.size(); ++i)
    if (a.input_name(i) != b.input_name(i) || a.inputs[i].type() != b.inputs[i].type()) return false;
  std::vector<const Node*> xs, ys;
  for (const Node* n : na.order)
    if (&n->op() != &input_op) xs.push_back(n);
  for (const Node* n : nb.order)
    if (&n->op() != &input_op) ys.push_back(n);
  if (xs.size() != ys.size()) return false;
  for (size_t i = 0; i < xs.size(); ++i) {
    const Node &x = *xs[i], &y = *ys[i];
    if (&x.op() != &y.op() || x.inputs().size() != y.inputs().size() || !(x.attrs() == y.attrs()))
      return false;
    for (size_t k = 0; k < x.inputs().size(); ++k)
      if (na.of(x.inputs()[k]) != nb.of(y.inputs()[k])) return false;
  }
  for (size_t i = 0; i < a.outputs.size(); ++i)
    if (a.outputs[i].name != b.outputs[i].name || na.of(a.outputs[i].value) != nb.of(b.outputs[i].value))
      return false;
  return true;
}

size_t structure_hash(const Graph& g) {
  const Numbering numbers(g);
  size_t h = hash_combine(hash_field(g.name), static_cast<size_t>(g.level));
  for (size_t i = 0; i < g.inputs.size(); ++i)
    h = hash_combine(hash_combine(h, hash_field(g.input_name(i))), hash_field(g.inputs[i].type()));
  for (const Node* n : numbers.order) {
    if (&n->op() == &input_op) continue;
    h = hash_combine(hash_combine(h, hash_field(std::string(n->op().name))), n->attrs().hash());
    for (const Value& v : n->inputs()) h = hash_combine(h, static_cast<size_t>(numbers.of(v)));
  }
  for (const Output& o : g.outputs)
    h = hash_combine(hash_combine(h, hash_field(o.name)), static_cast<size_t>(numbers.of(o.value)));
  return h;
}

}  // namespace espalier::ir
