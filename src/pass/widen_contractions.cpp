#include "op/contraction.h"
#include "op/elementwise.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"

namespace espalier::pass {

namespace {

/// The contraction of the operands cast to `wide`, not rounded.
ir::Value in_dtype(const ir::Node& n, const std::vector<ir::Value>& operands, ir::Dtype wide) {
  std::vector<ir::Value> cast;
  for (const ir::Value& v : operands) cast.push_back(op::cast(v, wide));
  if (&n.op() == &op::dot_op) {
    op::DotAttrs attrs = n.attrs<op::DotAttrs>();
    attrs.out = wide;
    return ir::make(n.op(), std::move(cast), attrs);
  }
  op::ConvAttrs attrs = n.attrs<op::ConvAttrs>();
  attrs.out = wide;
  return ir::make(n.op(), std::move(cast), attrs);
}

}  // namespace

ir::Graph widen_contractions(const ir::Graph& graph, const PassContext& context) {
  return rewrite::with_bodies(graph, [&](const ir::Graph& g) {
    return ir::transform(
        g, [&](const ir::Node& n, const std::vector<ir::Value>& operands) -> std::vector<ir::Value> {
          if (n.op().kind != ir::Kind::contraction) return {};
          const ir::Dtype wide = context.spec.contraction_dtype(operands[0].dtype());
          if (wide == operands[0].dtype()) return {};
          const ir::Value result = in_dtype(n, operands, wide);
          return {n.value().dtype() == wide ? result : op::cast(result, n.value().dtype())};
        });
  });
}

}  // namespace espalier::pass
