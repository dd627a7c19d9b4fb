#include "target/cuda/match/conv.h"

#include <algorithm>

#include "base/align.h"
#include "kernel/contraction_body.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/spatial.h"
#include "target/cuda/match/declined.h"

namespace espalier::target::cuda {

namespace {

using ir::Dtype;
using ir::Node;
using ir::Value;
using kernel::ContractionBody;
using kernel::EpilogueStep;

bool is_low(Dtype d) { return d == Dtype::bf16 || d == Dtype::f16; }

/// The tensor of a channels-last value.
ConvTensor tensor_of(const Value& v, int spatial) {
  const std::vector<int64_t> dims = ir::static_dims(v.dims());
  ConvTensor t{.dtype = v.dtype(), .dims = {}, .strides = {}};
  t.dims[0] = dims.front();
  t.dims[1] = dims.back();
  std::copy(dims.begin() + 1, dims.end() - 1, t.dims.begin() + 2);
  t.strides = channels_last_strides(t.dims, spatial);
  return t;
}

/// The record of the root alone.
ConvCall call_of(const Node& root, const ConvOptions& options) {
  const auto& at = root.attrs<op::ConvAttrs>();
  const bool forward = &root.op() == &op::conv_op, data = &root.op() == &op::conv_data_grad_op;
  const Value result = root.value();
  const int spatial = result.rank() - 2;
  ConvCall c;
  c.direction = forward ? ConvDirection::forward
                : data  ? ConvDirection::data_grad
                        : ConvDirection::weight_grad;
  c.spatial = static_cast<int8_t>(spatial);
  c.x = tensor_of(data ? result : root.input(0), spatial);
  c.w = tensor_of(forward || data ? root.input(1) : result, spatial);
  c.y = tensor_of(forward ? result : root.input(data ? 0 : 1), spatial);
  std::copy(at.stride.begin(), at.stride.end(), c.stride.begin());
  std::copy(at.pad_low.begin(), at.pad_low.end(), c.pad_low.begin());
  std::copy(at.pad_high.begin(), at.pad_high.end(), c.pad_high.begin());
  std::copy(at.dilation.begin(), at.dilation.end(), c.dilation.begin());
  c.groups = at.groups;
  const Dtype operands = root.input(0).dtype();
  c.compute = operands == Dtype::f64 ? Dtype::f64 : ir::is_float(operands) ? Dtype::f32 : Dtype::i32;
  c.tf32 = options.tf32 && !options.exact && operands == Dtype::f32;
  c.exact = options.exact;
  c.workspace = options.workspace;
  return c;
}

/// Of the record, by role.
ConvTensor& result_of(ConvCall& c) {
  return c.direction == ConvDirection::forward ? c.y : c.direction == ConvDirection::data_grad ? c.x : c.w;
}

class ConvMatcher {
 public:
  ConvMatcher(const ir::Graph& body, const ConvOptions& options)
      : body_(body),
        options_(options),
        read_(taken(kernel::read_contraction(body))),
        call_(call_of(*read_.root, options)) {
    out_.name = "cudnn conv";
    scratch_ = static_cast<int>(body.inputs.size() + body.outputs.size());
  }

  CallList run() {
    for (const kernel::RootOperand* o : {&read_.a, &read_.b}) {
      if (o->layout != kernel::ActLayout::channels_last) decline("operand in another layout");
      if (o->dtype != read_.root->input(0).dtype()) decline("operand is cast");
    }
    place_root();
    if (nothing_to_add()) return std::move(out_);
    for (const EpilogueStep& s : read_.steps) add_step(s);
    if (operand_dtype() == Dtype::bf16 && call_.step_count > 0 && call_.w.dims[1] == 1 && call_.groups > 1)
      decline("depthwise in bf16 with an epilogue: cuDNN has no engine");
    result_of(call_).dtype = body_.outputs[0].value.dtype();
    if (const std::string wrong = conv_error(call_); !wrong.empty()) decline(wrong);
    add_calls();
    out_.scratch_bytes = scratch_bytes_;
    return std::move(out_);
  }

 private:
  Dtype operand_dtype() const { return read_.root->input(0).dtype(); }

  void place_root() {
    const Operand result{static_cast<int>(body_.inputs.size()), 0};
    const Operand a{read_.a.input, 0}, b{read_.b.input, 0};
    switch (call_.direction) {
      case ConvDirection::forward: operands_ = {a, b, result}; break;
      case ConvDirection::data_grad: operands_ = {result, b, a}; break;
      case ConvDirection::weight_grad: operands_ = {a, result, b}; break;
    }
  }

  /// Sums without a term, and results without an element.
  bool nothing_to_add() {
    const Value result = body_.outputs[0].value;
    if (result.type().elements() == 0) return true;
    if (read_.root->input(0).type().elements() != 0 && read_.root->input(1).type().elements() != 0)
      return false;
    if (!read_.steps.empty()) decline("a convolution of nothing with an epilogue");
    const int64_t bytes = result.type().elements() * ir::dtype_size(result.dtype());
    out_.calls.push_back({.work = FillCall{.bytes = bytes, .byte = 0},
                          .operands = {{static_cast<int>(body_.inputs.size()), 0}},
                          .cost = {.bytes = bytes}});
    return true;
  }

  // ---- epilogue ------------------------------------------------------------------------------------------------------

  void add_step(const EpilogueStep& s) {
    if (call_.direction == ConvDirection::weight_grad) decline("weight gradient with an epilogue");
    const Dtype before = s.value->input(0).dtype(), after = s.value.dtype();
    if (s.op == &op::cast_op) {
      if (before != Dtype::f32 || after != operand_dtype()) decline("cast of the result");
      return;
    }
    if (options_.exact && is_low(before) && s.op != &op::relu_op) decline("a value inside is rounded");
    if (s.op == &op::add_op || s.op == &op::mul_op) return add_operand(s);
    if (s.op == &op::relu_op) push(ConvStep::relu);
    else if (s.op == &op::sigmoid_op) push(ConvStep::sigmoid);
    else if (s.op == &op::tanh_op) push(ConvStep::tanh);
    else decline("epilogue op " + std::string(s.op->name));
  }

  void push(ConvStep step) {
    if (call_.step_count == conv_steps_most) decline("a long epilogue");
    call_.steps[static_cast<size_t>(call_.step_count++)] = step;
  }

  void add_operand(const EpilogueStep& s) {
    const bool add = s.op == &op::add_op;
    if (s.other == EpilogueStep::Other::number) decline("epilogue operand that is a number");
    const Dtype dtype = body_.inputs[static_cast<size_t>(s.input)].dtype();
    if (s.other == EpilogueStep::Other::channels) {
      if (dtype != call_.compute) decline("epilogue operand of dtype " + std::string(ir::dtype_name(dtype)));
      push(add ? ConvStep::add_channel : ConvStep::mul_channel);
    } else {
      if (!add) decline("a product with a tensor");
      if (dtype != body_.outputs[0].value.dtype()) decline("residual of another dtype than the result");
      push(ConvStep::add_residual);
    }
    operands_.push_back({s.input, 0});
  }

  // ---- calls ---------------------------------------------------------------------------------------------------------

  Operand scratch(int64_t bytes) {
    const Operand place{scratch_, scratch_bytes_};
    scratch_bytes_ += round_up(bytes, 256);
    return place;
  }

  void add_calls() {
    const size_t result = call_.direction == ConvDirection::forward     ? 2
                          : call_.direction == ConvDirection::data_grad ? 0
                                                                        : 1;
    const bool widens = call_.direction != ConvDirection::forward && is_low(operand_dtype()) &&
                        result_of(call_).dtype == Dtype::f32;
    if (!widens) return add_conv();
    if (call_.step_count > 0) decline("gradient in f32 of a low dtype, with an epilogue");
    if (operand_dtype() == Dtype::bf16 && !options_.exact) {
      const Operand wide = operands_[result];
      ConvTensor& t = result_of(call_);
      t.dtype = Dtype::bf16;
      operands_[result] = scratch(conv_bytes(t));
      const Operand low = operands_[result];
      add_conv();
      return add_cast(t, low, Dtype::f32, wide);
    }
    ConvTensor* const tensors[] = {&call_.x, &call_.w, &call_.y};
    for (size_t i = 0; i < 3; ++i) {
      if (i == result) continue;
      ConvTensor low = *tensors[i];
      tensors[i]->dtype = Dtype::f32;
      const Operand from = std::exchange(operands_[i], scratch(conv_bytes(*tensors[i])));
      add_cast(low, from, Dtype::f32, operands_[i]);
    }
    call_.tf32 = true;  // it holds what the operands were
    add_conv();
  }

  bool lies_badly(const Operand& o) const {
    const auto i = static_cast<size_t>(o.buffer);
    return o.buffer < scratch_ && i < options_.alignment.size() &&
           options_.alignment[i] % conv_alignment != 0;
  }

  int64_t bytes_of(int buffer) const {
    const auto i = static_cast<size_t>(buffer);
    return (i < body_.inputs.size() ? body_.inputs[i] : body_.outputs[0].value).type().bytes();
  }

  void add_copy(int64_t bytes, const Operand& from, const Operand& to) {
    out_.calls.push_back(
        {.work = CopyCall{.bytes = bytes}, .operands = {from, to}, .cost = {.bytes = 2 * bytes}});
  }

  /// The convolution, from and to copies of what lies where the library does not read.
  void add_conv() {
    std::vector<std::pair<Operand, Operand>> results;
    for (Operand& o : operands_) {
      if (!lies_badly(o)) continue;
      const Operand there = std::exchange(o, scratch(bytes_of(o.buffer)));
      if (there.buffer == static_cast<int>(body_.inputs.size())) results.emplace_back(o, there);
      else add_copy(bytes_of(there.buffer), there, o);
    }
    add_library_call();
    for (const auto& [from, to] : results) add_copy(bytes_of(to.buffer), from, to);
  }

  void add_library_call() {
    LibraryAnswer answer = options_.ask(call_);
    if (!answer.refusal.empty()) decline(std::move(answer.refusal));
    call_.workspace = answer.workspace;
    if (call_.workspace > 0) operands_.push_back(scratch(call_.workspace));
    int64_t bytes = 0;
    for (const ConvTensor* t : {&call_.x, &call_.w, &call_.y}) bytes += conv_bytes(*t);
    for (int i = 0; i < call_.step_count; ++i) {
      const ConvStep step = call_.steps[static_cast<size_t>(i)];
      if (step == ConvStep::add_residual) bytes += conv_bytes(conv_result(call_));
      else if (takes_operand(step)) bytes += conv_result(call_).dims[1] * ir::dtype_size(call_.compute);
    }
    const auto elements = static_cast<double>(conv_bytes(call_.y) / ir::dtype_size(call_.y.dtype));
    const auto taps =
        static_cast<double>(conv_bytes(call_.w) / ir::dtype_size(call_.w.dtype) / call_.w.dims[0]);
    out_.calls.push_back(
        {.work = call_,
         .operands = operands_,
         .cost = {.bytes = bytes, .flops = 2 * elements * taps, .matrix = true, .dtype = call_.x.dtype}});
  }

  /// The elements of a tensor without gaps, at `from`, in another dtype at `to`.
  void add_cast(const ConvTensor& t, const Operand& from, Dtype dtype, const Operand& to) {
    const Value x = ir::new_input("x", {t.dtype, {conv_bytes(t) / ir::dtype_size(t.dtype)}});
    ir::Graph body;
    body.inputs = {x};
    body.outputs.push_back({"y", op::cast(x, dtype)});
    MapOptions map;
    for (const Operand* o : {&from, &to})
      map.alignment.push_back(lies_badly(*o) ? options_.alignment[static_cast<size_t>(o->buffer)]
                                             : conv_alignment);
    auto made = loop_calls(body, map);
    if (const auto* refusal = std::get_if<kernel::Refusal>(&made)) decline(refusal->reason);
    auto& cast = std::get<CallList>(made);
    for (CallRecord& call : cast.calls) {
      for (Operand& o : call.operands) o = o.buffer == 0 ? from : to;
      out_.calls.push_back(std::move(call));
    }
    std::move(cast.sources.begin(), cast.sources.end(), std::back_inserter(out_.sources));
  }

  const ir::Graph& body_;
  const ConvOptions options_;
  const ContractionBody read_;
  ConvCall call_;
  std::vector<Operand> operands_;
  CallList out_;
  int scratch_ = 0;  ///< number of the buffer
  int64_t scratch_bytes_ = 0;
};

}  // namespace

std::variant<CallList, kernel::Refusal> conv_calls(const ir::Graph& body, const ConvOptions& options) {
  return matched("cudnn", [&] { return ConvMatcher(body, options).run(); });
}

}  // namespace espalier::target::cuda
