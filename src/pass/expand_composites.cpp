#include "pass/passes.h"
#include "rewrite/pattern.h"

namespace espalier::pass {

namespace {

/// The expansion of a node on given operands, expanded further until only primitive or claimed ops are left.
std::vector<ir::Value> expand(const ir::Node& n, const PassContext& context) {
  std::vector<ir::Value> results = n.op().expand(n);
  ir::Graph inner{.name = std::string(n.op().name), .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  for (size_t i = 0; i < results.size(); ++i) inner.outputs.push_back({std::to_string(i), results[i]});
  bool nested = false;
  for (const ir::Node* m : inner.nodes()) nested = nested || (m->op().kind == ir::Kind::composite && m != &n);
  if (!nested) return results;
  return expand_composites(inner, context).output_values();
}

}  // namespace

ir::Graph expand_composites(const ir::Graph& graph, const PassContext& context) {
  return rewrite::with_bodies(graph, [&](const ir::Graph& g) {
    return ir::transform(
        g, [&](const ir::Node& n, const std::vector<ir::Value>& operands) -> std::vector<ir::Value> {
          if (n.op().kind != ir::Kind::composite || context.spec.claims(n)) return {};
          const ir::Value here = operands == n.inputs() ? n.value() : ir::make(n.op(), operands, n.attrs());
          return expand(here.node(), context);
        });
  });
}

}  // namespace espalier::pass
