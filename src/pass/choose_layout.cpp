// A value may have a blocked form beside its channels-last one. Convolutions that want blocks take and give them; ops that
// can work on blocks do when an operand has them; everything else asks for the channels-last form. A form that is missing is
// made by a reorder, where chains begin and end.
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
    int64_t block;
  };

  /// The channels-last form of an old value.
  Value plain(const Value& old) {
    if (const Value* v = plain_.find(old)) return *v;
    Value made = kernel::from_blocked(blocked_.at(old).value);
    plain_.set(old, made);
    return made;
  }

  bool has_blocks(const Value& old) const { return blocked_.contains(old); }

  /// The blocked form of an old value: its own, or made.
  Value blocks(const Value& old, int64_t block) {
    if (const auto it = blocked_.find(old); it != blocked_.end() && it->second.block == block)
      return it->second.value;
    if (&old->op() == &op::broadcast_to_op)
      if (Value made = blocked_broadcast(old, block)) return made;
    return kernel::to_blocked(plain(old), block);
  }

  /// A broadcast over N and C only, made directly in blocks.
  Value blocked_broadcast(const Value& old, int64_t block) {
    const auto& axes = old->attrs<op::BroadcastAttrs>().axes;
    const Value source = plain(old->input(0));
    const int64_t last = old.rank() - 1;
    ir::Dims dims, source_dims;
    std::vector<int64_t> new_axes;
    for (size_t i = 0; i < axes.size(); ++i) {
      if (axes[i] == last) {
        source_dims.push_back(source.dims()[i] / block);
        source_dims.push_back(block);
        new_axes.insert(new_axes.end(), {1, last + 1});
      } else if (axes[i] == 0) {
        source_dims.push_back(source.dims()[i]);
        new_axes.push_back(0);
      } else {
        return {};
      }
    }
    const ir::Dims& d = old.dims();
    dims = {d[0], d.back() / block};
    dims.insert(dims.end(), d.begin() + 1, d.end() - 1);
    dims.push_back(block);
    return op::broadcast_in(op::reshape(source, source_dims), dims, new_axes);
  }

  void set(const Node& n, const std::vector<Value>& results) {
    for (size_t i = 0; i < results.size(); ++i) plain_.set(n.value(static_cast<int>(i)), results[i]);
  }
  void set_blocks(const Value& old, Value v, int64_t block) {
    blocked_any_ = true;
    blocked_.emplace(old, Form{std::move(v), block});
  }

  void visit(const Node& n) {
    if (is_conv(n) && convolution(n)) return;
    if (const int64_t block = blocks_wanted(n)) {
      if (n.op().kind == ir::Kind::elementwise && elementwise(n, block)) return;
      if (n.op().kind == ir::Kind::window && window(n, block)) return;
      if (n.op().kind == ir::Kind::reduction && reduction(n, block)) return;
      if (&n.op() == &op::concat_op && concat(n, block)) return;
      if (&n.op() == &op::slice_op && slice(n, block)) return;
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

  /// The block size of an operand that already lies in blocks, or 0.
  int64_t blocks_wanted(const Node& n) const {
    for (const Value& v : n.inputs())
      if (const auto it = blocked_.find(v); it != blocked_.end()) return it->second.block;
    return 0;
  }

  // ---- convolutions ------------------------------------------------------------------------------------------------

  struct Side {
    Value outer, inner;  ///< what the fusion takes, and the channels-last value its body sees
  };

  /// An operand of the fusion in `layout`, and how its body undoes that layout.
  Side operand(const Value& old, ActLayout layout, int64_t block, const char* name) {
    if (layout == ActLayout::blocked) {
      const Value outer = blocks(old, block), in = ir::new_input(name, outer.type());
      return {outer, kernel::from_blocked(in)};
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
    if (result == ActLayout::blocked) y = kernel::to_blocked(y, choice.block);
    ir::Graph body{.name = std::string(n.op().name),
                   .inputs = {body_input(a.inner), body_input(b.inner)},
                   .outputs = {{"y", y}},
                   .state = {},
                   .info = {}};
    const Value made =
        kernel::fusion(kernel::FusionKind::contraction, std::make_shared<const ir::Graph>(std::move(body)),
                       {a.outer, b.outer})[0];
    blocked_any_ = true;
    if (result == ActLayout::blocked) set_blocks(n.value(), made, choice.block);
    else set(n, {made});
    return true;
  }

  // ---- what works on blocks ------------------------------------------------------------------------------------------

  static bool divides(const ir::Dims& dims, int64_t block) {
    return dims.size() >= 3 && dims.back().is_static() && dims.back().value() % block == 0;
  }

  bool elementwise(const Node& n, int64_t block) {
    if (!divides(n.value().dims(), block)) return false;
    std::vector<Value> operands;
    for (const Value& v : n.inputs()) operands.push_back(blocks(v, block));
    set_blocks(n.value(), ir::make(n.op(), std::move(operands), n.attrs()), block);
    return true;
  }

  /// [N, C/b, spatial..., b] is channels-last with N*C/b pictures of b channels.
  bool window(const Node& n, int64_t block) {
    for (const Value& v : n.inputs())
      if (!divides(v.dims(), block)) return false;
    std::vector<Value> operands;
    ir::Dims outer;
    for (const Value& v : n.inputs()) {
      const Value x = blocks(v, block);
      outer = {x.dims()[0], x.dims()[1]};
      ir::Dims dims(x.dims().begin() + 1, x.dims().end());
      dims[0] = outer[0] * outer[1];
      operands.push_back(op::reshape(x, dims));
    }
    const std::vector<Value> results = ir::make_all(n.op(), std::move(operands), n.attrs());
    for (size_t i = 0; i < results.size(); ++i) {
      ir::Dims dims = outer;
      dims.insert(dims.end(), results[i].dims().begin() + 1, results[i].dims().end());
      set_blocks(n.value(static_cast<int>(i)), op::reshape(results[i], dims), block);
    }
    return true;
  }

  bool reduction(const Node& n, int64_t block) {
    if (&n.op() == &op::argmax_op || &n.op() == &op::argmin_op) return false;
    const Value& x = n.input(0);
    const int64_t last = x.rank() - 1;
    std::vector<int64_t> axes;
    for (const int64_t a : n.attrs<op::AxesAttrs>().axes) {
      if (a == last) axes.insert(axes.end(), {1, last + 1});
      else axes.push_back(a == 0 ? 0 : a + 1);
    }
    std::sort(axes.begin(), axes.end());
    const auto folds = [&](int64_t axis) { return std::find(axes.begin(), axes.end(), axis) != axes.end(); };
    bool spatial_left = false;  // then C/b and b are not neighbours in the result
    for (int64_t a = 2; a <= last; ++a) spatial_left = spatial_left || !folds(a);
    if (spatial_left && !folds(1)) return false;
    const Value y = ir::make(n.op(), {blocks(x, block)}, op::AxesAttrs{axes});
    set(n, {op::reshape(y, n.value().dims())});
    return true;
  }

  bool concat(const Node& n, int64_t block) {
    if (n.attrs<op::AxisAttrs>().axis != n.value().rank() - 1) return false;
    std::vector<Value> parts;
    for (const Value& v : n.inputs()) {
      if (!divides(v.dims(), block)) return false;
      parts.push_back(blocks(v, block));
    }
    set_blocks(n.value(), op::concat(std::move(parts), 1), block);
    return true;
  }

  bool slice(const Node& n, int64_t block) {
    const auto& a = n.attrs<op::SliceAttrs>();
    const size_t last = a.start.size() - 1;
    if (a.start[last] % block || a.step[last] != 1 || !divides(n.value().dims(), block)) return false;
    std::vector<int64_t> start{a.start[0], a.start[last] / block}, step{a.step[0], 1};
    ir::Dims size{a.size[0], a.size[last] / block};
    for (size_t i = 1; i < last; ++i) {
      start.push_back(a.start[i]);
      step.push_back(a.step[i]);
      size.push_back(a.size[i]);
    }
    start.push_back(0);
    step.push_back(1);
    size.push_back(block);
    set_blocks(n.value(), op::slice(blocks(n.input(0), block), start, size, step), block);
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
