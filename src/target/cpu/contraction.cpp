#include "target/cpu/contraction.h"

#include <algorithm>
#include <numeric>

#include "op/axes.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/spatial.h"
#include "rewrite/uses.h"

namespace espalier::target::cpu {

using ir::Dtype;
using ir::Node;
using ir::Value;
using onednn::ConvKind;
using onednn::ConvSpec;
using onednn::DotSpec;
using onednn::Layout;
using onednn::Post;

namespace {

/// Thrown inside the matcher, turned into the Refusal it returns.
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

Layout layout_of(kernel::ActLayout layout) {
  return layout == kernel::ActLayout::blocked ? Layout::blocked : Layout::batch_blocked;
}

bool in_blocks(Layout layout) { return layout == Layout::blocked || layout == Layout::batch_blocked; }

/// Where an operand of the root comes from.
struct Source {
  int input = -1;
  Layout layout = Layout::channels_last;
  int64_t block = 16;
  Dtype dtype = Dtype::f32;  ///< as it lies in memory
};

class Matcher {
 public:
  Matcher(const ir::Graph& body, std::span<const char> constant)
      : body_(body), constant_(constant), uses_(body) {}

  ContractionCall run() {
    if (body_.outputs.size() != 1) decline("more than one result");
    const Node& root = kernel::contraction_root(body_);
    if (&root.op() == &op::dot_op) dot(root);
    else conv(root);
    epilogue(root);
    return std::move(call_);
  }

 private:
  int input_number(const Value& v) const {
    for (size_t i = 0; i < body_.inputs.size(); ++i)
      if (body_.inputs[i] == v) return static_cast<int>(i);
    decline("an operand is computed inside the body");
  }

  Source source(Value v) const {
    Source s;
    if (const auto match = kernel::match_from_blocked(v)) {
      s.layout = layout_of(match->blocks.layout);
      s.block = match->blocks.size;
      v = match->value;
    } else if (&v->op() == &op::transpose_op && planar_perm(v->attrs<op::TransposeAttrs>().perm)) {
      s.layout = Layout::channels_first;
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

  bool is_constant(int input) const {
    return static_cast<size_t>(input) < constant_.size() && constant_[static_cast<size_t>(input)];
  }

  static void check_dtypes(Dtype compute, Dtype result) {
    if (compute != Dtype::f32 && compute != Dtype::bf16)
      decline("dtype " + std::string(ir::dtype_name(compute)));
    if (result != Dtype::f32 && result != compute)
      decline("result dtype " + std::string(ir::dtype_name(result)));
  }

  void conv(const Node& root) {
    ConvSpec s = conv_spec(root);
    check_dtypes(s.compute, s.result);
    const Source a = source(root.input(0)), b = source(root.input(1));
    call_.a = a.input;
    call_.b = b.input;
    if (a.dtype != s.compute) decline("first operand is cast");
    const bool weights_second = s.kind != ConvKind::weight_grad;
    if (!weights_second && b.dtype != s.compute) decline("second operand is cast");
    (s.kind == ConvKind::data_grad ? s.y_layout : s.x_layout) = a.layout;
    if (in_blocks(a.layout)) s.block = a.block;
    if (weights_second) {
      if (b.layout != Layout::channels_last) decline("weights in another layout");
      s.weights = b.dtype;
      s.constant_weights = is_constant(b.input);
    } else {
      s.y_layout = b.layout;
      if (in_blocks(b.layout)) s.block = b.block;
      s.weights = root.value().dtype();
    }
    call_.spec = std::move(s);
  }

  // ---- dot ---------------------------------------------------------------------------------------------------------

  /// One stride for a list of axes walked in order, or decline: they must lie one inside the other.
  static int64_t joint_stride(const std::vector<int64_t>& axes, const std::vector<int64_t>& dims,
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

  void dot(const Node& root) {
    const auto& at = root.attrs<op::DotAttrs>();
    const Source a = source(root.input(0)), b = source(root.input(1));
    DotSpec s;
    s.compute = root.input(0).dtype();
    s.result = root.value().dtype();
    check_dtypes(s.compute, s.result);
    if (a.layout != Layout::channels_last || b.layout != Layout::channels_last || a.dtype != s.compute ||
        b.dtype != s.compute)
      decline("operands of dot in another layout or dtype");
    const std::vector<int64_t> da = ir::static_dims(root.input(0).dims()),
                               db = ir::static_dims(root.input(1).dims());
    const std::vector<int64_t> sa = ir::row_major_strides(da), sb = ir::row_major_strides(db);
    const auto fa = op::free_axes(root.input(0).rank(), at.batch_a, at.contract_a),
               fb = op::free_axes(root.input(1).rank(), at.batch_b, at.contract_b);
    s.batch = op::count_at(da, at.batch_a);
    s.m = op::count_at(da, fa);
    s.n = op::count_at(db, fb);
    s.k = op::count_at(da, at.contract_a);
    s.a_strides[0] = joint_stride(at.batch_a, da, sa);
    s.a_strides[1] = joint_stride(fa, da, sa);
    s.a_strides[2] = joint_stride(at.contract_a, da, sa);
    s.b_strides[0] = joint_stride(at.batch_b, db, sb);
    s.b_strides[1] = joint_stride(at.contract_b, db, sb);
    s.b_strides[2] = joint_stride(fb, db, sb);
    if (s.batch == 0 || s.m == 0 || s.n == 0 || s.k == 0) decline("nothing to do");
    unit_stride(s.a_strides[1], s.m, s.a_strides[2], s.k);
    unit_stride(s.b_strides[1], s.k, s.b_strides[2], s.n);
    s.constant_b = is_constant(b.input);
    call_.a = a.input;
    call_.b = b.input;
    call_.spec = s;
  }

  /// An extent of 1 has no stride of its own: give it one that keeps a stride of 1 in the pair.
  static void unit_stride(int64_t& outer, int64_t outer_n, int64_t& inner, int64_t inner_n) {
    if (outer_n == 1 && inner_n == 1) outer = inner = 1;
    else if (inner_n == 1) outer == 1 ? void(inner = outer_n) : void(inner = 1);
    else if (outer_n == 1) inner == 1 ? void(outer = inner_n) : void(outer = 1);
    if (outer != 1 && inner != 1) decline("no operand axis of stride 1");
  }

  // ---- epilogue ------------------------------------------------------------------------------------------------------

  Dtype& result_dtype() {
    return std::visit([](auto& s) -> Dtype& { return s.result; }, call_.spec);
  }
  std::vector<Post>& posts() {
    return std::visit([](auto& s) -> std::vector<Post>& { return s.posts; }, call_.spec);
  }
  bool& bias_flag() {
    return std::visit([](auto& s) -> bool& { return s.bias; }, call_.spec);
  }

  void epilogue(const Node& root) {
    const ConvSpec* conv = std::get_if<ConvSpec>(&call_.spec);
    Value at = root.value();
    const Value& end = body_.outputs[0].value;
    if (conv && conv->kind == ConvKind::weight_grad && !(at == end))
      decline("weight gradient with an epilogue");
    const bool data =
        conv && conv->kind == ConvKind::data_grad;  // the library's fast kernels for it take none
    while (!(at == end)) {
      const Node* next = uses_.only(at);
      if (!next) decline("a value inside is used twice");
      if (conv && &next->op() == &op::reshape_op) at = blocked_result(at, *next);
      else if (data) decline("data gradient with an epilogue");
      else at = post(at, *next);
    }
    const Dtype wanted = end.dtype();
    if (wanted != result_dtype()) result_dtype() = wanted;
  }

  Value blocked_result(const Value& at, const Node& reshape) {
    auto& s = std::get<ConvSpec>(call_.spec);
    const Node* transpose = uses_.only(reshape.value());
    if (!transpose && reshape.value() == body_.outputs[0].value) decline("reshaped result");
    Value blocked = transpose ? transpose->value() : Value();
    const auto match = blocked ? kernel::match_to_blocked(blocked) : std::nullopt;
    if (!match || !(match->value == at)) decline("result in an unknown layout");
    (s.kind == ConvKind::data_grad ? s.x_layout : s.y_layout) = layout_of(match->blocks.layout);
    s.block = match->blocks.size;
    blocks_ = match->blocks;
    return blocked;
  }

  /// The body input [C] when `v` is it, broadcast along the channels of a (maybe blocked) value.
  int channel_vector(const Value& v) const {
    if (&v->op() != &op::broadcast_to_op) return -1;
    const auto& axes = v->attrs<op::BroadcastAttrs>().axes;
    Value from = v->input(0);
    const int64_t last = v.rank() - 1;
    const bool cut = blocks_ && blocks_->layout == kernel::ActLayout::blocked;
    const int64_t channels = blocks_ ? last - 1 : last;
    if (axes != (cut ? std::vector<int64_t>{1, last} : std::vector<int64_t>{channels})) return -1;
    if (cut && &from->op() == &op::reshape_op) from = from->input(0);
    const bool vector = from.rank() == 1 || (cut && from.rank() == 2);  // [C/b, b] lies as [C] does
    if (!ir::is_input(from) || !vector || from.dtype() != Dtype::f32) return -1;
    const auto* dot = std::get_if<DotSpec>(&call_.spec);  // its columns are all free axes of b, maybe none
    if (dot && ir::count(std::span<const int64_t>(ir::static_dims(from.dims()))) != dot->n) return -1;
    return input_number(from);
  }

  Value post(const Value& at, const Node& next) {
    const ir::OpDef* op = &next.op();
    if (op == &op::cast_op) {
      if (at.dtype() != Dtype::f32 || next.value().dtype() != Dtype::bf16) decline("cast of the result");
      if (compute_dtype() != Dtype::bf16) decline("result narrower than the computation");
      result_dtype() = Dtype::bf16;
      return next.value();
    }
    if (op == &op::add_op || op == &op::mul_op) return binary_post(at, next);
    if (op == &op::relu_op) {
      posts().push_back(Post::relu);
      call_.relu = true;
    } else if (op == &op::sigmoid_op) {
      posts().push_back(Post::sigmoid);
    } else if (op == &op::tanh_op) {
      posts().push_back(Post::tanh);
    } else {
      decline("epilogue op " + std::string(op->name));
    }
    return next.value();
  }

  Dtype compute_dtype() const {
    return std::visit([](const auto& s) { return s.compute; }, call_.spec);
  }

  Value binary_post(const Value& at, const Node& next) {
    const Value& other = next.input(0) == at ? next.input(1) : next.input(0);
    const bool add = &next.op() == &op::add_op;
    if (const int vector = channel_vector(other); vector >= 0) {
      if (add && !bias_flag() && posts().empty() && call_.residual < 0) {
        bias_flag() = true;
        call_.bias = vector;
      } else {
        posts().push_back(add ? Post::add_channel : Post::mul_channel);
        call_.channels.push_back(vector);
      }
      return next.value();
    }
    if (!add || !ir::is_input(other) || other.type() != next.value().type() || call_.residual >= 0)
      decline("epilogue operand " + other.type().text());
    if (other.dtype() != body_.outputs[0].value.dtype()) decline("residual of another dtype than the result");
    const int input = input_number(other);
    if (input == call_.a || input == call_.b) decline("residual is an operand");
    call_.residual = input;
    posts().push_back(Post::sum);
    return next.value();
  }

  const ir::Graph& body_;
  const std::span<const char> constant_;
  const rewrite::Uses uses_;
  ContractionCall call_;
  std::optional<kernel::Blocks> blocks_;  // of the result
};

}  // namespace

ConvSpec conv_spec(const Node& n) {
  const auto& at = n.attrs<op::ConvAttrs>();
  ConvSpec s;
  const bool forward = &n.op() == &op::conv_op, data = &n.op() == &op::conv_data_grad_op;
  s.kind = forward ? ConvKind::forward : data ? ConvKind::data_grad : ConvKind::weight_grad;
  const Value result = n.value();
  const Value& x = data ? result : n.input(0);
  const Value& y = forward ? result : data ? n.input(0) : n.input(1);
  const Value& w = forward || data ? n.input(1) : result;
  s.batch = x.dims()[0].value();
  s.channels = x.dims().back().value();
  s.features = y.dims().back().value();
  s.groups = at.groups;
  s.in = op::spatial_dims(x);
  s.out = op::spatial_dims(y);
  s.kernel = op::spatial_dims(w);
  s.stride = at.stride;
  s.pad_low = at.pad_low;
  s.pad_high = at.pad_high;
  s.dilation = at.dilation;
  s.compute = n.input(0).dtype();
  s.weights = w.dtype();
  s.result = result.dtype();
  return s;
}

std::variant<ContractionCall, kernel::Refusal> match_contraction(const ir::Graph& body,
                                                                 std::span<const char> constant) {
  try {
    return Matcher(body, constant).run();
  } catch (const Declined& d) {
    return kernel::Refusal{"onednn", d.reason};
  }
}

}  // namespace espalier::target::cpu
