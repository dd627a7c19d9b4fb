#include "format/onnx_values.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <sstream>

#include "op/axes.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/scalar_loop.h"

namespace espalier::format {

using ir::Array;
using ir::Dim;
using ir::Dims;
using ir::Dtype;
using ir::Value;
using op::at;

namespace {

/// Do the axes that are not 1 keep their order?
bool moves_only_ones(const Dims& dims, const Ints& perm) {
  int64_t before = -1;
  for (const int64_t p : perm) {
    if (dims[at(p)] == Dim(1)) continue;
    if (p < before) return false;
    before = p;
  }
  return true;
}

/// The name of what `move`, a reshape or transpose, makes of a constant: the constant's, and the move; "" for a nameless one.
std::string name_after(const ir::Node& move) {
  const std::string& name = ir::constant_name(move.input(0));
  if (name.empty()) return "";
  const bool transpose = &move.op() == &op::transpose_op;
  const Ints numbers =
      transpose ? move.attrs<op::TransposeAttrs>().perm : ir::static_dims(move.types()[0].dims);
  return name + move_mark + (transpose ? "t" : "r") + join(numbers, " ");
}

Value moved_constant(const Value& v) {
  return ir::constant(evaluate_node(v.node(), std::array{*ir::constant_value(v->input(0))})[0],
                      name_after(v.node()));
}

std::vector<Array> run_graph(const ir::Graph& graph, std::span<const Array> arguments) {
  std::vector<Value> constants;
  for (const Array& a : arguments) constants.push_back(ir::constant(a));
  std::vector<Array> out;
  std::unordered_map<const ir::Node*, std::vector<Array>> done;
  ir::Graph bound{.name = graph.name, .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  for (Value& v : ir::inline_graph(graph, constants)) bound.outputs.push_back({"", std::move(v)});
  for (const ir::Node* n : bound.nodes()) {
    std::vector<Array> operands;
    for (const Value& v : n->inputs()) operands.push_back(done.at(&v.node())[at(v.result())]);
    if (const Array* a = ir::constant_value(n->value())) done[n] = {*a};
    else done[n] = evaluate_node(*n, operands);
  }
  for (const ir::Output& o : bound.outputs) out.push_back(done.at(&o.value.node())[at(o.value.result())]);
  return out;
}

/// May a node be folded once its operands are constants? Not what would grow, draws numbers or has control flow.
bool may_fold(const ir::Node& n) {
  constexpr int64_t small = 4096;
  if (n.op().kind == ir::Kind::random || n.op().kind == ir::Kind::control || n.op().kind == ir::Kind::fused ||
      n.op().kind == ir::Kind::leaf)
    return false;
  int64_t in = 0, out = 0;
  for (const Value& v : n.inputs()) in += v.type().elements();
  for (const ir::Type& t : n.types()) {
    if (!t.is_static()) return false;
    out += t.elements();
  }
  const bool is_integer = !ir::is_float(n.types()[0].dtype);
  if (n.op().kind == ir::Kind::movement) return out <= in || (is_integer && out <= small);
  return in <= small && out <= small;
}

}  // namespace

Ints to_first_perm(int rank) {
  Ints perm{0, rank - 1};
  for (int64_t i = 1; i < rank - 1; ++i) perm.push_back(i);
  return perm;
}

Ints to_last_perm(int rank) {
  Ints perm{0};
  for (int64_t i = 2; i < rank; ++i) perm.push_back(i);
  perm.push_back(1);
  return perm;
}

int64_t last_axis(int64_t axis, int rank) { return axis == 0 ? 0 : axis == 1 ? rank - 1 : axis - 1; }

Dims dims_of(const Held& held) {
  if (!held.value) return held.scalar_sizes ? Dims{} : Dims{static_cast<int64_t>(held.sizes->size())};
  return held.last ? op::pick(held.value.dims(), to_first_perm(held.value.rank())) : held.value.dims();
}

Value plain(const Held& held) {
  return held.last ? transposed(held.value, to_first_perm(held.value.rank())) : held.value;
}

Value stored_last(const Held& held) {
  return held.last ? held.value : transposed(held.value, to_last_perm(held.value.rank()));
}

Value reshaped(const Value& x, const Dims& dims) {
  if (x.dims() == dims) return x;
  if (const Array* a = ir::constant_value(x); a && ir::Type{x.dtype(), dims}.is_static())
    return ir::constant(a->reshaped(ir::static_dims(dims)), name_after(op::reshape(x, dims).node()));
  const Value& from = x->op().name == op::reshape_op.name ? x->input(0) : x;
  return op::reshape(from, dims);
}

Value transposed(const Value& x, const Ints& perm) {
  Value made = op::transpose(x, perm);  // checks perm
  if (made == x) return x;
  if (ir::constant_value(x)) return moved_constant(made);
  if (moves_only_ones(x.dims(), perm)) return reshaped(x, made.dims());
  if (x->op().name != op::transpose_op.name) return made;
  const Ints& first = x->attrs<op::TransposeAttrs>().perm;
  return op::transpose(x->input(0), op::pick(first, perm));
}

std::pair<std::string, std::string> moved_name(const std::string& name) {
  const size_t mark = name.find(move_mark);
  return {name.substr(0, mark), mark == std::string::npos ? "" : name.substr(mark)};
}

Value moved(const Value& constant, const std::string& moves) {
  ir::Graph body{
      .name = "", .inputs = {ir::new_input("x", constant.type())}, .outputs = {}, .state = {}, .info = {}};
  Value x = body.inputs[0];  // no constant: its moves are not carried out but composed
  std::istringstream in(moves);
  for (char mark = 0, kind = 0; in >> mark >> kind;) {
    Ints numbers;
    for (int64_t n = 0; in.peek() != move_mark && in >> n;) numbers.push_back(n);
    x = kind == 't' ? transposed(x, numbers) : reshaped(x, ir::to_dims(numbers));
  }
  body.outputs.push_back({"", x});
  return ir::inline_graph(body, std::array{constant})[0];
}

Value last_moved_to(const Value& x, int64_t axis) {
  Ints perm;
  for (int64_t i = 0; i < x.rank(); ++i) perm.push_back(i < axis ? i : i == axis ? x.rank() - 1 : i - 1);
  return transposed(x, perm);
}

Value kept_as_ones(const Value& reduced, Dims from, const Ints& axes) {
  for (const int64_t a : axes) from[at(a)] = 1;
  return reshaped(reduced, from);
}

Value window_sums(const Value& x, int64_t axis, int64_t length) {
  int64_t n = x.dims()[at(axis)].value(), taken = 0;
  const int64_t left = n - length + 1;
  Value power = x, sum;  // power: the sums of `width` elements
  for (int64_t width = 1;; width *= 2) {
    if (length & width) {
      const Value part = op::slice_axis(power, axis, taken, left);
      sum = sum ? op::add(sum, part) : part;
      taken += width;
    }
    if (taken == length) return sum;
    n -= width;
    power = op::add(op::slice_axis(power, axis, 0, n), op::slice_axis(power, axis, width, n));
  }
}

Value zeros_around(const Value& x, int64_t axis, int64_t before, int64_t behind) {
  Ints low(at(x.rank())), high(at(x.rank()));
  low[at(axis)] = before, high[at(axis)] = behind;
  return op::pad(x, ir::constant(x.dtype(), 0), low, high);
}

Value in_f32_at_least(const Value& x, const std::function<Value(const Value&)>& f) {
  const bool narrow = x.dtype() == ir::Dtype::f16 || x.dtype() == ir::Dtype::bf16;
  return op::cast(f(narrow ? op::cast(x, ir::Dtype::f32) : x), x.dtype());
}

Value stretched(const Value& x, const Dims& dims, const Ints& positions) {
  if (x.dims() == dims) return x;
  Dims kept;
  Ints axes;
  for (size_t i = 0; i < positions.size(); ++i) {
    const Dim d = x.dims()[i], to = dims[at(positions[i])];
    if (d == to && (d != Dim(1) || at(positions[i]) + 1 == dims.size())) {
      kept.push_back(d);
      axes.push_back(positions[i]);
    } else if (d != Dim(1)) {
      throw UserError({"broadcast", "dims do not stretch", dims_text(x.dims()) + " to " + dims_text(dims),
                       "dims that are equal or 1"});
    }
  }
  return op::broadcast_in(reshaped(x, kept), dims, axes);
}

Value stretched(const Value& x, const Dims& dims) {
  if (x.dims().size() > dims.size())
    throw UserError(
        {"broadcast", "the result has fewer axes", dims_text(x.dims()) + " to " + dims_text(dims), ""});
  Ints positions;
  for (size_t i = 0; i < x.dims().size(); ++i)
    positions.push_back(static_cast<int64_t>(i + dims.size() - x.dims().size()));
  return stretched(x, dims, positions);
}

std::optional<Array> one_number(const Value& v) {
  const bool repeated = v->op().name == op::broadcast_to_op.name;
  const Array* a = ir::constant_value(repeated ? v->input(0) : v);
  if (!a || !a->is_splat()) return std::nullopt;
  Array number(a->dtype(), {});
  std::memcpy(number.write(), a->data(), static_cast<size_t>(number.bytes()));
  return number;
}

std::vector<Array> evaluate_node(const ir::Node& node, std::span<const Array> operands) {
  if (node.op().scalar) return {op::run_scalar(node.op().scalar, operands, node.types()[0])};
  if (node.op().eval) {
    const std::function<std::vector<Array>(const ir::Graph&, std::span<const Array>)> run = run_graph;
    return node.op().eval({.node = node, .in = operands, .run_body = run});
  }
  ESPALIER_CHECK(node.op().expand != nullptr,
                 "op " + std::string(node.op().name) + " has no meaning of its own");
  ir::Graph body{.name = "", .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  for (size_t i = 0; i < node.inputs().size(); ++i)
    body.inputs.push_back(ir::new_input("x" + std::to_string(i), node.inputs()[i].type()));
  const std::vector<Value> same = ir::make_all(node.op(), body.inputs, node.attrs());
  for (Value& v : node.op().expand(same[0].node())) body.outputs.push_back({"", std::move(v)});
  return run_graph(body, operands);
}

Value Folder::fold(const Value& v) {
  if (ir::is_input(v) || ir::constant_value(v)) return v;
  if (const Value* known = memo_.find(v)) return *known;
  std::vector<Value> operands;
  std::vector<Array> arrays;
  for (const Value& x : v->inputs()) {
    operands.push_back(fold(x));
    if (const Array* a = ir::constant_value(operands.back())) arrays.push_back(*a);
  }
  std::vector<Value> made =
      operands == v->inputs() ? std::vector<Value>{} : ir::make_all(v->op(), operands, v->attrs());
  if (made.empty())
    for (int i = 0; i < v->results(); ++i) made.push_back(v->value(i));
  if (arrays.size() == operands.size() && may_fold(made[0].node())) {
    std::vector<Array> results = evaluate_node(made[0].node(), arrays);
    const bool moves = &v->op() == &op::transpose_op || &v->op() == &op::reshape_op;
    const std::string name = moves ? name_after(made[0].node()) : "";
    for (size_t i = 0; i < made.size(); ++i) made[i] = ir::constant(std::move(results[i]), name);
  }
  for (size_t i = 0; i < made.size(); ++i) {
    memo_.set(v.sibling(static_cast<int>(i)), made[i]);
    memo_.set(made[i], made[i]);
  }
  return memo_.of(v);
}

}  // namespace espalier::format
