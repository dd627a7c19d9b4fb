#include "rewrite/pattern.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace espalier::rewrite {

using ir::Graph;
using ir::Node;
using ir::Value;

struct Pattern::Shape {
  enum class Kind : uint8_t { any, number, splat, node } kind;
  int variable = -1;
  double number = 0;
  const ir::OpDef* op = nullptr;
  std::vector<Pattern> operands;
};

Pattern any(int variable) {
  return Pattern(std::make_shared<const Pattern::Shape>(
      Pattern::Shape{Pattern::Shape::Kind::any, variable, 0, nullptr, {}}));
}
Pattern number(double number) {
  return Pattern(std::make_shared<const Pattern::Shape>(
      Pattern::Shape{Pattern::Shape::Kind::number, -1, number, nullptr, {}}));
}
Pattern splat(int variable) {
  return Pattern(std::make_shared<const Pattern::Shape>(
      Pattern::Shape{Pattern::Shape::Kind::splat, variable, 0, nullptr, {}}));
}
Pattern node_as(int variable, const ir::OpDef& op, std::vector<Pattern> operands) {
  return Pattern(std::make_shared<const Pattern::Shape>(
      Pattern::Shape{Pattern::Shape::Kind::node, variable, 0, &op, std::move(operands)}));
}
Pattern node(const ir::OpDef& op, std::vector<Pattern> operands) {
  return node_as(-1, op, std::move(operands));
}

const ir::OpDef* Pattern::root_op() const { return shape_->op; }

std::optional<double> splat_value(const Value& value) {
  const Node& n = value.node();
  const std::string_view name = n.op().name;
  if (name == "broadcast_to" || name == "reshape") return splat_value(n.input(0));
  const ir::Array* a = ir::constant_value(value);
  if (!a || a->size() > 4096 || !a->is_splat()) return std::nullopt;
  return a->at(0);
}

std::optional<Match> Pattern::match(const Value& value) const {
  Match m;
  m.root_ = value;
  if (!match_into(value, m)) return std::nullopt;
  return m;
}

bool Pattern::match_into(const Value& value, Match& m) const {
  const Shape& s = *shape_;
  if (s.kind == Shape::Kind::number) {
    const auto v = splat_value(value);
    return v && *v == s.number && std::signbit(*v) == std::signbit(s.number);
  }
  if (s.kind == Shape::Kind::splat && !splat_value(value)) return false;
  if (s.kind == Shape::Kind::node &&
      (value.result() != 0 || &value->op() != s.op || !match_operands(value, m)))
    return false;
  if (s.variable >= 0) {
    Value& slot = m.bound_[s.variable];
    if (slot && !(slot == value)) return false;
    slot = value;
  }
  return true;
}

bool Pattern::match_operands(const Value& value, Match& m) const {
  const std::vector<Value>& in = value->inputs();
  const std::vector<Pattern>& p = shape_->operands;
  if (in.size() != p.size()) return false;
  const Match before = m;
  bool ok = true;
  for (size_t i = 0; i < p.size() && ok; ++i) ok = p[i].match_into(in[i], m);
  if (ok) return true;
  m = before;
  const std::string_view name = shape_->op->name;
  const bool commutes = name == "add" || name == "mul" || name == "max" || name == "min" || name == "eq" ||
                        name == "ne" || name == "logical_and" || name == "logical_or" ||
                        name == "logical_xor";
  if (p.size() != 2 || !commutes) return false;
  if (p[0].match_into(in[1], m) && p[1].match_into(in[0], m)) return true;
  m = before;
  return false;
}

bool same_outputs(const Graph& a, const Graph& b) {
  if (a.outputs.size() != b.outputs.size() || a.inputs != b.inputs) return false;
  for (size_t i = 0; i < a.outputs.size(); ++i)
    if (!(a.outputs[i].value == b.outputs[i].value)) return false;
  return true;
}

namespace {

using RuleIndex = std::unordered_map<const ir::OpDef*, std::vector<const Rule*>>;

Value apply_first(const Value& value, const std::vector<const Rule*>& rules) {
  for (const Rule* rule : rules) {
    const std::optional<Match> m = rule->pattern.match(value);
    if (!m || (rule->when && !rule->when(*m))) continue;
    Value replacement = rule->build(*m);
    if (!replacement || replacement == value) continue;
    ESPALIER_CHECK(replacement.type() == value.type(), "rule '" + std::string(rule->name) +
                                                           "' changes the type from " + value.type().text() +
                                                           " to " + replacement.type().text());
    return replacement;
  }
  return {};
}

}  // namespace

Graph rewrite_once(const Graph& graph, std::span<const Rule> rules) {
  RuleIndex index;
  for (const Rule& r : rules) {
    ESPALIER_CHECK(r.pattern.root_op() != nullptr,
                   "rule '" + std::string(r.name) + "' has no op at its root");
    index[r.pattern.root_op()].push_back(&r);
  }
  return ir::transform(graph, [&](const Node& n, const std::vector<Value>& operands) -> std::vector<Value> {
    if (n.results() != 1 || n.op().kind == ir::Kind::leaf) return {};
    Value value = operands == n.inputs() ? n.value() : ir::make(n.op(), operands, n.attrs());
    for (int step = 0; step < 64; ++step) {
      const auto found = index.find(&value->op());
      const Value next =
          found == index.end() || value.result() != 0 ? Value() : apply_first(value, found->second);
      if (!next) break;
      value = next;
    }
    return {value};
  });
}

Graph rewrite_to_fixed_point(const Graph& graph, std::span<const Rule> rules, int limit) {
  Graph current = graph;
  for (int round = 0; round < limit; ++round) {
    Graph next = rewrite_once(current, rules);
    if (same_outputs(current, next)) return current;
    current = std::move(next);
  }
  throw InternalError("rewrite rules do not reach a fixed point in graph " + graph.name);
}

namespace {
bool is_control(const Node& n) { return n.op().kind != ir::Kind::fused && n.attrs().has_body(); }
}  // namespace

Graph with_bodies(const Graph& graph, const std::function<Graph(const Graph&)>& f) {
  bool any_body = false;
  for (const Node* n : graph.nodes()) any_body = any_body || is_control(*n);
  if (!any_body) return f(graph);
  ir::Level level = graph.level;
  Graph out =
      ir::transform(graph, [&](const Node& n, const std::vector<Value>& operands) -> std::vector<Value> {
        if (!is_control(n)) return {};
        const ir::Attrs attrs = n.attrs().with_bodies([&](const ir::GraphRef& body) -> ir::GraphRef {
          if (!body) return body;
          auto made = std::make_shared<const Graph>(with_bodies(*body, f));
          level = std::max(level, made->level);
          return made;
        });
        return ir::make_all(n.op(), operands, attrs);
      });
  out.level = level;
  return f(out);
}

}  // namespace espalier::rewrite
