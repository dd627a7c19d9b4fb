#include "kernel/contraction_body.h"

#include <algorithm>

#include "kernel/bit_mask.h"
#include "kernel/fused.h"
#include "op/activation.h"
#include "op/axes.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "rewrite/pattern.h"
#include "rewrite/uses.h"

namespace espalier::kernel {

using ir::Dtype;
using ir::Node;
using ir::Value;

namespace {

/// Thrown inside a reader, turned into the reason it returns.
struct Declined {
  std::string reason;
};

[[noreturn]] void decline(std::string reason) { throw Declined{std::move(reason)}; }

bool planar_perm(const std::vector<int64_t>& perm) {  // [N, C, spatial...] -> [N, spatial..., C]
  const auto r = static_cast<int64_t>(perm.size());
  if (r < 3 || perm[0] != 0 || perm.back() != 1) return false;
  for (int64_t i = 1; i + 1 < r; ++i)
    if (perm[static_cast<size_t>(i)] != i + 1) return false;
  return true;
}

class Reader {
 public:
  explicit Reader(const ir::Graph& body) : body_(body), uses_(body) {}

  ContractionBody run(bool several) {
    if (body_.outputs.size() != 1 && !several) decline("more than one result");
    out_.root = &contraction_root(body_);
    out_.a = operand(out_.root->input(0));
    out_.b = operand(out_.root->input(1));
    Value at = out_.root->value();
    while (!(at == body_.outputs[0].value)) {
      EpilogueStep s = step(at);
      at = s.value;
      out_.steps.push_back(std::move(s));
    }
    for (size_t o = 1; o < body_.outputs.size(); ++o) out_.extras.push_back(extra(body_.outputs[o].value));
    return std::move(out_);
  }

 private:
  ExtraResult extra(const Value& v) const {
    Value at = out_.root->value();
    for (size_t i = 0; i < out_.steps.size(); at = out_.steps[i++].value)
      if (at == v) return {.kind = ExtraResult::Kind::before_step, .step = i};
    if (const Value mask = match_packed(v)) {
      const Value& y = body_.outputs[0].value;
      if (mask != op::gt(y, op::zeros_like(y)))
        decline("bits of something else than where the result is above 0");
      return {.kind = ExtraResult::Kind::positive_bits};
    }
    if (&v->op() != &op::reduce_sum_op || &out_.root->op() != &op::dot_op)
      decline("a result that " + std::string(v->op().name) + " gives");
    Value of = v->input(0);
    if (&of->op() == &op::cast_op && !(of == out_.root->input(0)) && !(of == out_.root->input(1)))
      of = of->input(0);
    const auto& dot = out_.root->attrs<op::DotAttrs>();
    const auto is_sum_of = [&](int operand, std::vector<int64_t> contracted) {
      std::vector<int64_t> axes = v->attrs<op::AxesAttrs>().axes;
      std::sort(axes.begin(), axes.end());
      std::sort(contracted.begin(), contracted.end());
      return of == out_.root->input(operand) && axes == contracted && dot.batch_a.empty();
    };
    if (is_sum_of(0, dot.contract_a)) return {.kind = ExtraResult::Kind::sum_of_a};
    if (is_sum_of(1, dot.contract_b)) return {.kind = ExtraResult::Kind::sum_of_b};
    decline("a sum that is none of an operand's over the contracted axes");
  }

  int input_number(const Value& v) const {
    for (size_t i = 0; i < body_.inputs.size(); ++i)
      if (body_.inputs[i] == v) return static_cast<int>(i);
    decline("an operand is computed inside the body");
  }

  RootOperand operand(Value v) const {
    RootOperand s;
    if (const auto match = match_from_blocked(v)) {
      s.layout = match->blocks.layout;
      s.block = match->blocks.size;
      v = match->value;
    } else if (&v->op() == &op::transpose_op && planar_perm(v->attrs<op::TransposeAttrs>().perm)) {
      s.layout = ActLayout::planar;
      v = v->input(0);
    }
    if (&v->op() == &op::cast_op) {
      if (v->input(0).dtype() != Dtype::f32 || v.dtype() != Dtype::bf16) decline("cast of an operand");
      v = v->input(0);
    }
    s.input = input_number(v);
    s.dtype = v.dtype();
    return s;
  }

  EpilogueStep step(const Value& at) {
    if (auto gelu = expanded_gelu(at)) return std::move(*gelu);
    const Node* next = uses_.only(at);
    if (!next) decline("a value inside is used twice");
    return step(at, *next);
  }

  /// Equal nodes are one node: an expansion made anew is the one in the body, where it has one.
  std::optional<EpilogueStep> expanded_gelu(const Value& at) const {
    if (!ir::is_float(at.dtype()) || (at.dtype() == Dtype::f32 && uses_.of(at).size() < 2)) return {};
    for (const bool tanh_form : {false, true}) {
      const Value whole = op::gelu(at, tanh_form);
      const Value y = whole->op().expand(whole.node())[0];
      if (!uses_.of(y).empty() || uses_.outputs(y) > 0)
        return EpilogueStep{.op = &op::gelu_op, .tanh_form = tanh_form, .blocks = {}, .value = y};
    }
    return {};
  }

  EpilogueStep step(const Value& at, const Node& next) {
    EpilogueStep s{.op = &next.op(), .blocks = {}, .value = next.value()};
    if (s.op == &op::reshape_op) {
      blocked_result(at, next, s);
    } else if (s.op == &op::add_op || s.op == &op::mul_op) {
      second_operand(next.input(0) == at ? next.input(1) : next.input(0), s);
    } else if (s.op == &op::select_op) {
      kept_where(at, next, s);
    } else if (next.inputs().size() != 1) {
      decline("epilogue op " + std::string(s.op->name));
    }
    return s;
  }

  void kept_where(const Value& at, const Node& select, EpilogueStep& s) const {
    const Value mask = match_unpacked(select.input(0));
    if (!mask || select.input(1) != at || rewrite::splat_value(select.input(2)) != 0.0)
      decline("epilogue op select");
    s.other = EpilogueStep::Other::bits;
    s.input = input_number(mask);
  }

  void blocked_result(const Value& at, const Node& reshape, EpilogueStep& s) {
    const Node* transpose = uses_.only(reshape.value());
    if (!transpose && reshape.value() == body_.outputs[0].value) decline("reshaped result");
    Value blocked = transpose ? transpose->value() : Value();
    const auto match = blocked ? match_to_blocked(blocked) : std::nullopt;
    if (!match || !(match->value == at)) decline("result in an unknown layout");
    blocks_ = s.blocks = match->blocks;
    s.value = blocked;
  }

  void second_operand(const Value& other, EpilogueStep& s) const {
    if (const ir::Array* number = number_of(other)) {
      s.other = EpilogueStep::Other::number;
      s.number = number->at(0);
    } else if (const int vector = channel_vector(other); vector >= 0) {
      s.other = EpilogueStep::Other::channels;
      s.input = vector;
    } else if (ir::is_input(other) && other.type() == s.value.type()) {
      s.other = EpilogueStep::Other::tensor;
      s.input = input_number(other);
    } else {
      decline("epilogue operand " + other.type().text());
    }
  }

  static const ir::Array* number_of(const Value& v) {
    const Value& from = &v->op() == &op::broadcast_to_op ? v->input(0) : v;
    const ir::Array* array = ir::constant_value(from);
    return array && array->rank() == 0 ? array : nullptr;
  }

  /// The body input [C] when `v` is it, broadcast along the channels of a (maybe blocked) value; else -1.
  int channel_vector(const Value& v) const {
    if (&v->op() != &op::broadcast_to_op) return -1;
    const auto& axes = v->attrs<op::BroadcastAttrs>().axes;
    Value from = v->input(0);
    const int64_t last = v.rank() - 1;
    const bool cut = blocks_ && blocks_->layout == ActLayout::blocked;
    const int64_t channels = blocks_ ? last - 1 : last;
    if (axes != (cut ? std::vector<int64_t>{1, last} : std::vector<int64_t>{channels})) return -1;
    if (cut && &from->op() == &op::reshape_op) from = from->input(0);
    const bool vector = from.rank() == 1 || (cut && from.rank() == 2);  // [C/b, b] lies as [C] does
    if (!ir::is_input(from) || !vector) return -1;
    if (&out_.root->op() == &op::dot_op) {  // its columns are all free axes of b, maybe none
      const auto& at = out_.root->attrs<op::DotAttrs>();
      const Value& b = out_.root->input(1);
      const int64_t columns =
          op::count_at(ir::static_dims(b.dims()), op::free_axes(b.rank(), at.batch_b, at.contract_b));
      if (ir::count(std::span<const int64_t>(ir::static_dims(from.dims()))) != columns) return -1;
    }
    return input_number(from);
  }

  const ir::Graph& body_;
  const rewrite::Uses uses_;
  ContractionBody out_;
  std::optional<Blocks> blocks_;  // of the result
};

/// One stride for a list of axes walked in order, or decline: they must lie one inside the other.
int64_t joint_stride(const std::vector<int64_t>& axes, const std::vector<int64_t>& dims,
                     const std::vector<int64_t>& strides) {
  int64_t inner = 1, expected = -1;
  for (size_t i = axes.size(); i-- > 0;) {
    const auto a = static_cast<size_t>(axes[i]);
    if (dims[a] == 1) continue;
    if (expected < 0) inner = strides[a];
    else if (strides[a] != expected) decline("axes of the contraction do not lie together");
    expected = strides[a] * dims[a];
  }
  return inner;
}

/// An extent of 1 has no stride of its own: give it one that keeps a stride of 1 in the pair.
void unit_stride(int64_t& outer, int64_t outer_n, int64_t& inner, int64_t inner_n) {
  if (outer_n == 1 && inner_n == 1) outer = inner = 1;
  else if (inner_n == 1) outer == 1 ? void(inner = outer_n) : void(inner = 1);
  else if (outer_n == 1) inner == 1 ? void(outer = inner_n) : void(outer = 1);
  if (outer != 1 && inner != 1) decline("no operand axis of stride 1");
}

DotShape shape_of(const Node& root) {
  const auto& at = root.attrs<op::DotAttrs>();
  const std::vector<int64_t> da = ir::static_dims(root.input(0).dims()),
                             db = ir::static_dims(root.input(1).dims());
  const std::vector<int64_t> sa = ir::row_major_strides(da), sb = ir::row_major_strides(db);
  const auto fa = op::free_axes(root.input(0).rank(), at.batch_a, at.contract_a),
             fb = op::free_axes(root.input(1).rank(), at.batch_b, at.contract_b);
  DotShape s{.batch = op::count_at(da, at.batch_a),
             .m = op::count_at(da, fa),
             .n = op::count_at(db, fb),
             .k = op::count_at(da, at.contract_a)};
  s.a_strides[0] = joint_stride(at.batch_a, da, sa);
  s.a_strides[1] = joint_stride(fa, da, sa);
  s.a_strides[2] = joint_stride(at.contract_a, da, sa);
  s.b_strides[0] = joint_stride(at.batch_b, db, sb);
  s.b_strides[1] = joint_stride(at.contract_b, db, sb);
  s.b_strides[2] = joint_stride(fb, db, sb);
  if (s.batch == 0 || s.m == 0 || s.n == 0 || s.k == 0) decline("nothing to do");
  unit_stride(s.a_strides[1], s.m, s.a_strides[2], s.k);
  unit_stride(s.b_strides[1], s.k, s.b_strides[2], s.n);
  return s;
}

}  // namespace

std::variant<ContractionBody, std::string> read_contraction(const ir::Graph& body, bool several) {
  try {
    return Reader(body).run(several);
  } catch (Declined& d) {
    return std::move(d.reason);
  }
}

std::variant<DotShape, std::string> dot_shape(const Node& root) {
  try {
    return shape_of(root);
  } catch (Declined& d) {
    return std::move(d.reason);
  }
}

}  // namespace espalier::kernel
