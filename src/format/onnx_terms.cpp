// Ops of ours in terms of those that ONNX has: the same bits from other nodes.
#include <algorithm>

#include "format/onnx_export.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/movement.h"
#include "op/norm.h"

namespace espalier::format {

using ir::Array;
using ir::Dtype;
using ir::Node;
using ir::Value;

namespace {

bool can_say(const Node& n) {
  if (n.op().name == op::layer_norm_op.name || n.op().name == op::batch_norm_op.name) return fits_norm(n);
  return n.op().kind == ir::Kind::leaf || is_broadcast(n.value()) ||
         std::any_of(write_rows().begin(), write_rows().end(),
                     [&](const WriteRow& r) { return r.op == n.op().name; });
}

Value in_terms(const Node& n) {
  const auto is = [&](const ir::OpDef& op) { return n.op().name == op.name; };
  const auto x = [&](int i) { return n.input(i); };
  if (is(op::square_op)) return op::mul(x(0), x(0));
  if (is(op::ne_op)) return op::logical_not(op::eq(x(0), x(1)));
  if (is(op::trunc_op))
    return op::select(op::lt(x(0), op::zeros_like(x(0))), op::ceil(x(0)), op::floor(x(0)));
  if (is(op::rsqrt_op))
    return in_f32_at_least(x(0), [](const Value& v) { return op::reciprocal(op::sqrt(v)); });
  if (is(op::clamp_op) && !(is_one_number(x(1)) && is_one_number(x(2)) && !is_broadcast(x(0))))
    return op::min(op::max(x(0), x(1)), x(2));
  if (is(op::iota_op)) {
    const auto& a = n.attrs<op::IotaAttrs>();
    const ir::Dim length = a.type.dims[static_cast<size_t>(a.axis)];
    if (!length.is_static() || length.value() > 1 << 16) return {};
    std::vector<int64_t> numbers;
    for (int64_t i = 0; i < length.value(); ++i) numbers.push_back(i);
    return op::broadcast_in(ir::constant(Array::list(numbers).cast(a.type.dtype)), a.type.dims, {a.axis});
  }
  return {};
}

/// The results of a composite on new inputs, where ONNX can say all of its expansion; else a graph without outputs.
ir::Graph expansion(const Node& n) {
  ir::Graph body{.name = std::string(n.op().name), .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  for (const Value& v : n.inputs())
    body.inputs.push_back(ir::new_input("in" + std::to_string(body.inputs.size()), v.type()));
  const std::vector<Value> made = ir::make_all(n.op(), body.inputs, n.attrs());
  for (const Value& v : n.op().expand(made[0].node()))
    body.outputs.push_back({"out" + std::to_string(body.outputs.size()), v});
  body = in_onnx_terms(body);
  for (const Node* m : body.nodes())
    if (!can_say(*m)) return {};
  return body;
}

}  // namespace

bool is_one_number(const Value& v) { return v.rank() == 0 || (is_broadcast(v) && v->input(0).rank() == 0); }

ir::Graph in_onnx_terms(const ir::Graph& graph) {
  return ir::transform(graph, [](const Node& n, const std::vector<Value>& operands) -> std::vector<Value> {
    if (n.op().kind == ir::Kind::leaf) return {};
    if (n.op().kind == ir::Kind::composite && n.op().expand) {
      if (can_say(n)) return {};
      const ir::Graph body = expansion(n);
      return body.outputs.empty() ? std::vector<Value>{} : ir::inline_graph(body, operands);
    }
    if (n.results() != 1) return {};
    const Value here = operands == n.inputs() ? n.value() : ir::make(n.op(), operands, n.attrs());
    const Value said = in_terms(here.node());
    return said ? std::vector<Value>{said} : std::vector<Value>{};
  });
}

}  // namespace espalier::format
