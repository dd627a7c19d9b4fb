// Which ops compute in the low dtype:
//   contractions   operands low, accumulation f32; the result is low, or f32 where only f32 consumers (parameter
//                  gradients, a bias add that is then rounded once) read it
//   norms          big operands low, parameters and statistics f32
//   followers      ops that do not round, or round once (add, sub): low when an activation among their operands is; f32 where
//                  the low dtype has no room for one of their constants (a mask of -1e9 in f16)
//   all others     f32
// A sum that only f32 consumers read is such a consumer itself, so the terms of a parameter's gradient (of a weight that is used
// twice, of a loop's steps) are added in f32.
#include <algorithm>
#include <cmath>
#include <set>
#include <unordered_set>

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
/// Followers through which a gradient may still go on its way out of the graph.
const std::set<std::string_view> carriers{"add",   "sub", "neg",    "reshape", "transpose",
                                          "slice", "pad", "concat", "reverse"};
const std::set<std::string_view> norms{"batch_norm_train", "batch_norm_grad", "batch_norm",
                                       "layer_norm",       "layer_norm_grad", "group_norm"};

class Mixer {
 public:
  Mixer(const ir::Graph& graph, Dtype low) : graph_(graph), uses_(graph), low_(low) {
    const std::vector<const Node*> nodes = graph.nodes();
    for (const Node* n : nodes)
      if (exceeds(*n)) beyond_.insert(n);
    for (size_t i = nodes.size(); i-- > 0;) look_ahead(*nodes[i]);
  }

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

  /// Is it a constant with an element that is finite in f32 and not in the low dtype, or made from one by arithmetic and movement
  /// alone? (Where one operand of an arithmetic op is low, so is the other, and would overflow.)
  bool exceeds(const Node& n) const {
    if (n.types()[0].dtype != Dtype::f32) return false;
    if (const ir::Array* a = ir::constant_value(n.value())) {
      const float limit = low_ == Dtype::f16 ? 65520.0f : 0x1.ffp127f;  // from here on it rounds to infinity
      const float* p = a->data<float>();
      return std::any_of(p, p + a->size(),
                         [&](float x) { return std::isfinite(x) && std::fabs(x) >= limit; });
    }
    if (n.op().kind != ir::Kind::elementwise && n.op().kind != ir::Kind::movement) return false;
    return std::any_of(n.inputs().begin(), n.inputs().end(),
                       [&](const Value& v) { return beyond_.contains(&v.node()); });
  }

  /// What the users of a node's results (looked at before it) make of them.
  void look_ahead(const Node& n) {
    bool low = false, leaves = true;
    for (int i = 0; i < n.results(); ++i)
      for (const Node* user : uses_.of(n.value(i))) {
        low = low || wants_low(*user);
        leaves = leaves && (&user->op() == &op::param_grad_op ||
                            (carriers.contains(user->op().name) && leaves_.contains(user)));
      }
    if (low) wanted_low_.insert(&n);
    if (leaves) leaves_.insert(&n);
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
    // A genuine f32 operand that is no small broadcast, or one that does not fit, keeps the op in f32.
    bool full = false;
    for (const Value& v : n.inputs())
      full = full || beyond_.contains(&v.node()) ||
             (v.dtype() == Dtype::f32 && !is_low(v) && !rewrite::splat_value(v) && n.op().name != "concat" &&
              &v->op() != &op::broadcast_to_op && v.rank() > 0);
    if (full) return with_operands(n, [](const Value&) { return false; });
    return with_operands(n, [](const Value&) { return true; });
  }

  /// A contraction's f32 result plus a bias: added in f32, then rounded once.
  Value bias_add(const Node& n) {
    if (&n.op() != &op::add_op || !biased_.contains(&n)) return {};
    const Value sum = op::add(as(n.input(0), Dtype::f32), as(n.input(1), Dtype::f32));
    return wanted_low(n) ? op::cast(sum, low_) : sum;
  }

  bool wants_low(const Node& user) const {
    if (user.op().kind == ir::Kind::contraction) return user.input(0).dtype() == Dtype::f32;
    if (norms.contains(user.op().name)) return true;
    if (!followers.contains(user.op().name) || beyond_.contains(&user)) return false;
    if (&user.op() == &op::add_op && !wanted_low_.contains(&user)) return false;
    return !(carriers.contains(user.op().name) && leaves_.contains(&user));
  }
  bool wanted_low(const Node& n) const { return wanted_low_.contains(&n); }

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
    const Dtype out = bias || !wanted_low(n) ? Dtype::f32 : low_;
    return ir::make(n.op(), std::move(operands), op::with_result_dtype(n, out));
  }

  const ir::Graph& graph_;
  const rewrite::Uses uses_;
  const Dtype low_;
  ir::ValueMap natural_;
  std::set<const Node*> biased_;
  std::unordered_set<const Node*> beyond_;      ///< values that may not fit the low dtype
  std::unordered_set<const Node*> wanted_low_;  ///< some user computes in the low dtype
  std::unordered_set<const Node*> leaves_;      ///< only outputs and param_grad are reached, through carriers
};

}  // namespace

namespace {

/// Put the loss scale where the markers stand, in bodies too, then drop them.
ir::Graph apply_markers(const ir::Graph& graph, double scale) {
  return rewrite::with_bodies(graph, [&](const ir::Graph& g) {
    return ir::transform(g, [&](const Node& n, const std::vector<Value>& operands) -> std::vector<Value> {
      if (!op::is_marker(n)) return {};
      if (scale == 1) return {operands[0]};
      return {op::mul(operands[0], &n.op() == &op::loss_seed_op ? scale : 1 / scale)};
    });
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
