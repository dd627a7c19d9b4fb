#include <unordered_set>

#include "op/elementwise.h"
#include "op/window.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"
#include "rewrite/uses.h"

namespace espalier::pass {

namespace {

using ir::Node;
using ir::Value;

/// The max_pool nodes over a relu whose relu can come after them, and the selects that are the gradients of those relus:
/// select(y > 0, max_pool_grad(dp, index), 0) with y = relu(x). Where y has other readers it is needed whole anyway.
class Sinkable {
 public:
  explicit Sinkable(const ir::Graph& graph) : uses_(graph) {
    for (const Node* n : graph.nodes())
      if (&n->op() == &op::max_pool_op) add(*n);
  }
  bool has(const Node& n) const { return nodes_.contains(&n); }

 private:
  void add(const Node& pool) {
    const Value& y = pool.input(0);
    if (&y->op() != &op::relu_op || uses_.outputs(y) > 0 || uses_.outputs(pool.value(1)) > 0) return;
    std::unordered_set<const Node*> masked;
    for (const Node* user : uses_.of(y))
      if (user != &pool && !add_selects(*user, pool, masked)) return;
    for (const Node* grad : uses_.of(pool.value(1))) {
      const Node* select = uses_.only(grad->value());
      if (&grad->op() != &op::max_pool_grad_op || !select || !masked.contains(select)) return;
    }
    if (masked.empty()) return;
    nodes_.insert(&pool);
    nodes_.merge(masked);
  }

  /// Is `user` of y the mask y > 0, read only by selects between a gradient through `pool` and 0?
  bool add_selects(const Node& user, const Node& pool, std::unordered_set<const Node*>& selects) const {
    if (&user.op() != &op::gt_op || user.input(0) != pool.input(0) || uses_.outputs(user.value()) > 0 ||
        rewrite::splat_value(user.input(1)) != 0.0)
      return false;
    for (const Node* select : uses_.of(user.value())) {
      if (&select->op() != &op::select_op || rewrite::splat_value(select->input(2)) != 0.0) return false;
      const Value& grad = select->input(1);
      if (&grad->op() != &op::max_pool_grad_op || grad->input(1) != pool.value(1)) return false;
      selects.insert(select);
    }
    return true;
  }

  const rewrite::Uses uses_;
  std::unordered_set<const Node*> nodes_;
};

ir::Graph sink(const ir::Graph& graph) {
  const Sinkable sinkable(graph);
  return ir::transform(graph, [&](const Node& n, const std::vector<Value>& operands) -> std::vector<Value> {
    if (!sinkable.has(n)) return {};
    if (&n.op() == &op::max_pool_op) {
      const std::vector<Value> pooled = op::max_pool(operands[0]->input(0), n.attrs<op::PoolAttrs>());
      return {op::relu(pooled[0]), pooled[1]};
    }
    const Node& grad = operands[1].node();
    const Value largest = op::relu(grad.input(1)->value(0));
    const Value positive = op::gt(largest, op::zeros_like(largest));
    const Value dp = op::select(positive, grad.input(0), op::zeros_like(grad.input(0)));
    return {op::max_pool_grad(dp, grad.input(1), grad.attrs<op::PoolAttrs>())};
  });
}

}  // namespace

// Where a window's maximum is positive, relu changes neither it nor its place, and the mask of the element there is the mask of the
// maximum; where it is not, the gradient is zero. NaN wins either way, and has no gradient.
ir::Graph sink_relu(const ir::Graph& graph, const PassContext&) { return rewrite::with_bodies(graph, sink); }

}  // namespace espalier::pass
