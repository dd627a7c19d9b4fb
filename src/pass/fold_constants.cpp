#include "op/marker.h"
#include "op/movement.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"

namespace espalier::pass {

namespace {

constexpr int64_t largest_bytes = 64 << 20;

/// A constant, or one that is only broadcast: its array, before broadcasting.
const ir::Array* known(const ir::Value& v) {
  return ir::constant_value(&v->op() == &op::broadcast_to_op ? v->input(0) : v);
}

bool foldable(const ir::Node& n, const std::vector<ir::Value>& operands) {
  const ir::Kind kind = n.op().kind;
  if (kind == ir::Kind::leaf || kind == ir::Kind::random || kind == ir::Kind::fused || op::is_marker(n))
    return false;
  if (&n.op() == &op::broadcast_to_op) return false;  // a broadcast constant is cheaper unfolded
  for (const ir::Type& t : n.types())
    if (!t.is_static() || t.bytes() > largest_bytes) return false;
  bool whole = false;  // at least one operand is stored in full, so that folding does not blow up memory
  for (const ir::Value& v : operands) {
    if (!known(v) || !v.type().is_static()) return false;
    whole = whole || ir::constant_value(v);
  }
  return whole || (operands.empty() && kind == ir::Kind::indexed);
}

/// The operand's elements, broadcast where it is.
ir::Array elements_of(const ir::Value& v, const PassContext& context) {
  if (const ir::Array* a = ir::constant_value(v)) return *a;
  return context.evaluate(v.node(), std::vector{*ir::constant_value(v->input(0))})[0];
}

}  // namespace

ir::Graph fold_constants(const ir::Graph& graph, const PassContext& context) {
  return rewrite::with_bodies(graph, [&](const ir::Graph& g) {
    return ir::transform(
        g, [&](const ir::Node& n, const std::vector<ir::Value>& operands) -> std::vector<ir::Value> {
          if (!ir::constant_name(n.value()).empty()) return {ir::constant(*ir::constant_value(n.value()))};
          if (!foldable(n, operands) || &n.op() == &op::dim_size_op) return {};
          if (operands.empty() && n.types()[0].bytes() > 4096)
            return {};  // a long iota is computed, not stored
          std::vector<ir::Array> in;
          for (const ir::Value& v : operands) in.push_back(elements_of(v, context));
          std::vector<ir::Value> out;
          for (ir::Array& a : context.evaluate(n, in)) out.push_back(ir::constant(std::move(a)));
          return out;
        });
  });
}

}  // namespace espalier::pass
