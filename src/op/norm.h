#pragma once
// Normalisations (composites). Statistics are computed in at least f32, whatever x's dtype; scale, bias, mean and var have
// dtype f32 for bf16 and f16 inputs, x's otherwise. The last axis of x is the channel axis.
#include "base/export.h"
#include "op/movement.h"

namespace espalier::op {

struct NormAttrs {
  double eps = 1e-5;
  int64_t groups = 1;  ///< group_norm only
  bool operator==(const NormAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("eps", &NormAttrs::eps), ir::field("groups", &NormAttrs::groups)};
  }
};
/// Of batch_norm_train and its gradient: which axes are channels.
struct BatchNormAttrs {
  double eps = 1e-5;
  std::vector<int64_t> channel_axes;  ///< [rank-1] for channels-last, [1, 4] for blocked [N, C/16, H, W, 16]
  bool operator==(const BatchNormAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("eps", &BatchNormAttrs::eps),
                      ir::field("channel_axes", &BatchNormAttrs::channel_axes)};
  }
};

ESPALIER_API extern const ir::OpDef batch_norm_train_op, batch_norm_grad_op, batch_norm_op, layer_norm_op,
    group_norm_op;

/// (x, scale, bias) -> y, batch mean, batch variance (biased). Variance by the two-pass-safe shifted sums in f32.
ESPALIER_API std::vector<Value> batch_norm_train(Value x, Value scale, Value bias, double eps);
/// (x, scale, bias, mean, var) -> y with given statistics.
ESPALIER_API Value batch_norm(Value x, Value scale, Value bias, Value mean, Value var, double eps);
/// Over the last axis: (x, scale, bias) -> y.
ESPALIER_API Value layer_norm(Value x, Value scale, Value bias, double eps);
/// Over the spatial axes and channels of each of `groups` groups: (x, scale, bias) -> y.
ESPALIER_API Value group_norm(Value x, Value scale, Value bias, int64_t groups, double eps);

}  // namespace espalier::op
