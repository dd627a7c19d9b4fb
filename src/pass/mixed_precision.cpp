// Which ops compute in the low dtype:
//   contractions   operands low, accumulation f32; the result is low, or f32 where only f32 consumers (parameter
//                  gradients, a bias add that is then rounded once) read it
//   norms          big operands low, parameters and statistics f32
//   followers      ops that do not round, or round once (add, sub): low when an activation among their operands is
//   all others     f32
#include <set>

#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/marker.h"
#include "op/movement.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"
#include "rewrite/uses.h"

namespace espalier::pass {

namespace {

using ir::Dtype;
using ir::Node;
using ir::Value;

const std::set<std::string_view> followers{
    "add",      "sub",           "neg",       "abs",           "relu",   "max",         "min",    "select",
    "clamp",    "reshape",       "transpose", "broadcast_to",  "slice",  "pad",         "concat", "reverse",
    "max_pool", "max_pool_grad", "avg_pool",  "avg_pool_grad", "resize", "resize_grad", "dropout"};
const std::set<std::string_view> norms{"batch_norm_train", "batch_norm_grad", "batch_norm",
                                       "layer_norm",       "layer_norm_grad", "group_norm"};

class Mixer {
 public:
  Mixer(const ir::Graph& graph, Dtype low) : graph_(graph), uses_(graph), low_(low) {}

  ir::Graph run() {
    ir::Graph out = graph_;
    for (const Value& v : graph_.inputs) natural_.set(v, v);
    for (const Node* n : graph_.nodes()) {
      if (&n->op() == &ir::input_op) continue;
      const std::vector<Value> results = visit(*n);
      for (size_t i = 0; i < results.size(); ++i) natural_.set(n->value(static_cast<int>(i)), results[i]);
    }
    for (ir::Output& o : out.outputs) o.value = as(o.value, o.value.dtype());
    return out;
  }

 private:
  /// The new value in `dtype`, cast where its natural form is another.
  Value as(const Value& old, Dtype dtype) {
    const Value& v = natural_.of(old);
    return v.dtype() == dtype ? v : op::cast(v, dtype);
  }
  bool is_low(const Value& old) const {
    return old.dtype() == Dtype::f32 && natural_.of(old).dtype() == low_;
  }

  std::vector<Value> visit(const Node& n) {
    if (n.op().kind == ir::Kind::contraction && n.input(0).dtype() == Dtype::f32) return {contraction(n)};
    if (norms.contains(n.op().name)) return with_operands(n, [](const Value& v) { return v.rank() >= 2; });
    if (followers.contains(n.op().name)) return follower(n);
    std::vector<Value> operands;
    for (const Value& v : n.inputs()) operands.push_back(as(v, v.dtype()));
    return ir::make_all(n.op(), std::move(operands), n.attrs());
  }

  /// Operands that `big` picks become low when one of them is; the rest stays as it was.
  template <class F>
  std::vector<Value> with_operands(const Node& n, F&& big) {
    bool low = false;
    for (const Value& v : n.inputs()) low = low || (big(v) && is_low(v));
    std::vector<Value> operands;
    for (const Value& v : n.inputs())
      operands.push_back(as(v, low && v.dtype() == Dtype::f32 && big(v) ? low_ : v.dtype()));
    return ir::make_all(n.op(), std::move(operands), n.attrs());
  }

  std::vector<Value> follower(const Node& n) {
    if (const Value biased = bias_add(n)) return {biased};
    bool full = false;  // a genuine f32 operand that is no small broadcast keeps the op in f32
    for (const Value& v : n.inputs())
      full = full || (v.dtype() == Dtype::f32 && !is_low(v) && !rewrite::splat_value(v) &&
                      n.op().name != "concat" && &v->op() != &op::broadcast_to_op && v.rank() > 0);
    if (full) return with_operands(n, [](const Value&) { return false; });
    return with_operands(n, [](const Value&) { return true; });
  }

  /// A contraction's f32 result plus a bias: added in f32, then rounded once.
  Value bias_add(const Node& n) {
    if (&n.op() != &op::add_op || !biased_.contains(&n)) return {};
    const Value sum = op::add(as(n.input(0), Dtype::f32), as(n.input(1), Dtype::f32));
    return wanted_low(n.value()) ? op::cast(sum, low_) : sum;
  }

  bool wants_low(const Node& user) const {
    return (user.op().kind == ir::Kind::contraction && user.input(0).dtype() == Dtype::f32) ||
           followers.contains(user.op().name) || norms.contains(user.op().name);
  }
  bool wanted_low(const Value& v) const {
    for (const Node* user : uses_.of(v))
      if (wants_low(*user)) return true;
    return false;
  }

  static bool adds_bias(const Node& user, const Value& v) {
    if (&user.op() != &op::add_op) return false;
    const Value& other = user.input(0) == v ? user.input(1) : user.input(0);
    return &other->op() == &op::broadcast_to_op && other->input(0).rank() <= 1;
  }

  Value contraction(const Node& n) {
    std::vector<Value> operands;
    for (const Value& v : n.inputs()) operands.push_back(as(v, low_));
    const Node* only = uses_.only(n.value());
    const bool bias = only && adds_bias(*only, n.value());
    if (bias) biased_.insert(only);
    const Dtype out = bias || !wanted_low(n.value()) ? Dtype::f32 : low_;
    return ir::make(n.op(), std::move(operands), op::with_result_dtype(n, out));
  }

  const ir::Graph& graph_;
  const rewrite::Uses uses_;
  const Dtype low_;
  ir::ValueMap natural_;
  std::set<const Node*> biased_;
};

}  // namespace

namespace {

/// Put the loss scale where the markers stand, then drop them.
ir::Graph apply_markers(const ir::Graph& graph, double scale) {
  return ir::transform(graph, [&](const Node& n, const std::vector<Value>& operands) -> std::vector<Value> {
    if (!op::is_marker(n)) return {};
    if (scale == 1) return {operands[0]};
    return {op::mul(operands[0], &n.op() == &op::loss_seed_op ? scale : 1 / scale)};
  });
}

}  // namespace

ir::Graph mixed_precision(const ir::Graph& graph, const PassContext& context) {
  if (context.precision == Precision::f32) return apply_markers(graph, 1);
  const Dtype low = context.precision == Precision::bf16 ? Dtype::bf16 : Dtype::f16;
  const ir::Graph mixed =
      rewrite::with_bodies(graph, [&](const ir::Graph& g) { return Mixer(g, low).run(); });
  return apply_markers(mixed, low == Dtype::f16 ? context.loss_scale : 1);
}

}  // namespace espalier::pass
