#include "pass/extract.h"

#include "kernel/fused.h"

namespace espalier::pass {

using ir::Node;
using ir::Value;

std::vector<char> Extracted::constant() const {
  std::vector<char> out;
  for (const Value& v : operands) out.push_back(ir::constant_value(v) != nullptr);
  return out;
}

Extracted extract(const std::vector<const Node*>& members, const std::vector<Value>& results,
                  std::string name, ir::Level level) {
  ir::ValueMap inside;
  Extracted out;
  ir::Graph body{
      .name = std::move(name), .level = level, .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  const auto operand = [&](const Value& v) -> Value {
    if (const Value* made = inside.find(v)) return *made;
    if (const ir::Array* a = ir::constant_value(v); a && a->rank() == 0) return v;
    Value in = ir::new_input("x" + std::to_string(out.operands.size()), v.type());
    out.operands.push_back(v);
    body.inputs.push_back(in);
    inside.set(v, in);
    return in;
  };
  for (const Node* n : members) {
    std::vector<Value> operands;
    for (const Value& v : n->inputs()) operands.push_back(operand(v));
    const ir::Graph* nested = kernel::fusion_body(*n);
    const std::vector<Value> made =
        nested ? ir::inline_graph(*nested, operands) : ir::make_all(n->op(), std::move(operands), n->attrs());
    for (size_t i = 0; i < made.size(); ++i) inside.set(n->value(static_cast<int>(i)), made[i]);
  }
  for (size_t i = 0; i < results.size(); ++i) {
    const Value* v = inside.find(results[i]);
    ESPALIER_CHECK(v != nullptr, "a result of the body is not computed by it");
    body.outputs.push_back({"y" + std::to_string(i), *v});
  }
  out.body = std::make_shared<const ir::Graph>(std::move(body));
  return out;
}

}  // namespace espalier::pass
