#include "target/cpu/cpu_target.h"

#include "kernel/lower.h"
#include "op/contraction.h"
#include "target/cpu/batch_conv_kernel.h"
#include "target/cpu/contraction.h"
#include "target/cpu/cpu_features.h"
#include "target/cpu/loop_kernel.h"
#include "target/cpu/onednn_kernel.h"
#include "target/cpu/scatter_kernel.h"
#include "target/reference/reference_target.h"

namespace espalier::target::cpu {

namespace {

using kernel::ActLayout;
using kernel::FusionKind;
using kernel::Refusal;

class CpuSpec : public kernel::TargetSpec {
 public:
  std::string_view name() const override { return "cpu"; }
  std::string machine() const override { return "cpu " + cpu_features().text(); }
  bool claims(const ir::Node&) const override { return false; }

  kernel::Verdict accepts(FusionKind kind, const ir::Graph& body, std::span<const char> constant,
                          bool exact) const override {
    if (kind == FusionKind::loops) {
      const auto lowered = kernel::lower(body);
      const Refusal* r = std::get_if<Refusal>(&lowered);
      return r ? kernel::Verdict(*r) : std::nullopt;
    }
    auto call = match_contraction(body, constant);
    if (const Refusal* r = std::get_if<Refusal>(&call)) return *r;
    const auto& match = std::get<ContractionCall>(call);
    return in_batch_blocks(match) ? refuse_batch_conv(match) : epilogue_verdict(match, constant, exact);
  }

  kernel::ConvChoice conv_choice(const ir::Node& node) const override {
    onednn::ConvSpec s = conv_spec(node);
    kernel::ConvChoice choice;
    choice.block = s.block = cpu_features().avx512 ? 16 : 8;
    const bool float_work = s.compute == ir::Dtype::f32 || s.compute == ir::Dtype::bf16;
    if (!float_work || s.groups != 1) return choice;
    const onednn::ConvAdvice advice = onednn::advise_layouts(s);
    choice.x = layout_of(advice.x_layout);
    choice.y = layout_of(advice.y_layout);
    if (choice.y == ActLayout::channels_last && wants_batch_blocks(s)) {
      choice.x = choice.y = ActLayout::batch_blocked;
      choice.block = cpu_features().lanes();
    }
    return choice;
  }

  /// oneDNN has bf16 from AVX-512 on and no f16.
  ir::Dtype contraction_dtype(ir::Dtype operands) const override {
    const bool narrow = operands == ir::Dtype::f16 || (operands == ir::Dtype::bf16 && !cpu_features().avx512);
    return narrow ? ir::Dtype::f32 : operands;
  }

  ir::Dtype fast_dtype() const override {
    return cpu_features().avx512_bf16 || cpu_features().amx_bf16 ? ir::Dtype::bf16 : ir::Dtype::f32;
  }
  int64_t cache_bytes() const override { return 1 << 20; }

 private:
  static ActLayout layout_of(onednn::Layout layout) {
    if (layout == onednn::Layout::blocked) return ActLayout::blocked;
    return layout == onednn::Layout::channels_first ? ActLayout::planar : ActLayout::channels_last;
  }

  static bool in_batch_blocks(const ContractionCall& call) {
    const auto* conv = std::get_if<onednn::ConvSpec>(&call.spec);
    return conv && conv->x_layout == onednn::Layout::batch_blocked;
  }

  /// What the library would answer: relu turns NaN into 0 there, which only frozen weights may hide, and `exact` forbids.
  static kernel::Verdict epilogue_verdict(const ContractionCall& call, std::span<const char> constant,
                                          bool exact) {
    const bool frozen =
        static_cast<size_t>(call.b) < constant.size() && constant[static_cast<size_t>(call.b)];
    if (call.relu && exact) return Refusal{"onednn", "relu loses NaN, and exact kernels are asked for"};
    if (call.relu && !frozen) return Refusal{"onednn", "relu loses NaN, and the weights are being trained"};
    const auto prepared = std::visit(
        [](auto s) {
          if constexpr (std::is_same_v<decltype(s), onednn::ConvSpec>) {
            s.winograd = onednn::advise_conv(s, false).winograd;
            return onednn::prepare_conv(s);
          } else {
            return onednn::prepare_dot(s);
          }
        },
        call.spec);
    if (const auto* d = std::get_if<onednn::Declined>(&prepared)) return Refusal{"onednn", d->reason};
    return std::nullopt;
  }
};

/// What every entry of the list sees.
struct Request {
  const ir::Node& node;
  const ir::Graph& body;
  std::span<const ir::Array* const> constants;
  const PrepareOptions& options;
};
using Made = std::variant<std::unique_ptr<Kernel>, Refusal>;

Made make_loops(const Request& r) {
  auto lowered = kernel::lower(r.body);
  if (const Refusal* refusal = std::get_if<Refusal>(&lowered)) return *refusal;
  return make_loop_kernel(r.body, std::get<kernel::Lowered>(lowered));
}

Made make_contraction(const Request& r) {
  bool root = false;
  for (const ir::Node* n : r.body.nodes()) root = root || n->op().kind == ir::Kind::contraction;
  if (!root) return Refusal{"onednn", "no contraction"};
  std::vector<char> constant;
  for (const ir::Array* a : r.constants) constant.push_back(a != nullptr);
  auto call = match_contraction(r.body, constant);
  if (const Refusal* refusal = std::get_if<Refusal>(&call)) return *refusal;
  auto& match = std::get<ContractionCall>(call);
  const auto inputs = static_cast<int>(r.body.inputs.size());
  if (auto ours = make_batch_conv_kernel(match, inputs); ours.index() == 0) return ours;
  return make_onednn_kernel(std::move(match), inputs, r.constants, r.options.exact);
}

Made make_scatter(const Request& r) { return make_scatter_kernel(r.node); }

/// The list: best first, the reference (which takes everything) last.
constexpr Made (*entries[])(const Request&) = {make_loops, make_scatter, make_contraction};

class CpuTarget : public Target {
 public:
  const kernel::TargetSpec& spec() const override { return spec_; }
  bool nests_bodies() const override { return true; }

  Prepared prepare(const ir::Node& node, std::span<const ir::Array* const> constants,
                   const PrepareOptions& options) const override {
    const ir::Graph body = kernel::body_of(node);
    const Request request{node, body, constants, options};
    Prepared out;
    for (const auto entry : entries) {
      Made made = entry(request);
      if (auto* kernel = std::get_if<std::unique_ptr<Kernel>>(&made)) {
        out.kernel = std::move(*kernel);
        return out;
      }
      out.refusals.push_back(std::move(std::get<Refusal>(made)));
    }
    Prepared reference = reference::reference_target().prepare(node, constants, options);
    out.kernel = std::move(reference.kernel);
    return out;
  }

 private:
  CpuSpec spec_;
};

}  // namespace

const Target& cpu_target() {
  static const CpuTarget target;
  return target;
}

}  // namespace espalier::target::cpu
