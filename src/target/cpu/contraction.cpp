#include "target/cpu/contraction.h"

#include <algorithm>

#include "kernel/contraction_body.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/spatial.h"

namespace espalier::target::cpu {

using ir::Dtype;
using ir::Node;
using ir::Value;
using kernel::ContractionBody;
using kernel::EpilogueStep;
using kernel::RootOperand;
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

Layout layout_of(kernel::ActLayout layout) {
  switch (layout) {
    case kernel::ActLayout::channels_last: return Layout::channels_last;
    case kernel::ActLayout::planar: return Layout::channels_first;
    case kernel::ActLayout::blocked: return Layout::blocked;
    case kernel::ActLayout::batch_blocked: return Layout::batch_blocked;
  }
  decline("an unknown layout");
}

bool in_blocks(Layout layout) { return layout == Layout::blocked || layout == Layout::batch_blocked; }

class Matcher {
 public:
  Matcher(const ir::Graph& body, std::span<const char> constant)
      : body_(body), constant_(constant), read_(read_or_decline(body)) {}

  ContractionCall run() {
    call_.a = read_.a.input;
    call_.b = read_.b.input;
    if (&read_.root->op() == &op::dot_op) dot();
    else conv();
    epilogue();
    return std::move(call_);
  }

 private:
  static ContractionBody read_or_decline(const ir::Graph& body) {
    auto read = kernel::read_contraction(body);
    if (auto* reason = std::get_if<std::string>(&read)) decline(std::move(*reason));
    return std::get<ContractionBody>(std::move(read));
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

  void conv() {
    const Node& root = *read_.root;
    ConvSpec s = conv_spec(root);
    check_dtypes(s.compute, s.result);
    const RootOperand &a = read_.a, &b = read_.b;
    const Layout a_layout = layout_of(a.layout), b_layout = layout_of(b.layout);
    if (a.dtype != s.compute) decline("first operand is cast");
    const bool weights_second = s.kind != ConvKind::weight_grad;
    if (!weights_second && b.dtype != s.compute) decline("second operand is cast");
    (s.kind == ConvKind::data_grad ? s.y_layout : s.x_layout) = a_layout;
    if (in_blocks(a_layout)) s.block = a.block;
    if (weights_second) {
      if (b_layout != Layout::channels_last) decline("weights in another layout");
      s.weights = b.dtype;
      s.constant_weights = is_constant(b.input);
    } else {
      s.y_layout = b_layout;
      if (in_blocks(b_layout)) s.block = b.block;
      s.weights = root.value().dtype();
    }
    call_.spec = std::move(s);
  }

  void dot() {
    const Node& root = *read_.root;
    const RootOperand &a = read_.a, &b = read_.b;
    DotSpec s;
    s.compute = root.input(0).dtype();
    s.result = root.value().dtype();
    check_dtypes(s.compute, s.result);
    if (a.layout != kernel::ActLayout::channels_last || b.layout != kernel::ActLayout::channels_last ||
        a.dtype != s.compute || b.dtype != s.compute)
      decline("operands of dot in another layout or dtype");
    auto found = kernel::dot_shape(root);
    if (auto* reason = std::get_if<std::string>(&found)) decline(std::move(*reason));
    const auto& shape = std::get<kernel::DotShape>(found);
    s.batch = shape.batch;
    s.m = shape.m;
    s.n = shape.n;
    s.k = shape.k;
    std::copy_n(shape.a_strides, 3, s.a_strides);
    std::copy_n(shape.b_strides, 3, s.b_strides);
    s.constant_b = is_constant(b.input);
    call_.spec = s;
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

  void epilogue() {
    const ConvSpec* conv = std::get_if<ConvSpec>(&call_.spec);
    if (conv && conv->kind == ConvKind::weight_grad && !read_.steps.empty())
      decline("weight gradient with an epilogue");
    const bool data =
        conv && conv->kind == ConvKind::data_grad;  // the library's fast kernels for it take none
    for (const EpilogueStep& step : read_.steps) {
      if (conv && step.op == &op::reshape_op) blocked_result(step.blocks);
      else if (data) decline("data gradient with an epilogue");
      else post(step);
    }
    const Dtype wanted = body_.outputs[0].value.dtype();
    if (wanted != result_dtype()) result_dtype() = wanted;
  }

  void blocked_result(const kernel::Blocks& blocks) {
    auto& s = std::get<ConvSpec>(call_.spec);
    (s.kind == ConvKind::data_grad ? s.x_layout : s.y_layout) = layout_of(blocks.layout);
    s.block = blocks.size;
  }

  void post(const EpilogueStep& step) {
    const ir::OpDef* op = step.op;
    if (op == &op::cast_op) {
      if (step.value->input(0).dtype() != Dtype::f32 || step.value.dtype() != Dtype::bf16)
        decline("cast of the result");
      if (compute_dtype() != Dtype::bf16) decline("result narrower than the computation");
      result_dtype() = Dtype::bf16;
    } else if (op == &op::add_op || op == &op::mul_op) {
      binary_post(step);
    } else if (op == &op::relu_op) {
      posts().push_back(Post::relu);
      call_.relu = true;
    } else if (op == &op::sigmoid_op) {
      posts().push_back(Post::sigmoid);
    } else if (op == &op::tanh_op) {
      posts().push_back(Post::tanh);
    } else {
      decline("epilogue op " + std::string(op->name));
    }
  }

  Dtype compute_dtype() const {
    return std::visit([](const auto& s) { return s.compute; }, call_.spec);
  }

  void binary_post(const EpilogueStep& step) {
    const bool add = step.op == &op::add_op;
    if (step.other == EpilogueStep::Other::number) decline("epilogue operand that is a number");
    const Dtype other = body_.inputs[static_cast<size_t>(step.input)].dtype();
    if (step.other == EpilogueStep::Other::channels) {
      if (other != Dtype::f32) decline("epilogue operand of dtype " + std::string(ir::dtype_name(other)));
      if (add && !bias_flag() && posts().empty() && call_.residual < 0) {
        bias_flag() = true;
        call_.bias = step.input;
      } else {
        posts().push_back(add ? Post::add_channel : Post::mul_channel);
        call_.channels.push_back(step.input);
      }
      return;
    }
    if (!add || call_.residual >= 0) decline("epilogue operand " + step.value.type().text());
    if (other != body_.outputs[0].value.dtype()) decline("residual of another dtype than the result");
    if (step.input == call_.a || step.input == call_.b) decline("residual is an operand");
    call_.residual = step.input;
    posts().push_back(Post::sum);
  }

  const ir::Graph& body_;
  const std::span<const char> constant_;
  const ContractionBody read_;
  ContractionCall call_;
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
