#include "format/onnx_terms.h"

#include <algorithm>

#include "format/onnx_export.h"
#include "op/activation.h"
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

// Where the operands of a composite would stand if a value is its expansion; an empty value where it cannot be one. Only
// expanding again shows that it is.

bool is(const Value& v, const ir::OpDef& op) { return v && v->op().name == op.name; }

/// Operand i of a node of this op.
Value operand(const Value& v, const ir::OpDef& op, int i) { return is(v, op) ? v->input(i) : Value(); }

/// Group norm, add(mul(hat, scale), bias), with the operands, groups and eps that such a value names.
Value maybe_group_norm(const Value& sum) {
  const Value product = operand(sum, op::add_op, 0), hat = operand(product, op::mul_op, 0);
  const Value scale = operand(operand(sum, op::add_op, 0), op::mul_op, 1), bias = operand(sum, op::add_op, 1);
  const Value view = operand(operand(operand(hat, op::reshape_op, 0), op::mul_op, 0), op::sub_op, 0);
  const Value inverse =
      operand(operand(operand(hat, op::reshape_op, 0), op::mul_op, 1), op::broadcast_to_op, 0);
  const Value shifted = operand(operand(inverse, op::reciprocal_op, 0), op::sqrt_op, 0);
  const Value eps = operand(operand(shifted, op::add_op, 1), op::broadcast_to_op, 0);
  const Value x = operand(view, op::reshape_op, 0);
  const Array* number = eps ? ir::constant_value(eps) : nullptr;
  if (!x || !number || number->rank() != 0 || !is(scale, op::broadcast_to_op) ||
      !is(bias, op::broadcast_to_op))
    return {};
  const Value w = scale->input(0), b = bias->input(0);
  const ir::Dim groups = view.dims()[static_cast<size_t>(view.rank() - 2)];
  const bool fits = x.rank() >= 2 && view.rank() == x.rank() + 1 && w.rank() == 1 && b.rank() == 1 &&
                    x.dims().back().is_static() && groups.is_static() && groups.value() > 0 &&
                    x.dims().back().value() % groups.value() == 0 && w.dims()[0] == x.dims().back() &&
                    b.dims()[0] == x.dims().back() && w.dtype() == b.dtype();
  const double exact = number->dtype() == Dtype::f32 ? widen(number->data<float>()[0]) : number->at(0);
  return fits ? op::group_norm(x, w, b, groups.value(), exact) : Value();
}

/// The composites that a value may be the expansion of.
std::vector<Value> candidates(const Value& v) {
  std::vector<Value> out;
  const auto add = [&](const Value& c) {
    if (c && c.type() == v.type()) out.push_back(c);
  };
  if (is(v, op::cast_op)) {  // of 16 bits, around what was found to be one of f32
    const Value& wide = v->input(0);
    const bool found = is(wide, op::silu_op) || is(wide, op::gelu_op) || is(wide, op::group_norm_op);
    const Value x = found ? operand(wide->input(0), op::cast_op, 0) : Value();
    if (!x || x.dtype() != v.dtype() || !is_float(x.dtype())) return {};
    std::vector<Value> operands = wide->inputs();
    operands[0] = x;
    add(ir::make(wide->op(), operands, wide->attrs()));
  } else if (is(v, op::mul_op) && is(v->input(1), op::sigmoid_op)) {
    add(op::silu(v->input(0)));
  } else if (is(v, op::mul_op) && is(v->input(0), op::mul_op) && is(v->input(1), op::add_op)) {
    const Value& x = v->input(0)->input(0);
    if (is_float(x.dtype()))
      for (const bool tanh_form : {false, true}) add(op::gelu(x, tanh_form));
  } else if (is(v, op::add_op) && is(v->input(0), op::mul_op)) {
    add(maybe_group_norm(v));
  }
  return out;
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

ir::Graph from_onnx_terms(const ir::Graph& graph) {
  const auto expanded = [](const Value& v) -> Value {
    const ir::Graph body = expansion(v.node());
    return body.outputs.empty() ? Value() : ir::inline_graph(body, v->inputs())[0];
  };
  return ir::transform(graph, [&](const Node& n, const std::vector<Value>& operands) -> std::vector<Value> {
    if (n.op().kind == ir::Kind::leaf || n.results() != 1) return {};
    const Value here = operands == n.inputs() ? n.value() : ir::make(n.op(), operands, n.attrs());
    for (const Value& c : candidates(here)) {
      const bool around = is(here, op::cast_op);
      if (expanded(c) == (around ? op::cast(expanded(here->input(0)), here.dtype()) : here)) return {c};
    }
    return {};
  });
}

bool is_one_number(const Value& v) {
  return v.rank() == 0 || (is_broadcast(v) && v->input(0).rank() == 0) ||
         (ir::constant_name(v).empty() && one_number(v));
}

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
