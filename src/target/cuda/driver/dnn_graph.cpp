#include "target/cuda/driver/dnn_graph.h"

#include <fmt/format.h>

#include <deque>

namespace espalier::target::cuda::driver {

namespace {

using ir::Dtype;
using A = DnnAttribute;

std::string reason(const DnnApi& api, std::string_view what, DnnStatus status) {
  char detail[1024] = "";
  api.GetLastErrorString(detail, sizeof detail);
  return fmt::format("{}: {}{}{}", what, api.GetErrorString(status), *detail ? ": " : "", detail);
}

void check(const DnnApi& api, std::string_view what, DnnStatus status) {
  if (status != dnn_success) throw DnnError(api, what, status);
}

DnnDtype dnn_dtype(const DnnApi& api, Dtype dtype) {
  switch (dtype) {
    case Dtype::f64: return DnnDtype::f64;
    case Dtype::f32: return DnnDtype::f32;
    case Dtype::f16: return DnnDtype::f16;
    case Dtype::bf16: return DnnDtype::bf16;
    case Dtype::i8: return DnnDtype::i8;
    case Dtype::i32: return DnnDtype::i32;
    default: throw DnnError(api, "dtype of a tensor", 3000);  // CUDNN_STATUS_NOT_SUPPORTED
  }
}

DnnPointwise mode_of(ConvStep step) {
  switch (step) {
    case ConvStep::mul_channel: return DnnPointwise::mul;
    case ConvStep::relu: return DnnPointwise::relu;
    case ConvStep::sigmoid: return DnnPointwise::sigmoid;
    case ConvStep::tanh: return DnnPointwise::tanh;
    case ConvStep::add_channel:
    case ConvStep::add_residual: break;
  }
  return DnnPointwise::add;
}

class GraphMaker {
 public:
  GraphMaker(const DnnApi& api, const ConvCall& call) : api_(api), call_(call) {}

  DnnObject make(DnnHandle handle) {
    const bool plain = call_.step_count == 0;
    const auto side = [&](const ConvTensor& t, int operand) -> const DnnObject& {
      return &t == &conv_result(call_) && !plain ? inner(t) : tensor(t, dnn_tensor_id(operand), false);
    };
    const DnnObject &x = side(call_.x, 0), &w = side(call_.w, 1), &y = side(call_.y, 2);
    convolve(x, w, y);
    add_steps(call_.direction == ConvDirection::forward     ? y
              : call_.direction == ConvDirection::data_grad ? x
                                                            : w);
    DnnObject graph(api_, DnnKind::graph);
    std::vector<DnnDescriptor> all;
    for (const DnnObject& o : operations_) all.push_back(o.get());
    graph.set(A::graph_operations, DnnType::descriptor, static_cast<int64_t>(all.size()), all.data());
    if (handle) graph.set(A::graph_handle, handle);
    graph.finalize();
    return graph;
  }

 private:
  std::span<const int64_t> axes(const std::array<int64_t, conv_spatial_most>& v) const {
    return std::span(v).first(static_cast<size_t>(call_.spatial));
  }

  DnnObject& part(DnnKind kind) { return parts_.emplace_back(api_, kind); }

  const DnnObject& tensor(const ConvTensor& t, int64_t id, bool is_virtual) {
    const auto rank = static_cast<size_t>(call_.spatial + 2);
    DnnObject& o = part(DnnKind::tensor);
    o.set(A::tensor_dtype, dnn_dtype(api_, t.dtype))
        .set(A::tensor_dims, std::span(t.dims).first(rank))
        .set(A::tensor_strides, std::span(t.strides).first(rank))
        .set(A::tensor_id, id)
        .set(A::tensor_alignment, conv_alignment)
        .set(A::tensor_virtual, is_virtual);
    o.finalize();
    return o;
  }

  /// A tensor that never lies in memory, like `t` but in the dtype of the steps.
  const DnnObject& inner(ConvTensor t) {
    t.dtype = call_.compute;
    return tensor(t, next_inner_++, true);
  }

  void convolve(const DnnObject& x, const DnnObject& w, const DnnObject& y) {
    DnnObject& c = part(DnnKind::convolution);
    c.set(A::convolution_compute, dnn_dtype(api_, call_.compute))
        .set(A::convolution_mode, DnnType::convolution_mode, 1, &dnn_cross_correlation)
        .set(A::convolution_spatial, int64_t{call_.spatial})
        .set(A::convolution_pad_low, axes(call_.pad_low))
        .set(A::convolution_pad_high, axes(call_.pad_high))
        .set(A::convolution_stride, axes(call_.stride))
        .set(A::convolution_dilation, axes(call_.dilation));
    c.finalize();
    switch (call_.direction) {
      case ConvDirection::forward:
        return operation(
            DnnKind::conv_forward,
            {{A::forward_x, &x}, {A::forward_w, &w}, {A::forward_y, &y}, {A::forward_convolution, &c}},
            A::forward_alpha, A::forward_beta);
      case ConvDirection::data_grad:
        return operation(DnnKind::conv_data_grad,
                         {{A::data_grad_dx, &x},
                          {A::data_grad_w, &w},
                          {A::data_grad_dy, &y},
                          {A::data_grad_convolution, &c}},
                         A::data_grad_alpha, A::data_grad_beta);
      case ConvDirection::weight_grad:
        return operation(DnnKind::conv_weight_grad,
                         {{A::weight_grad_x, &x},
                          {A::weight_grad_dw, &w},
                          {A::weight_grad_dy, &y},
                          {A::weight_grad_convolution, &c}},
                         A::weight_grad_alpha, A::weight_grad_beta);
    }
  }

  void operation(DnnKind kind, std::initializer_list<std::pair<A, const DnnObject*>> parts, A alpha, A beta) {
    DnnObject o(api_, kind);
    for (const auto& [name, part] : parts) o.set(name, *part);
    const double one = 1, zero = 0;
    const float one_f = 1, zero_f = 0;
    const bool f64 = call_.compute == Dtype::f64;
    o.set(alpha, f64 ? DnnType::float64 : DnnType::float32, 1, f64 ? static_cast<const void*>(&one) : &one_f);
    o.set(beta, f64 ? DnnType::float64 : DnnType::float32, 1,
          f64 ? static_cast<const void*>(&zero) : &zero_f);
    o.finalize();
    operations_.push_back(std::move(o));
  }

  /// One entry for each channel of the result.
  ConvTensor channel_vector() const {
    ConvTensor v{.dtype = call_.compute, .dims = {}, .strides = {}};
    for (int i = 0; i < call_.spatial + 2; ++i) v.dims[static_cast<size_t>(i)] = 1;
    v.dims[1] = conv_result(call_).dims[1];
    v.strides = v.dims;
    for (int i = 0; i < call_.spatial + 2; ++i) v.strides[static_cast<size_t>(i)] = i == 1 ? 1 : v.dims[1];
    return v;
  }

  void add_steps(const DnnObject& convolved) {
    const ConvTensor& result = conv_result(call_);
    const int result_operand = call_.direction == ConvDirection::forward     ? 2
                               : call_.direction == ConvDirection::data_grad ? 0
                                                                             : 1;
    const DnnObject* from = &convolved;
    int operand = conv_first_step_operand;
    for (int i = 0; i < call_.step_count; ++i) {
      const ConvStep step = call_.steps[static_cast<size_t>(i)];
      const DnnObject& to =
          i + 1 < call_.step_count ? inner(result) : tensor(result, dnn_tensor_id(result_operand), false);
      const DnnPointwise mode = mode_of(step);
      DnnObject& p = part(DnnKind::pointwise);
      p.set(A::pointwise_mode, DnnType::pointwise_mode, 1, &mode)
          .set(A::pointwise_precision, dnn_dtype(api_, call_.compute));
      if (step == ConvStep::relu) p.set(A::pointwise_nan, DnnType::nan_propagation, 1, &dnn_propagate_nan);
      p.finalize();
      DnnObject o(api_, DnnKind::pointwise_operation);
      o.set(A::pointwise_descriptor, p).set(A::pointwise_x, *from).set(A::pointwise_y, to);
      if (takes_operand(step))
        o.set(A::pointwise_b, tensor(step == ConvStep::add_residual ? result : channel_vector(),
                                     dnn_tensor_id(operand++), false));
      o.finalize();
      operations_.push_back(std::move(o));
      from = &to;
    }
  }

  const DnnApi& api_;
  const ConvCall& call_;
  int64_t next_inner_ = 100;
  std::deque<DnnObject> parts_;  // of the operations: they stay until the graph is final
  std::vector<DnnObject> operations_;
};

}  // namespace

DnnError::DnnError(const DnnApi& api, std::string_view what, DnnStatus status)
    : std::runtime_error(reason(api, what, status)), status_(status) {}

DnnObject::DnnObject(const DnnApi& api, DnnKind kind) : api_(&api) {
  check(api, fmt::format("descriptor {}", static_cast<int>(kind)),
        api.BackendCreateDescriptor(kind, &descriptor_));
}

DnnObject::~DnnObject() {
  if (descriptor_) api_->BackendDestroyDescriptor(descriptor_);
}

DnnObject& DnnObject::set(DnnAttribute name, DnnType type, int64_t count, const void* values) {
  check(*api_, fmt::format("attribute {}", static_cast<int>(name)),
        api_->BackendSetAttribute(descriptor_, name, type, count, values));
  return *this;
}

DnnObject& DnnObject::finalize() {
  check(*api_, "finalize", api_->BackendFinalize(descriptor_));
  return *this;
}

int64_t DnnObject::count(DnnAttribute name, DnnType type) const { return get(name, type, 0, nullptr); }

int64_t DnnObject::get(DnnAttribute name, DnnType type, int64_t room, void* values) const {
  int64_t count = 0;
  check(*api_, fmt::format("attribute {}", static_cast<int>(name)),
        api_->BackendGetAttribute(descriptor_, name, type, room, &count, values));
  return count;
}

int64_t DnnObject::get_int64(DnnAttribute name) const {
  int64_t value = 0;
  get(name, DnnType::int64, 1, &value);
  return value;
}

std::string DnnObject::get_text(DnnAttribute name) const {
  std::string text(static_cast<size_t>(count(name, DnnType::character)), '\0');
  if (!text.empty()) get(name, DnnType::character, static_cast<int64_t>(text.size()), text.data());
  while (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

DnnObject conv_graph(const DnnApi& api, const ConvCall& call, DnnHandle handle) {
  return GraphMaker(api, call).make(handle);
}

}  // namespace espalier::target::cuda::driver
