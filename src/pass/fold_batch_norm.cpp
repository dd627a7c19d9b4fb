#include <algorithm>

#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/norm.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"
#include "rewrite/uses.h"

namespace espalier::pass {

namespace {

using ir::Value;

/// A convolution or dot with constant weights, and maybe a constant bias per channel added to it.
struct Linear {
  Value root, bias;
};

bool constant_rank1(const Value& v) { return ir::constant_value(v) && v.rank() == 1; }

/// The bias [C] when `v` is a constant broadcast along the last axis.
Value channel_constant(const Value& v) {
  if (&v->op() != &op::broadcast_to_op) return {};
  const auto& axes = v->attrs<op::BroadcastAttrs>().axes;
  return axes.size() == 1 && axes[0] == v.rank() - 1 && constant_rank1(v->input(0)) ? v->input(0) : Value();
}

/// The weight axis that holds the channels of the result, or -1 where folding does not apply.
int64_t channel_axis(const ir::Node& root) {
  const Value& w = root.input(1);
  if (!ir::constant_value(w)) return -1;
  if (&root.op() == &op::conv_op) return 0;
  if (&root.op() == &op::conv_data_grad_op)
    return root.attrs<op::ConvAttrs>().groups == 1 ? w.rank() - 1 : -1;
  if (&root.op() != &op::dot_op) return -1;
  const auto& a = root.attrs<op::DotAttrs>();
  if (!a.batch_b.empty() || w.rank() != static_cast<int>(a.contract_b.size()) + 1) return -1;
  for (int64_t axis = 0; axis < w.rank(); ++axis)
    if (std::find(a.contract_b.begin(), a.contract_b.end(), axis) == a.contract_b.end()) return axis;
  return -1;
}

Linear match_linear(const Value& x, const rewrite::Uses& uses) {
  Linear out;
  Value at = x;
  if (&at->op() == &op::add_op && uses.only(at))
    for (int side = 0; side < 2; ++side)
      if (const Value bias = channel_constant(at->input(side))) {
        out.bias = bias;
        at = at->input(1 - side);
        break;
      }
  if (at->op().kind == ir::Kind::contraction && uses.only(at) && channel_axis(at.node()) >= 0) out.root = at;
  return out;
}

/// scale * rsqrt(var + eps), and what is added after it.
Value folded(const ir::Node& norm, const Linear& linear, const std::function<Value(const Value&)>& mapped) {
  const Value &scale = norm.input(1), &bias = norm.input(2), &mean = norm.input(3), &var = norm.input(4);
  const double eps = norm.attrs<op::NormAttrs>().eps;
  const Value factor = op::mul(scale, op::rsqrt(op::add(var, eps)));
  Value shift = op::sub(bias, op::mul(mean, factor));
  if (linear.bias) shift = op::add(shift, op::mul(linear.bias, factor));
  const ir::Node& root = linear.root.node();
  const Value& w = root.input(1);
  const Value weights = op::mul(w, op::broadcast_in(factor, w.dims(), {channel_axis(root)}));
  const Value y = ir::make(root.op(), {mapped(root.input(0)), weights}, root.attrs());
  return op::add(y, op::broadcast_in(shift, y.dims(), {y.rank() - 1}));
}

ir::Graph fold(const ir::Graph& graph) {
  const rewrite::Uses uses(graph);
  ir::ValueMap done;  // old value -> new value, so that a folded root finds its own new operand
  return ir::transform(graph,
                       [&](const ir::Node& n, const std::vector<Value>& operands) -> std::vector<Value> {
                         std::vector<Value> results;
                         if (&n.op() == &op::batch_norm_op && constant_rank1(n.input(1)) &&
                             constant_rank1(n.input(2)) && constant_rank1(n.input(3)) &&
                             constant_rank1(n.input(4)) && n.input(1).dtype() == n.value().dtype())
                           if (const Linear linear = match_linear(n.input(0), uses); linear.root)
                             results = {folded(n, linear, [&](const Value& v) { return done.of(v); })};
                         if (results.empty() && &n.op() != &ir::input_op)
                           results = ir::make_all(n.op(), operands, n.attrs());
                         for (size_t i = 0; i < results.size(); ++i)
                           done.set(n.value(static_cast<int>(i)), results[i]);
                         return results;
                       });
}

}  // namespace

ir::Graph fold_batch_norm(const ir::Graph& graph, const PassContext& context) {
  return context.exact ? graph : rewrite::with_bodies(graph, fold);
}

}  // namespace espalier::pass
