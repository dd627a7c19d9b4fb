#include "kernel/fused.h"

#include "op/table.h"

namespace espalier::kernel {

using ir::Value;

const ir::OpDef fusion_op{
    .name = "fusion",
    .doc = "A body graph run as one kernel.",
    .kind = ir::Kind::fused,
    .arity = {0, -1},
    .dtypes = ir::all_types,
    .attrs = ir::attr_type<FusionAttrs>(),
    .infer =
        [](const ir::InferCtx& c) {
          const auto& a = c.attrs.get<FusionAttrs>();
          if (!a.body) c.fail("has no body");
          if (a.body->inputs.size() != c.in.size()) c.fail("operands do not match the body's inputs");
          for (size_t i = 0; i < c.in.size(); ++i)
            if (a.body->inputs[i].type() != c.in[i])
              c.fail("operand " + std::to_string(i) + " does not match the body's input",
                     a.body->inputs[i].type().text());
          std::vector<ir::Type> types;
          for (const ir::Output& o : a.body->outputs) types.push_back(o.value.type());
          return types;
        },
    .grad = ir::not_differentiable,
    .expand = [](const ir::Node& n) { return ir::inline_graph(*n.attrs<FusionAttrs>().body, n.inputs()); },
    .scalar = {},
    .eval = nullptr,
    .sample = nullptr,
};

namespace {
const bool registered = (op::register_op(fusion_op), true);
}

std::vector<Value> fusion(FusionKind kind, ir::GraphRef body, std::vector<Value> operands) {
  return ir::make_all(fusion_op, std::move(operands), FusionAttrs{kind, std::move(body)});
}

const ir::Graph* fusion_body(const ir::Node& node) {
  return &node.op() == &fusion_op ? node.attrs<FusionAttrs>().body.get() : nullptr;
}

const ir::Node& contraction_root(const ir::Graph& body) {
  const ir::Node* root = nullptr;
  for (const ir::Node* n : body.nodes())
    if (n->op().kind == ir::Kind::contraction) {
      ESPALIER_CHECK(root == nullptr, "contraction body has two roots");
      root = n;
    }
  ESPALIER_CHECK(root != nullptr, "contraction body has no root");
  return *root;
}

ir::Graph body_of(const ir::Node& node) {
  if (const ir::Graph* body = fusion_body(node)) return *body;
  ir::Graph g{.name = std::string(node.op().name),
              .level = ir::Level::fused,
              .inputs = {},
              .outputs = {},
              .state = {},
              .info = {}};
  for (const ir::Value& v : node.inputs())
    g.inputs.push_back(ir::new_input("x" + std::to_string(g.inputs.size()), v.type()));
  const std::vector<ir::Value> results = ir::make_all(node.op(), g.inputs, node.attrs());
  for (size_t i = 0; i < results.size(); ++i) g.outputs.push_back({"y" + std::to_string(i), results[i]});
  return g;
}

}  // namespace espalier::kernel
