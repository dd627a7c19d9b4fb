#include "op/activation.h"
#include "op/axes.h"
#include "op/elementwise.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"

namespace espalier::pass {

namespace {

using ir::Value;
using namespace rewrite;

bool integer_or_bool(const Value& v) { return !ir::is_float(v.dtype()); }

/// Can a cast to `via` and back be dropped without changing a bit (every value of `from` is one of `via`)?
bool widens(ir::Dtype from, ir::Dtype via) {
  using enum ir::Dtype;
  if (from == via) return true;
  if (from == bf16 || from == f16) return via == f32 || via == f64;
  if (from == f32) return via == f64;
  if (from == i32) return via == i64 || via == f64;
  if (from == i8 || from == u8) return via == i32 || via == i64 || via == f32 || via == f64;
  if (from == boolean) return via != boolean;
  return false;
}

bool is_cast(const Value& v) { return &v->op() == &op::cast_op; }

/// Does a cast from float to integer `to` saturate where one from integer `from` wraps?
bool saturates(ir::Dtype from, ir::Dtype via, ir::Dtype to) {
  return !ir::is_float(from) && ir::is_float(via) && !ir::is_float(to) && to != ir::Dtype::boolean &&
         !widens(from, to);
}

/// cast(cast(x)) where the inner one only widens.
Value merge_casts(const Value& outer) {
  const Value inner = outer->input(0);
  if (!is_cast(inner)) return {};
  const Value x = inner->input(0);
  const bool same = widens(x.dtype(), inner.dtype()) && !saturates(x.dtype(), inner.dtype(), outer.dtype());
  return same && x.dtype() != ir::Dtype::boolean ? op::cast(x, outer.dtype()) : Value();
}

Value merge_transposes(const Value& outer) {
  const auto& perm = outer->attrs<op::TransposeAttrs>().perm;
  const Value& in = outer->input(0);
  if (op::is_identity(perm)) return in;
  if (&in->op() != &op::transpose_op) return {};
  return op::transpose(in->input(0), op::pick(in->attrs<op::TransposeAttrs>().perm, perm));
}

Value merge_reshapes(const Value& outer) {
  const Value& in = outer->input(0);
  if (in.dims() == outer.dims()) return in;
  if (&in->op() == &op::reshape_op) return op::reshape(in->input(0), outer.dims());
  return {};
}

Value merge_broadcasts(const Value& outer) {
  const auto& a = outer->attrs<op::BroadcastAttrs>();
  const Value& in = outer->input(0);
  if (in.dims() == outer.dims() && op::is_identity(a.axes)) return in;
  if (&in->op() != &op::broadcast_to_op) return {};
  return op::broadcast_in(in->input(0), a.dims, op::pick(a.axes, in->attrs<op::BroadcastAttrs>().axes));
}

/// A reshape or transpose of a broadcast scalar is a broadcast of the scalar.
Value moved_splat(const Value& outer) {
  const Value& in = outer->input(0);
  if (&in->op() != &op::broadcast_to_op || in->input(0).rank() != 0) return {};
  return op::broadcast_in(in->input(0), outer.dims(), {});
}

Value drop_whole_slice(const Value& v) {
  const Value in = v->input(0);
  return in.dims() == v.dims() ? in : Value();
}

Value drop_zero_pad(const Value& v) {
  const auto& a = v->attrs<op::PadAttrs>();
  for (size_t i = 0; i < a.low.size(); ++i)
    if (a.low[i] || a.high[i] || a.interior[i]) return {};
  return v->input(0);
}

/// An elementwise op on operands that are all broadcast from one smaller shape in one way is computed small first.
Value sink_unary_broadcast(const Value& v) {
  const Value in = v->input(0);
  if (&in->op() != &op::broadcast_to_op || in->input(0).rank() == in.rank()) return {};
  const auto& a = in->attrs<op::BroadcastAttrs>();
  return op::broadcast_in(ir::make(v->op(), {in->input(0)}, v->attrs()), a.dims, a.axes);
}

std::vector<Rule> make_rules() {
  const Pattern x = any(0), y = any(1);
  const auto first = [](const Match& m) { return m[0]; };
  const auto exact_zero = [](const Match& m) { return integer_or_bool(m[0]); };
  const auto root = [](Value (*f)(const Value&)) { return [f](const Match& m) { return f(m.root()); }; };
  std::vector<Rule> rules{
      {"x + -0", node(op::add_op, x, number(-0.0)), first},
      {"x + 0", node(op::add_op, x, number(0)), first, exact_zero},
      {"x - 0", node(op::sub_op, x, number(0)), first},
      {"x * 1", node(op::mul_op, x, number(1)), first},
      {"x * -1", node(op::mul_op, x, number(-1)), [](const Match& m) { return op::neg(m[0]); }},
      {"x * 0", node(op::mul_op, x, number(0)), [](const Match& m) { return op::zeros_like(m[0]); },
       exact_zero},
      {"x / 1", node(op::div_op, x, number(1)), first},
      {"x ^ 1", node(op::pow_op, x, number(1)), first},
      {"x ^ 2", node(op::pow_op, x, number(2)), [](const Match& m) { return op::square(m[0]); }},
      {"x * x", node(op::mul_op, x, x), [](const Match& m) { return op::square(m[0]); }},
      {"- - x", node(op::neg_op, node(op::neg_op, x)), first},
      {"x - -y", node(op::sub_op, x, node(op::neg_op, y)),
       [](const Match& m) { return op::add(m[0], m[1]); }},
      {"x + -y", node(op::add_op, x, node(op::neg_op, y)),
       [](const Match& m) { return op::sub(m[0], m[1]); }},
      {"relu(relu(x))", node(op::relu_op, node(op::relu_op, x)),
       [](const Match& m) { return op::relu(m[0]); }},
      {"not not x", node(op::logical_not_op, node(op::logical_not_op, x)), first,
       [](const Match& m) { return m[0].dtype() == ir::Dtype::boolean; }},
      {"select(c, x, x)", node(op::select_op, y, x, x), first},
      {"x max x", node(op::max_op, x, x), first},
      {"x min x", node(op::min_op, x, x), first},
      {"cast to own dtype", node(op::cast_op, x), first,
       [](const Match& m) { return m[0].dtype() == m.root().dtype(); }},
      {"cast of cast", node(op::cast_op, x), root(merge_casts)},
      {"transposes", node(op::transpose_op, x), root(merge_transposes)},
      {"transpose of a scalar", node(op::transpose_op, x), root(moved_splat)},
      {"reshapes", node(op::reshape_op, x), root(merge_reshapes)},
      {"reshape of a scalar", node(op::reshape_op, x), root(moved_splat)},
      {"broadcasts", node(op::broadcast_to_op, x), root(merge_broadcasts)},
      {"whole slice", node(op::slice_op, x), root(drop_whole_slice)},
      {"pad by nothing", node(op::pad_op, x, y), root(drop_zero_pad)},
      {"cast of broadcast", node(op::cast_op, x), root(sink_unary_broadcast)},
      {"sum over no axis", node(op::reduce_sum_op, x), first,
       [](const Match& m) { return m.root()->attrs<op::AxesAttrs>().axes.empty(); }},
      {"max over no axis", node(op::reduce_max_op, x), first,
       [](const Match& m) { return m.root()->attrs<op::AxesAttrs>().axes.empty(); }},
  };
  for (const ir::OpDef* op :
       {&op::neg_op, &op::exp_op, &op::log_op, &op::sqrt_op, &op::rsqrt_op, &op::square_op,
        &op::reciprocal_op, &op::tanh_op, &op::sigmoid_op, &op::relu_op})
    rules.push_back({"function of broadcast", node(*op, x), root(sink_unary_broadcast)});
  return rules;
}

}  // namespace

ir::Graph simplify(const ir::Graph& graph, const PassContext&) {
  static const std::vector<Rule> rules = make_rules();
  return rewrite::with_bodies(graph,
                              [](const ir::Graph& g) { return rewrite::rewrite_to_fixed_point(g, rules); });
}

}  // namespace espalier::pass
