#include "target/reference/interpreter.h"

#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "op/scalar_loop.h"

namespace espalier::target::reference {

using ir::Array;
using ir::Dim;
using ir::Graph;
using ir::Node;
using ir::Type;
using ir::Value;

namespace {

/// Has the op no meaning of its own but its expansion?
bool is_composite(const Node& n) { return n.op().expand && !n.op().eval && !n.op().scalar; }

/// A graph made ready: primitive nodes in order, every value a slot, and which slots die where.
struct Plan {
  struct Step {
    const Node* node;
    std::vector<size_t> operands;
    size_t first_result;
    std::vector<size_t> dead;  ///< slots read here for the last time, and results nobody reads
  };
  std::vector<Value> inputs, outputs;  // keep the graph's nodes alive
  std::vector<Step> steps;
  std::vector<size_t> output_slots, unread_inputs;
  size_t slots = 0;
  std::unordered_map<const Node*, std::vector<Value>> expansions;

  bool is_of(const Graph& g) const { return inputs == g.inputs && outputs == g.output_values(); }
};

class Planner {
 public:
  explicit Planner(const Graph& g) : plan_(std::make_unique<Plan>()) {
    plan_->inputs = g.inputs;
    plan_->outputs = g.output_values();
    for (const Value& in : g.inputs) {
      first_slot_[&in.node()] = plan_->slots++;
      done_.insert(&in.node());
    }
    for (const Value& out : plan_->outputs) visit(out.node());
    for (const Value& out : plan_->outputs) plan_->output_slots.push_back(slot(out));
    find_dead(g.inputs.size());
  }
  std::unique_ptr<Plan> take() { return std::move(plan_); }

 private:
  /// The values a node waits for: its expansion, or its operands.
  const std::vector<Value>& needs(const Node& n) {
    if (!is_composite(n)) return n.inputs();
    const auto [it, added] = plan_->expansions.try_emplace(&n);
    if (added) {
      it->second = n.op().expand(n);
      ESPALIER_CHECK(static_cast<int>(it->second.size()) == n.results(),
                     "op " + std::string(n.op().name) + " expands to a wrong number of results");
    }
    return it->second;
  }

  void visit(const Node& root) {
    struct Frame {
      const Node* node;
      const std::vector<Value>* needs;
      size_t next = 0;
    };
    if (!done_.insert(&root).second) return;
    std::vector<Frame> stack{{&root, &needs(root)}};
    while (!stack.empty()) {
      Frame& top = stack.back();
      if (top.next < top.needs->size()) {
        const Node* next = &(*top.needs)[top.next++].node();
        if (done_.insert(next).second) stack.push_back({next, &needs(*next)});
        continue;
      }
      if (!is_composite(*top.node)) add_step(*top.node);
      stack.pop_back();
    }
  }

  void add_step(const Node& n) {
    ESPALIER_CHECK(&n.op() != &ir::input_op, "the graph reads an input that is not in its list");
    Plan::Step step{&n, {}, plan_->slots, {}};
    for (const Value& v : n.inputs()) step.operands.push_back(slot(v));
    first_slot_[&n] = plan_->slots;
    plan_->slots += static_cast<size_t>(n.results());
    plan_->steps.push_back(std::move(step));
  }

  size_t slot(Value v) const {
    for (auto it = plan_->expansions.find(&v.node()); it != plan_->expansions.end();
         it = plan_->expansions.find(&v.node()))
      v = it->second[static_cast<size_t>(v.result())];
    return first_slot_.at(&v.node()) + static_cast<size_t>(v.result());
  }

  void find_dead(size_t inputs) {
    std::vector<char> seen(plan_->slots, 0);
    for (const size_t s : plan_->output_slots) seen[s] = 1;
    for (size_t i = plan_->steps.size(); i-- > 0;) {
      Plan::Step& step = plan_->steps[i];
      for (size_t r = 0; r < static_cast<size_t>(step.node->results()); ++r)
        if (!seen[step.first_result + r]) step.dead.push_back(step.first_result + r);
      for (const size_t s : step.operands)
        if (!std::exchange(seen[s], 1)) step.dead.push_back(s);
    }
    for (size_t s = 0; s < inputs; ++s)
      if (!seen[s]) plan_->unread_inputs.push_back(s);
  }

  std::unique_ptr<Plan> plan_;
  std::unordered_set<const Node*> done_;
  std::unordered_map<const Node*, size_t> first_slot_;
};

class Interpreter {
 public:
  std::vector<Array> run(const Graph& g, std::span<const Array> inputs) {
    const Plan& plan = plan_of(g);
    std::vector<std::optional<Array>> slots(plan.slots);
    for (size_t i = 0; i < inputs.size(); ++i) slots[i] = inputs[i];
    for (const size_t s : plan.unread_inputs) slots[s].reset();
    std::vector<Array> operands;
    for (const Plan::Step& step : plan.steps) {
      operands.clear();
      for (const size_t s : step.operands) operands.push_back(*slots[s]);
      std::vector<Array> results = primitive(*step.node, operands);
      for (size_t r = 0; r < results.size(); ++r) slots[step.first_result + r] = std::move(results[r]);
      for (const size_t s : step.dead) slots[s].reset();
    }
    std::vector<Array> out;
    for (const size_t s : plan.output_slots) out.push_back(*slots[s]);
    return out;
  }

  std::vector<Array> primitive(const Node& n, std::span<const Array> operands) {
    std::vector<Array> results;
    if (n.op().scalar) {
      results.push_back(op::run_scalar(n.op().scalar, operands, n.types()[0]));
    } else {
      ESPALIER_CHECK(n.op().eval != nullptr, "op " + std::string(n.op().name) + " has no reference meaning");
      results = n.op().eval({n, operands, run_body_});
    }
    check_results(n, results);
    return results;
  }

 private:
  static void check_results(const Node& n, const std::vector<Array>& results) {
    ESPALIER_CHECK(static_cast<int>(results.size()) == n.results(),
                   "op " + std::string(n.op().name) + " evaluates to a wrong number of results");
    for (size_t r = 0; r < results.size(); ++r)
      ESPALIER_CHECK(results[r].type() == n.types()[r], "op " + std::string(n.op().name) + " evaluates to " +
                                                            results[r].type().text() + ", not " +
                                                            n.types()[r].text());
  }

  /// Bodies run many times: their plans are kept. A graph is known by its values, which the plan keeps alive.
  const Plan& plan_of(const Graph& g) {
    std::unique_ptr<Plan>& plan = plans_[&g];
    if (!plan || !plan->is_of(g)) plan = Planner(g).take();
    return *plan;
  }

  std::unordered_map<const Graph*, std::unique_ptr<Plan>> plans_;
  std::function<std::vector<Array>(const Graph&, std::span<const Array>)> run_body_ =
      [this](const Graph& body, std::span<const Array> inputs) { return run(body, inputs); };
};

/// What the symbols of `graph` must be for `inputs` to fit; UserError where they do not.
std::map<std::string, int64_t> bind_symbols(const Graph& g, std::span<const Array> inputs) {
  const std::string where = "graph " + g.name;
  if (inputs.size() != g.inputs.size())
    throw UserError(
        {where, "wrong number of inputs", std::to_string(inputs.size()), std::to_string(g.inputs.size())});
  std::map<std::string, int64_t> bound;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Type &want = g.inputs[i].type(), got = inputs[i].type();
    const std::string what = where + ", input " + g.input_name(i);
    if (got.dtype != want.dtype || got.rank() != want.rank())
      throw UserError({what, "type differs", got.text(), want.text()});
    if (!ir::bind_dims(want.dims, got.dims, bound))
      throw UserError({what, "dims differ", got.text(), want.text()});
  }
  return bound;
}

}  // namespace

std::vector<Array> evaluate(const Graph& graph, std::span<const Array> inputs) {
  const std::map<std::string, int64_t> symbols = bind_symbols(graph, inputs);
  return Interpreter().run(symbols.empty() ? graph : specialise(graph, symbols), inputs);
}

std::vector<Array> evaluate_node(const Node& node, std::span<const Array> operands) {
  ESPALIER_CHECK(operands.size() == node.inputs().size());
  if (!is_composite(node)) return Interpreter().primitive(node, operands);
  Graph g;
  std::vector<Value> arguments;
  for (size_t i = 0; i < operands.size(); ++i) {
    g.inputs.push_back(ir::new_input("operand" + std::to_string(i), node.inputs()[i].type()));
    arguments.push_back(g.inputs.back());
  }
  for (Value& v : make_all(node.op(), std::move(arguments), node.attrs()))
    g.outputs.push_back({"result" + std::to_string(g.outputs.size()), std::move(v)});
  return evaluate(g, operands);
}

}  // namespace espalier::target::reference
