#pragma once
// Composite activations: their meaning is .expand; a target may claim them whole.
#include "base/export.h"
#include "op/indexed.h"
#include "op/random.h"
#include "op/reduction.h"

namespace espalier::op {

struct GeluAttrs {
  bool tanh_form = false;  ///< 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) instead of the erf form
  bool operator==(const GeluAttrs&) const = default;
  static constexpr auto fields() { return std::tuple{ir::field("tanh_form", &GeluAttrs::tanh_form)}; }
};
struct DropoutAttrs {
  double rate = 0.5;   ///< probability of a zero, 0 <= rate < 1
  int64_t stream = 0;  ///< as in RandomAttrs
  bool operator==(const DropoutAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("rate", &DropoutAttrs::rate), ir::field("stream", &DropoutAttrs::stream)};
  }
};

ESPALIER_API extern const ir::OpDef softmax_op, log_softmax_op, gelu_op, silu_op, dropout_op, embedding_op;

ESPALIER_API Value softmax(Value x, int64_t axis);
ESPALIER_API Value log_softmax(Value x, int64_t axis);
ESPALIER_API Value gelu(Value x, bool tanh_form = false);
/// x times sigmoid(x).
ESPALIER_API Value silu(Value x);
/// Zeroes elements with probability `rate` and scales the rest by 1/(1-rate); key and counter as in random_uniform.
ESPALIER_API Value dropout(Value x, Value key, Value counter, double rate, int64_t stream);
/// Rows of `table` [V, D] at `ids` (i32 or i64, any dims): ids.dims + [D].
ESPALIER_API Value embedding(Value table, Value ids);

}  // namespace espalier::op
