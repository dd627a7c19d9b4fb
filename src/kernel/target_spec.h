#pragma once
// TargetSpec: what passes may ask of a target without seeing it: what it claims whole, which fusions it runs as one
// kernel, which layout its convolutions like.
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/align.h"
#include "kernel/blocks.h"
#include "kernel/fused.h"

namespace espalier::kernel {

/// Why something was declined, and by what.
struct Refusal {
  std::string by, reason;
};
/// Empty = accepted.
using Verdict = std::optional<Refusal>;

/// The layouts a convolution's two activation sides should have, chosen by shape. x is the side of the convolution's input
/// (the result of conv_data_grad), y that of its output (operand 0 of conv_data_grad, operand 1 of conv_weight_grad).
struct ConvChoice {
  ActLayout x = ActLayout::channels_last, y = ActLayout::channels_last;
  int64_t block = 16;  ///< channels, or elements of the batch, per block
};

/// What becomes one launch where each launch costs.
struct BatchLimits {
  int64_t member_bytes = 1 << 20;  ///< of a member's results; larger ones are steps of their own
  size_t buffers = 500;            ///< operands and results of all members
};

class TargetSpec {
 public:
  virtual ~TargetSpec() = default;
  virtual std::string_view name() const = 0;
  /// The target on this machine: where the text is the same, so are a program's kernels and their rounding.
  virtual std::string machine() const { return std::string(name()); }
  /// Is this composite (or primitive) op run whole by a kernel of the target's own, so that it is not to be expanded?
  virtual bool claims(const ir::Node& node) const = 0;
  /// Can this body run as one kernel? Called by the fusers for each candidate. `constant[i]` tells whether input i of the body
  /// is a constant of the program (frozen weights); `exact` asks for a kernel with the body's meaning to the letter.
  virtual Verdict accepts(FusionKind kind, const ir::Graph& body, std::span<const char> constant,
                          bool exact) const = 0;
  /// May a contraction's fusion give several results, and go on behind a value that is used more than once (gelu's operand; relu, whose mask then
  /// goes to its gradients in bits)? accepts() is then asked about such bodies too.
  virtual bool wide_epilogues() const { return false; }
  /// The layouts for conv, conv_data_grad or conv_weight_grad (channels-last as they stand at the tensor level).
  virtual ConvChoice conv_choice(const ir::Node& node) const = 0;
  /// The dtype in which to compute a contraction whose operands are `operands`: the same where the target has arithmetic for it,
  /// else one that holds their products and that its kernels sum in anyway.
  virtual ir::Dtype contraction_dtype(ir::Dtype operands) const { return operands; }
  /// The fastest precision for matrix work of this machine: f32 or bf16.
  virtual ir::Dtype fast_dtype() const = 0;
  /// Bytes below which work runs on one thread; what fits in a core's cache.
  virtual int64_t cache_bytes() const = 0;
  /// Are launches and bytes what a step costs (on a GPU)? Then small fusions that do not depend on each other become one launch
  /// (batch_nests), and what a loop can compute again from what it reads anyway is not stored for it (fuse_loops). Null: no.
  virtual const BatchLimits* batching() const { return nullptr; }
  /// Every buffer of a plan begins at a multiple of so many bytes.
  virtual int64_t arena_alignment() const { return cache_line; }
};

}  // namespace espalier::kernel
