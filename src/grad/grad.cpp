#include "grad/grad.h"

#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "op/elementwise.h"
#include "op/marker.h"

namespace espalier::autodiff {

using ir::GradCtx;
using ir::GradKind;
using ir::Graph;
using ir::GraphRef;
using ir::Node;
using ir::Value;
using ir::ValueHash;

namespace {

using ValueSet = std::unordered_set<Value, ValueHash>;

/// One backward walk: from outputs to `wrt`, never beyond the values in `cut`.
class Reverse {
 public:
  Reverse(std::span<const Value> outputs, std::span<const Value> wrt, ValueSet cut)
      : wrt_(wrt.begin(), wrt.end()), cut_(std::move(cut)) {
    order_nodes(outputs);
    for (const Node* n : order_)
      for (const Value& in : n->inputs())
        if (is_active(in)) active_.insert(n);
  }

  void add(const Value& v, const Value& gradient) {
    if (!gradient || !is_active(v)) return;
    ESPALIER_CHECK(gradient.type() == v.type(), "gradient of a result of " + std::string(v->op().name) +
                                                    " has type " + gradient.type().text() + ", not " +
                                                    v.type().text());
    Value& sum = grads_[v];
    sum = sum ? op::add(sum, gradient) : gradient;
  }

  void run() {
    for (size_t i = order_.size(); i-- > 0;)
      if (active_.contains(order_[i])) step(*order_[i]);
  }

  /// The gradient collected for `v`; empty when none came.
  Value of(const Value& v) const {
    const auto it = grads_.find(v);
    return it == grads_.end() ? Value() : it->second;
  }

 private:
  /// Operands first, iteratively: graphs may be millions of nodes deep.
  void order_nodes(std::span<const Value> outputs) {
    struct Frame {
      const Node* node;
      size_t next;
    };
    std::vector<Frame> stack;
    std::unordered_set<const Node*> seen;
    const auto visit = [&](const Value& v) {
      if (!cut_.contains(v) && seen.insert(&v.node()).second) stack.push_back({&v.node(), 0});
    };
    for (const Value& out : outputs) {
      visit(out);
      while (!stack.empty()) {
        Frame& top = stack.back();
        if (top.next < top.node->inputs().size()) {
          visit(top.node->inputs()[top.next++]);
        } else {
          order_.push_back(top.node);
          stack.pop_back();
        }
      }
    }
  }

  /// Does a gradient asked for flow through `v`?
  bool is_active(const Value& v) const {
    if (!ir::is_float(v.dtype())) return false;
    if (wrt_.contains(v)) return true;
    return !cut_.contains(v) && active_.contains(&v.node());
  }

  void step(const Node& n) {
    std::vector<Value> douts;
    bool any = false;
    for (int i = 0; i < n.results(); ++i) {
      // A cut result belongs to the caller's walk: its gradient is an answer, not a way on.
      douts.push_back(cut_.contains(n.value(i)) ? Value() : of(n.value(i)));
      any = any || douts.back();
    }
    if (!any) return;
    std::vector<char> needed;
    for (const Value& in : n.inputs()) needed.push_back(is_active(in));
    const std::vector<Value> grads = input_grads(n, douts, needed);
    for (size_t i = 0; i < grads.size(); ++i)
      if (needed[i]) add(n.inputs()[i], grads[i]);
  }

  static std::vector<Value> input_grads(const Node& n, const std::vector<Value>& douts,
                                        const std::vector<char>& needed) {
    switch (n.op().grad.kind) {
      case GradKind::rule: {
        std::vector<Value> grads = n.op().grad.fn({n, douts, needed, body_grad});
        ESPALIER_CHECK(grads.size() == n.inputs().size(), "the gradient rule of " + std::string(n.op().name) +
                                                              " gives another number of values than inputs");
        return grads;
      }
      case GradKind::by_expansion: return expansion_grads(n, douts, needed);
      case GradKind::none: break;
    }
    throw UserError({"op " + std::string(n.op().name), "has no gradient, and one is asked for through it", "",
                     "a path of differentiable ops (a loop: scan)"});
  }

  /// Through the decomposition, seen as a function of the node's inputs alone: the walk stops at every one of them.
  static std::vector<Value> expansion_grads(const Node& n, const std::vector<Value>& douts,
                                            const std::vector<char>& needed) {
    const std::vector<Value> outputs = n.op().expand(n);
    std::vector<Value> wrt;
    for (size_t i = 0; i < needed.size(); ++i)
      if (needed[i]) wrt.push_back(n.inputs()[i]);
    Reverse inner(outputs, wrt, {n.inputs().begin(), n.inputs().end()});
    for (size_t i = 0; i < outputs.size(); ++i) inner.add(outputs[i], douts[i]);
    inner.run();
    std::vector<Value> grads;
    ValueSet given;  // an operand that stands twice gets the sum once
    for (size_t i = 0; i < needed.size(); ++i)
      grads.push_back(needed[i] && given.insert(n.inputs()[i]).second ? inner.of(n.inputs()[i]) : Value());
    return grads;
  }

  ValueSet wrt_, cut_;
  std::vector<const Node*> order_;
  std::unordered_set<const Node*> active_;
  std::unordered_map<Value, Value, ValueHash> grads_;
};

void check_wrt(std::span<const Value> wrt) {
  for (size_t i = 0; i < wrt.size(); ++i)
    if (!wrt[i] || !ir::is_float(wrt[i].dtype()))
      throw UserError({"gradient", "value " + std::to_string(i) + " asked for is no float",
                       wrt[i] ? wrt[i].type().text() : "an empty value", "f64 f32 bf16 f16"});
}

}  // namespace

std::vector<Value> vjp(std::span<const Value> outputs, std::span<const Value> douts,
                       std::span<const Value> wrt) {
  check_wrt(wrt);
  if (outputs.size() != douts.size())
    throw UserError({"vjp", "numbers of outputs and gradients differ", std::to_string(douts.size()),
                     std::to_string(outputs.size())});
  Reverse walk(outputs, wrt, {});
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (douts[i] && douts[i].type() != outputs[i].type())
      throw UserError({"vjp", "the gradient of output " + std::to_string(i) + " is of another type",
                       douts[i].type().text(), outputs[i].type().text()});
    walk.add(outputs[i], douts[i]);
  }
  walk.run();
  std::vector<Value> grads;
  for (const Value& w : wrt) {
    const Value g = walk.of(w);
    grads.push_back(g ? g : op::zeros_like(w));
  }
  return grads;
}

std::vector<Value> gradient(const Value& loss, std::span<const Value> wrt) {
  if (!loss || loss.rank() != 0 || !ir::is_float(loss.dtype()))
    throw UserError({"gradient", "the loss is no float scalar", loss ? loss.type().text() : "an empty value",
                     "f32[] (reduce it by a sum or a mean)"});
  const Value seed = op::loss_seed(ir::constant(loss.dtype(), 1));
  std::vector<Value> grads = vjp({&loss, 1}, {&seed, 1}, wrt);
  for (Value& g : grads) g = op::param_grad(g);
  return grads;
}

GraphRef body_grad(const GraphRef& body, const std::vector<char>& wanted) {
  ESPALIER_CHECK(wanted.size() == body->inputs.size());
  Graph g{.name = body->name + "_grad",
          .level = body->level,
          .inputs = body->inputs,
          .outputs = {},
          .state = {},
          .info = {}};
  std::set<std::string> names;
  for (size_t i = 0; i < body->inputs.size(); ++i) names.insert(body->input_name(i));
  const auto fresh = [&](std::string name) {
    while (!names.insert(name).second) name += "_";
    return name;
  };
  std::vector<Value> douts;
  for (const ir::Output& out : body->outputs) {
    const bool flows = ir::is_float(out.value.dtype());
    douts.push_back(flows ? ir::new_input(fresh("d_" + out.name), out.value.type()) : Value());
    if (flows) g.inputs.push_back(douts.back());
  }
  std::vector<Value> wrt;
  for (size_t i = 0; i < wanted.size(); ++i)
    if (wanted[i]) wrt.push_back(body->inputs[i]);
  const std::vector<Value> outputs = body->output_values();
  const std::vector<Value> grads = vjp(outputs, douts, wrt);
  for (size_t i = 0, k = 0; i < wanted.size(); ++i)
    if (wanted[i]) g.outputs.push_back({"d_" + body->input_name(i), grads[k++]});
  return std::make_shared<const Graph>(std::move(g));
}

}  // namespace espalier::autodiff
