#pragma once
// The fused level: what the fuser makes of a tensor-level graph and what targets turn into kernels.
//
// A `fusion` node holds a closed body graph of tensor-level ops; its meaning is that body inlined. Three kinds:
//   loops        elementwise, movement and reduction ops that become one loop nest (kernel/lower.h)
//   contraction  one root (dot, conv, conv_data_grad, conv_weight_grad) with what a target runs along with it: layout
//                changes of operands and result (kernel/blocks.h), casts, and a pointwise epilogue (bias, activation,
//                residual)
//   batch        fusions of kind loops that do not read each other's results, side by side: one launch
// Everything outside fusions at this level is a library or reference call of the op itself.
#include "ir/graph.h"

namespace espalier::kernel {

enum class FusionKind : uint8_t { loops, contraction, batch };
inline constexpr std::string_view fusion_kind_names[] = {"loops", "contraction", "batch"};
constexpr std::span<const std::string_view> enum_names(FusionKind) { return fusion_kind_names; }

struct FusionAttrs {
  FusionKind kind = FusionKind::loops;
  ir::GraphRef body;
  bool operator==(const FusionAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("kind", &FusionAttrs::kind), ir::field("body", &FusionAttrs::body)};
  }
};

extern const ir::OpDef fusion_op;

/// The results of a fusion of `body` (a graph whose inputs match `operands`).
std::vector<ir::Value> fusion(FusionKind kind, ir::GraphRef body, std::vector<ir::Value> operands);
/// The body of a fusion node, or null for any other node.
const ir::Graph* fusion_body(const ir::Node& node);
/// The same of any node: what is no fusion becomes a body of that node alone over its operands, "x0" and on to "y0" and on.
ir::Graph body_of(const ir::Node& node);
/// The one contraction or convolution of a contraction body.
const ir::Node& contraction_root(const ir::Graph& body);

}  // namespace espalier::kernel
