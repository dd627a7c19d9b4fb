#include "op/contraction.h"
#include "op/elementwise.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"

namespace espalier::pass {

ir::Graph widen_contractions(const ir::Graph& graph, const PassContext& context) {
  return rewrite::with_bodies(graph, [&](const ir::Graph& g) {
    return ir::transform(
        g, [&](const ir::Node& n, const std::vector<ir::Value>& operands) -> std::vector<ir::Value> {
          if (n.op().kind != ir::Kind::contraction) return {};
          const ir::Dtype wide = context.spec.contraction_dtype(operands[0].dtype());
          if (wide == operands[0].dtype()) return {};
          std::vector<ir::Value> widened;
          for (const ir::Value& v : operands) widened.push_back(op::cast(v, wide));
          const ir::Value result = ir::make(n.op(), std::move(widened), op::with_result_dtype(n, wide));
          return {n.value().dtype() == wide ? result : op::cast(result, n.value().dtype())};
        });
  });
}

}  // namespace espalier::pass
