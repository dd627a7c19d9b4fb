// A value may have a blocked form (channels or the batch in blocks) beside its channels-last one. Convolutions that want
// blocks take and give them; ops that can work on blocks do when an operand has them; everything else asks for the
// channels-last form. A form that is missing is made by a reorder, where chains begin and end.
#include <algorithm>
#include <optional>
#include <unordered_map>

#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "op/window.h"
#include "pass/passes.h"
#include "rewrite/pattern.h"

namespace espalier::pass {

namespace {

using ir::Node;
using ir::Value;
using kernel::ActLayout;
using kernel::Blocks;

Value to_planar(const Value& x) {
  std::vector<int64_t> perm{0, x.rank() - 1};
  for (int64_t i = 1; i < x.rank() - 1; ++i) perm.push_back(i);
  return op::transpose(x, perm);
}

Value from_planar(const Value& x) {
  std::vector<int64_t> perm{0};
  for (int64_t i = 2; i < x.rank(); ++i) perm.push_back(i);
  perm.push_back(1);
  return op::transpose(x, perm);
}

class Blocker {
 public:
  Blocker(const ir::Graph& graph, const kernel::TargetSpec& spec) : graph_(graph), spec_(spec) {}

  ir::Graph run() {
    ir::Graph out = graph_;
    for (const Value& v : graph_.inputs) plain_.set(v, v);
    for (const Node* n : graph_.nodes())
      if (&n->op() != &ir::input_op) visit(*n);
    for (ir::Output& o : out.outputs) o.value = plain(o.value);
    if (blocked_any_) out.level = ir::Level::fused;
    return out;
  }

 private:
  struct Form {
    Value value;
    Blocks blocks;
  };

  /// The channels-last form of an old value.
  Value plain(const Value& old) {
    if (const Value* v = plain_.find(old)) return *v;
    const Form& form = blocked_.at(old);
    Value made = kernel::from_blocked(form.value, form.blocks);
    plain_.set(old, made);
    return made;
  }

  /// The blocked form of an old value: its own, or made.
  Value blocked(const Value& old, const Blocks& b) {
    if (const auto it = blocked_.find(old); it != blocked_.end() && it->second.blocks == b)
      return it->second.value;
    if (&old->op() == &op::broadcast_to_op)
      if (Value made = blocked_broadcast(old, b)) return made;
    return kernel::to_blocked(plain(old), b);
  }

  /// A broadcast whose axes keep their order in blocks, made there directly.
  Value blocked_broadcast(const Value& old, const Blocks& b) {
    const auto& axes = old->attrs<op::BroadcastAttrs>().axes;
    const Value source = plain(old->input(0));
    const int64_t rank = old.rank(), cut = b.cut(rank);
    ir::Dims source_dims;
    std::vector<int64_t> new_axes;
    for (size_t i = 0; i < axes.size(); ++i) {
      new_axes.push_back(b.axis(axes[i], rank));
      source_dims.push_back(source.dims()[i]);
      if (axes[i] != cut) continue;
      source_dims.back() = source_dims.back() / b.size;
      source_dims.push_back(b.size);
      new_axes.push_back(rank);
    }
    if (!std::is_sorted(new_axes.begin(), new_axes.end())) return {};
    return op::broadcast_in(op::reshape(source, source_dims), blocked_dims(old.dims(), b), new_axes);
  }

  static ir::Dims blocked_dims(const ir::Dims& plain, const Blocks& b) {
    const auto rank = static_cast<int64_t>(plain.size());
    ir::Dims dims(plain.size() + 1);
    for (int64_t a = 0; a < rank; ++a) {
      const ir::Dim& d = plain[static_cast<size_t>(a)];
      dims[static_cast<size_t>(b.axis(a, rank))] = a == b.cut(rank) ? d / b.size : d;
    }
    dims.back() = b.size;
    return dims;
  }

  void set(const Node& n, const std::vector<Value>& results) {
    for (size_t i = 0; i < results.size(); ++i) plain_.set(n.value(static_cast<int>(i)), results[i]);
  }
  void set_blocked(const Value& old, Value v, const Blocks& b) {
    blocked_any_ = true;
    blocked_.emplace(old, Form{std::move(v), b});
  }

  void visit(const Node& n) {
    if (is_conv(n) && convolution(n)) return;
    if (const std::optional<Blocks> b = blocks_wanted(n)) {
      if (n.op().kind == ir::Kind::elementwise && elementwise(n, *b)) return;
      if (n.op().kind == ir::Kind::window && window(n, *b)) return;
      if (n.op().kind == ir::Kind::reduction && reduction(n, *b)) return;
      if (&n.op() == &op::concat_op && concat(n, *b)) return;
      if (&n.op() == &op::slice_op && slice(n, *b)) return;
    }
    std::vector<Value> operands;
    for (const Value& v : n.inputs()) operands.push_back(plain(v));
    set(n, operands == n.inputs() ? all_results(n) : ir::make_all(n.op(), operands, n.attrs()));
  }

  static std::vector<Value> all_results(const Node& n) {
    std::vector<Value> r;
    for (int i = 0; i < n.results(); ++i) r.push_back(n.value(i));
    return r;
  }

  static bool is_conv(const Node& n) {
    return &n.op() == &op::conv_op || &n.op() == &op::conv_data_grad_op ||
           &n.op() == &op::conv_weight_grad_op;
  }

  /// The blocks of an operand that already lies in some.
  std::optional<Blocks> blocks_wanted(const Node& n) const {
    for (const Value& v : n.inputs())
      if (const auto it = blocked_.find(v); it != blocked_.end()) return it->second.blocks;
    return {};
  }

  // ---- convolutions ------------------------------------------------------------------------------------------------

  struct Side {
    Value outer, inner;  ///< what the fusion takes, and the channels-last value its body sees
  };

  static bool in_blocks(ActLayout layout) {
    return layout == ActLayout::blocked || layout == ActLayout::batch_blocked;
  }

  /// An operand of the fusion in `layout`, and how its body undoes that layout.
  Side operand(const Value& old, ActLayout layout, int64_t block, const char* name) {
    if (in_blocks(layout)) {
      const Blocks b{layout, block};
      const Value outer = blocked(old, b), in = ir::new_input(name, outer.type());
      return {outer, kernel::from_blocked(in, b)};
    }
    if (layout == ActLayout::planar) {
      const Value outer = to_planar(plain(old)), in = ir::new_input(name, outer.type());
      return {outer, from_planar(in)};
    }
    const Value outer = plain(old);
    return {outer, ir::new_input(name, outer.type())};
  }

  static Value body_input(const Value& inner) {
    Value v = inner;
    while (!ir::is_input(v)) v = v->input(0);
    return v;
  }

  bool convolution(const Node& n) {
    const kernel::ConvChoice choice = spec_.conv_choice(n);
    if (choice.x == ActLayout::channels_last && choice.y == ActLayout::channels_last) return false;
    const bool forward = &n.op() == &op::conv_op, data = &n.op() == &op::conv_data_grad_op;
    const Side a = operand(n.input(0), data ? choice.y : choice.x, choice.block, "a");
    const Side b =
        operand(n.input(1), forward || data ? ActLayout::channels_last : choice.y, choice.block, "b");
    Value y = ir::make(n.op(), {a.inner, b.inner}, n.attrs());
    const ActLayout result = forward ? choice.y : data ? choice.x : ActLayout::channels_last;
    const Blocks blocks{result, choice.block};
    if (in_blocks(result)) y = kernel::to_blocked(y, blocks);
    ir::Graph body{.name = std::string(n.op().name),
                   .inputs = {body_input(a.inner), body_input(b.inner)},
                   .outputs = {{"y", y}},
                   .state = {},
                   .info = {}};
    const Value made =
        kernel::fusion(kernel::FusionKind::contraction, std::make_shared<const ir::Graph>(std::move(body)),
                       {a.outer, b.outer})[0];
    blocked_any_ = true;
    if (in_blocks(result)) set_blocked(n.value(), made, blocks);
    else set(n, {made});
    return true;
  }

  // ---- what works on blocks ------------------------------------------------------------------------------------------

  bool elementwise(const Node& n, const Blocks& b) {
    if (!b.divide(n.value().dims())) return false;
    std::vector<Value> operands;
    for (const Value& v : n.inputs()) operands.push_back(blocked(v, b));
    set_blocked(n.value(), ir::make(n.op(), std::move(operands), n.attrs()), b);
    return true;
  }

  /// [N, C/b, spatial..., b] is channels-last with N*C/b pictures of b channels, [N/b, spatial..., C, b] with N/b pictures
  /// of C*b channels.
  bool window(const Node& n, const Blocks& b) {
    for (const Value& v : n.inputs())
      if (!b.divide(v.dims())) return false;
    const bool of_batch = b.layout == ActLayout::batch_blocked;
    const auto joined = [&](ir::Dims dims) {  // the two axes that become one
      const size_t at = of_batch ? dims.size() - 2 : 0;
      dims[at] = dims[at] * dims[at + 1];
      dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(at) + 1);
      return dims;
    };
    std::vector<Value> operands;
    for (const Value& v : n.inputs()) {
      const Value x = blocked(v, b);
      operands.push_back(op::reshape(x, joined(x.dims())));
    }
    const std::vector<Value> results = ir::make_all(n.op(), std::move(operands), n.attrs());
    for (size_t i = 0; i < results.size(); ++i) {
      const Value old = n.value(static_cast<int>(i));
      set_blocked(old, op::reshape(results[i], blocked_dims(old.dims(), b)), b);
    }
    return true;
  }

  bool reduction(const Node& n, const Blocks& b) {
    if (&n.op() == &op::argmax_op || &n.op() == &op::argmin_op) return false;
    const Value& x = n.input(0);
    const int64_t rank = x.rank();
    const auto& folded = n.attrs<op::AxesAttrs>().axes;
    std::vector<int64_t> axes,
        left;  // of the blocked value: those that are folded, and the others as the result wants them
    for (int64_t a = 0; a < rank; ++a) {
      auto& to = std::find(folded.begin(), folded.end(), a) != folded.end() ? axes : left;
      to.push_back(b.axis(a, rank));
      if (a == b.cut(rank)) to.push_back(rank);
    }
    if (!std::is_sorted(left.begin(), left.end())) return false;
    std::sort(axes.begin(), axes.end());
    const Value y = ir::make(n.op(), {blocked(x, b)}, op::AxesAttrs{axes});
    set(n, {op::reshape(y, n.value().dims())});
    return true;
  }

  bool concat(const Node& n, const Blocks& b) {
    std::vector<Value> parts;
    for (const Value& v : n.inputs()) {
      if (!b.divide(v.dims())) return false;
      parts.push_back(blocked(v, b));
    }
    const int64_t axis = b.axis(n.attrs<op::AxisAttrs>().axis, n.value().rank());
    set_blocked(n.value(), op::concat(std::move(parts), axis), b);
    return true;
  }

  bool slice(const Node& n, const Blocks& b) {
    const auto& a = n.attrs<op::SliceAttrs>();
    const auto rank = static_cast<int64_t>(a.start.size());
    const auto cut = static_cast<size_t>(b.cut(rank));
    if (!b.divide(n.value().dims()) || a.start[cut] % b.size || a.step[cut] != 1) return false;
    std::vector<int64_t> start(a.start.size() + 1), step(a.start.size() + 1, 1);
    for (int64_t i = 0; i < rank; ++i) {
      const auto from = static_cast<size_t>(i), to = static_cast<size_t>(b.axis(i, rank));
      start[to] = from == cut ? a.start[from] / b.size : a.start[from];
      step[to] = a.step[from];
    }
    set_blocked(n.value(), op::slice(blocked(n.input(0), b), start, blocked_dims(a.size, b), step), b);
    return true;
  }

  const ir::Graph& graph_;
  const kernel::TargetSpec& spec_;
  ir::ValueMap plain_;
  std::unordered_map<Value, Form, ir::ValueHash> blocked_;
  bool blocked_any_ = false;
};

}  // namespace

ir::Graph choose_layout(const ir::Graph& graph, const PassContext& context) {
  return rewrite::with_bodies(graph, [&](const ir::Graph& g) { return Blocker(g, context.spec).run(); });
}

}  // namespace espalier::pass
