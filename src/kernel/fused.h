#pragma once
// The fused level: what the fuser makes of a tensor-level graph and what targets turn into kernels.
//
// A `fusion` node holds a closed body graph of tensor-level ops; its meaning is that body inlined. Two kinds:
//   loops        elementwise, movement and reduction ops that become one loop nest (kernel/lower.h)
//   contraction  one root (dot, conv, conv_data_grad, conv_weight_grad) with what a target runs along with it: layout
//                changes of operands and result as reshape+transpose pairs (blocked activations are plain 5-D tensors
//                [N, C/b, H, W, b]), casts, and a pointwise epilogue (bias, activation, residual)
// Everything outside fusions at this level is a library or reference call of the op itself.
#include "ir/graph.h"

namespace espalier::kernel {

enum class FusionKind : uint8_t { loops, contraction };
inline constexpr std::string_view fusion_kind_names[] = {"loops", "contraction"};
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
/// The one contraction or convolution of a contraction body.
const ir::Node& contraction_root(const ir::Graph& body);

/// x [N, spatial..., C] as [N, C/block, spatial..., block] (C divisible by block), as reshape and transpose nodes.
ir::Value to_blocked(const ir::Value& x, int64_t block);
/// The inverse.
ir::Value from_blocked(const ir::Value& x);
/// If `x` is from_blocked(v): v. Else an empty value.
ir::Value match_from_blocked(const ir::Value& x);
/// If `x` is to_blocked(v, block): v. Else an empty value.
ir::Value match_to_blocked(const ir::Value& x);

}  // namespace espalier::kernel
