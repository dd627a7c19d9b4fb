#include "target/cuda/match/gemm.h"

#include <limits>

#include "base/align.h"
#include "kernel/bit_mask.h"
#include "kernel/contraction_body.h"
#include "kernel/fused.h"
#include "op/activation.h"
#include "op/axes.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "target/cuda/match/declined.h"

namespace espalier::target::cuda {

namespace {

using ir::Dtype;
using ir::Node;
using ir::Value;
using kernel::ContractionBody;
using kernel::DotShape;
using kernel::EpilogueStep;

std::string name_of(Dtype dtype) { return std::string(ir::dtype_name(dtype)); }

Dtype compute_dtype(Dtype operands, Dtype result) {
  const bool narrow = operands == Dtype::bf16 || operands == Dtype::f16;
  const Dtype compute = narrow ? Dtype::f32 : operands == Dtype::i8 ? Dtype::i32 : operands;
  if (compute != Dtype::f32 && compute != Dtype::f64 && compute != Dtype::i32)
    decline("dtype " + name_of(operands));
  if (operands == Dtype::i32) decline("dtype i32");
  if (result != compute && !(narrow && result == operands)) decline("result dtype " + name_of(result));
  return compute;
}

class GemmMatcher {
 public:
  GemmMatcher(const ir::Graph& body, const GemmOptions& options)
      : body_(body),
        options_(options),
        read_(taken(kernel::read_contraction(body, true))),
        root_(*read_.root) {
    const auto inputs = static_cast<int>(body.inputs.size());
    result_ = {inputs, 0};
    scratch_ = inputs + static_cast<int>(body.outputs.size());
  }

  CallList run() {
    if (&root_.op() != &op::dot_op) decline("no matrix product");
    for (const auto* o : {&read_.a, &read_.b})
      if (o->layout != kernel::ActLayout::channels_last || o->dtype != root_.input(0).dtype())
        decline("operands of dot in another layout or dtype");
    operands_dtype_ = root_.input(0).dtype();
    call_.compute = compute_dtype(operands_dtype_, root_.value().dtype());
    call_.tf32 = options_.tf32 && !options_.exact && operands_dtype_ == Dtype::f32;
    matrices();
    for (const EpilogueStep& step : read_.steps) epilogue(step);
    call_.epilogue = call_epilogue();
    if (!read_.extras.empty()) second_result();
    finish();
    return std::move(out_);
  }

 private:
  Dtype result_dtype() const { return body_.outputs[0].value.dtype(); }
  Dtype input_dtype(int input) const { return body_.inputs[static_cast<size_t>(input)].dtype(); }

  // ---- operands ------------------------------------------------------------------------------------------------------

  /// Products of row-major matrices, seen column-major: each is the transpose there, so the result [m, n] is the product of b's
  /// transpose and a's.
  void matrices() {
    const DotShape s = shape();
    call_.m = s.n;
    call_.n = s.m;
    call_.k = s.k;
    call_.batch = s.batch;
    call_.a = matrix(s.b_strides[0], s.b_strides[2], s.b_strides[1]);
    call_.b = matrix(s.a_strides[0], s.a_strides[2], s.a_strides[1]);
    call_.d = {.dtype = result_dtype(), .ld = s.n, .stride = s.batch == 1 ? 0 : s.m * s.n};
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    for (const int64_t size : {call_.m, call_.n, call_.k, call_.batch, call_.a.ld, call_.b.ld})
      if (size > most) decline("an extent above 2^31");
  }

  GemmMatrix matrix(int64_t batch_stride, int64_t row_stride, int64_t column_stride) const {
    const bool transposed = row_stride != 1;
    return {.dtype = operands_dtype_,
            .transposed = transposed,
            .ld = transposed ? row_stride : column_stride,
            .stride = call_.batch == 1 ? 0 : batch_stride};
  }

  /// The strides of the dot as it stands, or of one whose operands have been transposed.
  DotShape shape() {
    auto found = kernel::dot_shape(root_);
    if (const auto* s = std::get_if<DotShape>(&found); s && fits(*s)) {
      a_ = aligned(read_.a.input);
      b_ = aligned(read_.b.input);
      return *s;
    }
    for (const ir::Type* t : {&root_.input(0).type(), &root_.input(1).type(), &root_.types()[0]})
      if (t->elements() == 0) decline("nothing to do");
    const auto& at = root_.attrs<op::DotAttrs>();
    const Value &x = root_.input(0), &y = root_.input(1);
    const auto free_x = op::free_axes(x.rank(), at.batch_a, at.contract_a),
               free_y = op::free_axes(y.rank(), at.batch_b, at.contract_b);
    const auto dx = ir::static_dims(x.dims()), dy = ir::static_dims(y.dims());
    DotShape s{.batch = op::count_at(dx, at.batch_a),
               .m = op::count_at(dx, free_x),
               .n = op::count_at(dy, free_y),
               .k = op::count_at(dx, at.contract_a)};
    const int64_t a_strides[] = {s.m * s.k, s.k, 1}, b_strides[] = {s.n * s.k, s.k == 1 ? s.n : 1, s.k};
    std::copy_n(a_strides, 3, s.a_strides);
    std::copy_n(b_strides, 3, s.b_strides);
    if (!fits(s)) decline("i8 in sizes that are no multiples of 4");
    a_ = reordered(x, read_.a.input, op::joined(op::joined(at.batch_a, free_x), at.contract_a));
    b_ = reordered(y, read_.b.input, op::joined(op::joined(at.batch_b, free_y), at.contract_b));
    return s;
  }

  /// Integers are multiplied along contiguous rows of both operands only, and in multiples of 4.
  bool fits(const DotShape& s) const {
    if (call_.compute != Dtype::i32) return true;
    const auto rows = [](int64_t stride_k, int64_t ld, int64_t batch_stride) {
      return stride_k == 1 && ld % 4 == 0 && batch_stride % 4 == 0;
    };
    return s.n % 4 == 0 && s.k % 4 == 0 && rows(s.a_strides[2], s.a_strides[1], s.a_strides[0]) &&
           rows(s.b_strides[1], s.b_strides[2], s.b_strides[0]);
  }

  int64_t alignment_of(int buffer) const {
    const auto i = static_cast<size_t>(buffer);
    return i < options_.alignment.size() ? options_.alignment[i] : gemm_alignment;
  }
  bool is_aligned(int buffer) const { return alignment_of(buffer) % gemm_alignment == 0; }

  /// The input where it lies, or a copy of it in scratch.
  Operand aligned(int input) {
    if (is_aligned(input)) return {input, 0};
    const int64_t bytes = body_.inputs[static_cast<size_t>(input)].type().bytes();
    const Operand to = scratch(bytes);
    copy({input, 0}, to, bytes);
    return to;
  }

  void copy(Operand from, Operand to, int64_t bytes) {
    out_.calls.push_back({.work = CopyCall{bytes}, .operands = {from, to}, .cost = {.bytes = 2 * bytes}});
  }

  Operand reordered(const Value& v, int input, const std::vector<int64_t>& order) {
    if (op::is_identity(order)) return aligned(input);
    const Value in = ir::new_input("x", v.type());
    return computed(in, op::transpose(in, order), input);
  }

  /// Append the loops that compute `result` of `in`, which is input number `input`; the place of the result in scratch.
  Operand computed(const Value& in, const Value& result, int input) {
    const ir::Graph piece{.name = "piece",
                          .level = ir::Level::fused,
                          .inputs = {in},
                          .outputs = {{"y", result}},
                          .state = {},
                          .info = {}};
    auto made = loop_calls(piece, {.alignment = {alignment_of(input)}});
    if (auto* refusal = std::get_if<kernel::Refusal>(&made)) decline(std::move(refusal->reason));
    auto& list = std::get<CallList>(made);
    const Operand to = scratch(result.type().bytes()), rest = scratch(list.scratch_bytes);
    const Operand places[] = {{input, 0}, to, rest};
    for (CallRecord& call : list.calls) {
      for (Operand& o : call.operands) {
        const Operand& place = places[o.buffer];
        o = {place.buffer, place.offset + o.offset};
      }
      out_.calls.push_back(std::move(call));
    }
    std::move(list.sources.begin(), list.sources.end(), std::back_inserter(out_.sources));
    return to;
  }

  Operand scratch(int64_t bytes) {
    const Operand place{scratch_, out_.scratch_bytes};
    out_.scratch_bytes += whole_lines(bytes);
    return place;
  }

  // ---- epilogue ------------------------------------------------------------------------------------------------------

  enum class Activation : uint8_t { none, relu, gelu, drelu };

  void epilogue(const EpilogueStep& step) {
    if (call_.compute == Dtype::i32) decline("integers with an epilogue");
    if (step.op == &op::cast_op) return cast(step);
    if (activation_ != Activation::none)
      decline("epilogue op " + std::string(step.op->name) + " after an activation");
    if (step.op == &op::relu_op) return relu();
    if (step.op == &op::gelu_op) return gelu(step.tanh_form);
    if (step.other == EpilogueStep::Other::bits) return relu_gradient(step);
    if (step.other == EpilogueStep::Other::none) decline("epilogue op " + std::string(step.op->name));
    const bool add = step.op == &op::add_op;
    if (!add && step.other == EpilogueStep::Other::number && bias_ < 0 && residual_ < 0) {
      call_.alpha *= step.number;
    } else if (add && step.other == EpilogueStep::Other::channels && bias_ < 0) {
      bias_ = step.input;
      if (call_.compute == Dtype::f64) decline("bias of f64");
    } else if (add && step.other == EpilogueStep::Other::tensor && residual_ < 0) {
      residual_ = step.input;
      if (input_dtype(residual_) != result_dtype()) decline("residual of another dtype than the result");
    } else {
      decline("epilogue operand of " + std::string(step.op->name));
    }
  }

  void cast(const EpilogueStep& step) const {
    if (step.value->input(0).dtype() != Dtype::f32 || step.value.dtype() != operands_dtype_)
      decline("cast of the result");
  }

  bool gives_mask_of_relu() const {
    return !read_.extras.empty() && read_.extras[0].kind == kernel::ExtraResult::Kind::positive_bits;
  }

  /// Where its mask comes along, the launches that are saved are worth a NaN that is seen later; but f16 knows by it of an overflow.
  void relu() {
    const auto b = static_cast<size_t>(read_.b.input);
    const bool frozen = b < options_.constant.size() && options_.constant[b];
    if (options_.exact) decline("relu loses NaN, and exact kernels are asked for");
    if (!frozen && !gives_mask_of_relu()) decline("relu loses NaN, and the weights are being trained");
    if (gives_mask_of_relu() && operands_dtype_ == Dtype::f16)
      decline("relu loses NaN, by which training in f16 sees an overflow");
    activate(Activation::relu);
  }

  void relu_gradient(const EpilogueStep& step) {
    if (bias_ >= 0 || residual_ >= 0) decline("relu's gradient behind a sum");
    if (call_.batch != 1) decline("relu's gradient of a batch of products");
    activate(Activation::drelu);
    mask_ = step.input;
    set_mask_columns(body_.inputs[static_cast<size_t>(mask_)]);
  }

  /// A mask has a column for each of D, so D's columns must be the rows that it was packed in.
  void set_mask_columns(const Value& mask) {
    call_.mask_ld = kernel::row_bits(call_.m);
    if (body_.outputs[0].value.dims().back().value() != call_.m || mask.type().bytes() != mask_bytes(call_))
      decline("a mask of other rows than the product's");
  }

  void gelu(bool tanh_form) {
    if (options_.exact) decline("the library's gelu is not exact");
    if (!tanh_form) decline("gelu by erf");
    activate(Activation::gelu);
  }

  void activate(Activation activation) {
    if (call_.compute != Dtype::f32) decline("an activation of " + name_of(call_.compute));
    activation_ = activation;
  }

  /// cuBLASLt gives the operand of gelu, or the sums of an operand of the product, along with a single product.
  void second_result() {
    const kernel::ExtraResult& extra = read_.extras[0];
    if (read_.extras.size() > 1) decline("more than two results");
    if (call_.batch != 1 || call_.compute != Dtype::f32) decline("a second result of a batch, or not in f32");
    using Kind = kernel::ExtraResult::Kind;
    if (extra.kind == Kind::positive_bits) return mask_of_relu();
    if (body_.outputs[1].value.dtype() != result_dtype()) decline("a second result of another dtype");
    if (extra.kind == Kind::before_step) {
      if (read_.steps[extra.step].op != &op::gelu_op) decline("a second result that is not gelu's operand");
      if (call_.d.ld % 8 != 0) decline("gelu's operand in rows that are no multiple of 8");
      call_.epilogue = bias_ >= 0 ? GemmEpilogue::gelu_aux_bias : GemmEpilogue::gelu_aux;
      return;
    }
    if (call_.epilogue != GemmEpilogue::none || call_.alpha != 1)
      decline("sums of an operand beside an epilogue");
    call_.epilogue = extra.kind == Kind::sum_of_a ? GemmEpilogue::sum_b : GemmEpilogue::sum_a;
  }

  void mask_of_relu() {
    if (activation_ != Activation::relu) decline("the mask of a result that is no relu");
    call_.epilogue = bias_ >= 0 ? GemmEpilogue::relu_aux_bias : GemmEpilogue::relu_aux;
    set_mask_columns(body_.outputs[1].value);
  }

  Operand bias_place() {
    const Dtype dtype = input_dtype(bias_);
    if (dtype == result_dtype()) return aligned(bias_);
    if (options_.exact) decline("bias of another dtype than the result");
    const Value in = ir::new_input("bias", body_.inputs[static_cast<size_t>(bias_)].type());
    return computed(in, op::cast(in, result_dtype()), bias_);
  }

  GemmEpilogue call_epilogue() const {
    const bool bias = bias_ >= 0;
    switch (activation_) {
      case Activation::none: return bias ? GemmEpilogue::bias : GemmEpilogue::none;
      case Activation::relu: return bias ? GemmEpilogue::relu_bias : GemmEpilogue::relu;
      case Activation::drelu: return GemmEpilogue::drelu;
      case Activation::gelu: return bias ? GemmEpilogue::gelu_bias : GemmEpilogue::gelu;
    }
    decline("an unknown activation");
  }

  /// Where a result is written: its place, or scratch that is copied there afterwards.
  Operand result_place(size_t result, std::vector<CallRecord>& after) {
    const Operand place{result_.buffer + static_cast<int>(result), 0};
    if (is_aligned(place.buffer)) return place;
    const int64_t bytes = body_.outputs[result].value.type().bytes();
    const Operand there = scratch(bytes);
    after.push_back({.work = CopyCall{bytes}, .operands = {there, place}, .cost = {.bytes = 2 * bytes}});
    return there;
  }

  void finish() {
    std::vector<CallRecord> after;
    const Operand d = result_place(0, after);
    CallRecord record{.work = {}, .operands = {b_, a_}, .cost = {}};
    if (residual_ >= 0) {
      call_.beta = 1;
      record.operands.push_back(aligned(residual_));
      if (d == result_ && is_aligned(residual_) && residual_ != read_.a.input && residual_ != read_.b.input)
        out_.in_place.push_back({0, residual_});
    }
    if (bias_ >= 0) record.operands.push_back(bias_place());
    if (mask_ >= 0) record.operands.push_back(aligned(mask_));
    record.operands.push_back(d);
    if (has_second_result(call_.epilogue)) record.operands.push_back(result_place(1, after));
    add_workspace(record);
    int64_t bytes = 0;
    for (const ir::Output& o : body_.outputs) bytes += o.value.type().bytes();
    for (const Value& v : body_.inputs) bytes += v.type().bytes();
    record.cost = {.bytes = bytes,
                   .flops = 2.0 * static_cast<double>(call_.m * call_.batch) * static_cast<double>(call_.n) *
                            static_cast<double>(call_.k),
                   .matrix = true,
                   .dtype = operands_dtype_};
    record.work = call_;
    out_.calls.push_back(std::move(record));
    std::move(after.begin(), after.end(), std::back_inserter(out_.calls));
    out_.name = "cublaslt";
  }

  void add_workspace(CallRecord& record) {
    call_.workspace = gemm_workspace;
    LibraryAnswer answer = options_.ask(call_);
    if (!answer.refusal.empty()) decline(std::move(answer.refusal));
    call_.workspace = answer.workspace;
    if (call_.workspace > 0) record.operands.push_back(scratch(call_.workspace));
  }

  const ir::Graph& body_;
  const GemmOptions& options_;
  const ContractionBody read_;
  const Node& root_;
  Dtype operands_dtype_ = Dtype::f32;
  Operand a_, b_, result_;
  int scratch_ = 0, bias_ = -1, residual_ = -1, mask_ = -1;
  Activation activation_ = Activation::none;
  GemmCall call_;
  CallList out_;
};

}  // namespace

std::variant<CallList, kernel::Refusal> gemm_calls(const ir::Graph& body, const GemmOptions& options) {
  return matched("cublaslt", [&] { return GemmMatcher(body, options).run(); });
}

}  // namespace espalier::target::cuda
