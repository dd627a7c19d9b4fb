// Graphs as text: printing and parsing.
#include <fmt/format.h>

#include <unordered_map>

#include "base/text.h"
#include "ir/graph.h"

namespace espalier::ir {

namespace {

FindOp op_finder = nullptr;

using Numbers = std::unordered_map<Value, int64_t, ValueHash>;

std::string ref(const Numbers& numbers, const Value& v) { return fmt::format("%{}", numbers.at(v)); }

std::string print_node(const Node& n, const Numbers& numbers, ConstantPool* pool, int indent) {
  std::string line;
  for (int i = 0; i < n.results(); ++i) line += (i ? ", " : "") + ref(numbers, n.value(i));
  (line += " = ") += n.op().name;
  if (&n.op() == &input_op) {
    const auto& a = n.attrs<InputAttrs>();
    return line + " " + quote(a.name) + " : " + a.type.text();
  }
  line += "(";
  for (size_t i = 0; i < n.inputs().size(); ++i) line += (i ? ", " : "") + ref(numbers, n.inputs()[i]);
  line += ")";
  FieldPrinter printer{.out = line, .pool = pool, .indent = indent + 2};
  n.attrs().print(printer);
  line += " : ";
  for (int i = 0; i < n.results(); ++i) line += (i ? ", " : "") + n.types()[static_cast<size_t>(i)].text();
  return line;
}

}  // namespace

void set_op_finder(FindOp find) { op_finder = find; }

std::string print(const Graph& g, ConstantPool* pool, int indent) {
  const std::string pad(static_cast<size_t>(indent), ' ');
  std::string out = fmt::format("graph {} {} {{\n", quote(g.name), level_name(g.level));
  Numbers numbers;
  const auto number_results = [&](const Node& n) {
    for (int i = 0; i < n.results(); ++i) numbers.emplace(n.value(i), static_cast<int64_t>(numbers.size()));
  };
  const auto add_line = [&](const Node& n) {
    number_results(n);
    out += pad + "  " + print_node(n, numbers, pool, indent);
    if (const auto it = g.info.find(n.id()); it != g.info.end() && !it->second.name.empty())
      out += " # " + it->second.name;
    out += "\n";
  };
  for (const Value& v : g.inputs) add_line(v.node());
  for (const Node* n : g.nodes())
    if (!numbers.contains(n->value())) add_line(*n);
  out += pad + "  return";
  for (size_t i = 0; i < g.outputs.size(); ++i)
    out += fmt::format("{} {} {}", i ? "," : "", quote(g.outputs[i].name), ref(numbers, g.outputs[i].value));
  out += "\n";
  for (const StatePair& s : g.state)
    out += fmt::format("{}  state {} <- {}\n", pad, quote(s.input), quote(s.output));
  return out + pad + "}" + (indent == 0 ? "\n" : "");
}

namespace {

/// One body deeper while it lives: a text without end must not exhaust the stack.
class Nested {
 public:
  explicit Nested(TextReader& in) {
    if (depth >= 100) in.fail("bodies are nested too deeply", "at most 100 levels");
    ++depth;
  }
  ~Nested() { --depth; }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  static thread_local int depth;
};
thread_local int Nested::depth = 0;

class GraphParser {
 public:
  GraphParser(TextReader& in, const ConstantPool* pool) : in_(in), pool_(pool) {}

  Graph parse() {
    const Nested nested(in_);
    in_.expect("graph");
    graph_.name = in_.string();
    const std::string_view level = in_.word();
    if (level == "fused") graph_.level = Level::fused;
    else if (level == "planned") graph_.level = Level::planned;
    else if (level != "tensor")
      in_.fail("unknown level '" + std::string(level) + "'", "tensor fused planned");
    in_.expect("{");
    while (in_.next_is("%")) parse_line();
    in_.expect("return");
    while (in_.next_is("\"")) {
      std::string name = in_.string();
      if (graph_.find_output(name)) in_.fail("two outputs named " + quote(name));
      graph_.outputs.push_back({std::move(name), value()});
      if (!in_.accept(",")) break;
    }
    while (in_.accept("state")) parse_state();
    in_.expect("}");
    return std::move(graph_);
  }

 private:
  int64_t number() {
    in_.expect("%");
    return in_.integer();
  }

  Value value() {
    const int64_t n = number();
    const auto it = values_.find(n);
    if (it == values_.end()) in_.fail(fmt::format("%{} is not defined above", n));
    return it->second;
  }

  Type type() {
    Type t;
    FieldParser{in_, pool_}(t);
    return t;
  }

  void define(int64_t n, Value v) {
    if (!values_.emplace(n, std::move(v)).second) in_.fail(fmt::format("%{} is defined twice", n));
  }

  void parse_line() {
    std::vector<int64_t> results{number()};
    while (in_.accept(",")) results.push_back(number());
    in_.expect("=");
    const std::string op_name(in_.word());
    if (op_name == "input") {
      std::string name = in_.string();
      in_.expect(":");
      if (results.size() != 1) in_.fail("an input has one result");
      if (graph_.find_input(name)) in_.fail("two inputs named " + quote(name));
      graph_.inputs.push_back(new_input(std::move(name), type()));
      define(results[0], graph_.inputs.back());
      return;
    }
    const OpDef* op = op_name == "constant" ? &constant_op : op_finder ? op_finder(op_name) : nullptr;
    if (!op) in_.fail("unknown op '" + op_name + "'");
    parse_node(*op, results);
  }

  void parse_node(const OpDef& op, const std::vector<int64_t>& results) {
    std::vector<Value> operands;
    in_.expect("(");
    while (!in_.accept(")")) {
      operands.push_back(value());
      if (!in_.next_is(")")) in_.expect(",");
    }
    FieldParser fields{in_, pool_};
    Attrs attrs(op.attrs, op.attrs->parse(fields));
    const std::vector<Value> made = make_all(op, std::move(operands), std::move(attrs));
    if (made.size() != results.size())
      in_.fail("op " + std::string(op.name) + " has another number of results");
    in_.expect(":");
    for (size_t i = 0; i < made.size(); ++i) {
      if (i) in_.expect(",");
      if (const Type t = type(); t != made[i].type())
        in_.fail("type does not follow from the op", made[i].type().text());
      define(results[i], made[i]);
    }
  }

  void parse_state() {
    StatePair s;
    s.input = in_.string();
    in_.expect("<-");
    s.output = in_.string();
    const auto in = graph_.find_input(s.input), out = graph_.find_output(s.output);
    if (!in || !out) in_.fail("state pair names no such input or output");
    if (graph_.inputs[*in].type() != graph_.outputs[*out].value.type())
      in_.fail("state pair has sides of different types");
    graph_.state.push_back(std::move(s));
  }

  TextReader& in_;
  const ConstantPool* pool_;
  Graph graph_;
  std::unordered_map<int64_t, Value> values_;
};

}  // namespace

Graph parse_body(TextReader& in, const ConstantPool* pool) { return GraphParser(in, pool).parse(); }

Graph parse(std::string_view text, const ConstantPool* pool) {
  TextReader in(text, "graph text");
  Graph g = GraphParser(in, pool).parse();
  if (!in.at_end()) in.fail("text after the graph");
  return g;
}

}  // namespace espalier::ir
