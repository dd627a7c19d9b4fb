#pragma once
// TargetSpec: what passes may ask of a target without seeing it: what it claims whole, which fusions it runs as one
// kernel, which layout its convolutions like.
#include <optional>
#include <string>
#include <string_view>

#include "kernel/fused.h"

namespace espalier::kernel {

/// Why something was declined; empty optional = accepted.
struct Refusal {
  std::string by, reason;
};
using Verdict = std::optional<Refusal>;

/// How a convolution's activations and algorithm should be, chosen by shape.
struct ConvChoice {
  int64_t block = 0;      ///< 0: channels-last; else channels in blocks of this size, both sides where they divide
  bool winograd = false;  ///< Winograd's rounding (never under `exact`)
};

class TargetSpec {
 public:
  virtual ~TargetSpec() = default;
  virtual std::string_view name() const = 0;
  /// Is this composite (or primitive) op run whole by a kernel of the target's own, so that it is not to be expanded?
  virtual bool claims(const ir::Node& node) const = 0;
  /// Can this body run as one kernel? Called by the fuser for each candidate.
  virtual Verdict accepts(FusionKind kind, const ir::Graph& body) const = 0;
  /// The layout and algorithm for conv, conv_data_grad or conv_weight_grad.
  virtual ConvChoice conv_choice(const ir::Node& node) const = 0;
  /// The fastest precision for matrix work of this machine: f32 or bf16.
  virtual ir::Dtype fast_dtype() const = 0;
  /// Bytes below which work runs on one thread; what fits in a core's cache.
  virtual int64_t cache_bytes() const = 0;
};

}  // namespace espalier::kernel
