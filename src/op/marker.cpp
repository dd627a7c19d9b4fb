#include "op/marker.h"

#include "op/sampling.h"
#include "op/table.h"

namespace espalier::op {

using ir::GradCtx;
using ir::InferCtx;
using ir::Kind;
using ir::OpDef;
using ir::Sample;
using ir::SampleRng;

namespace {

/// `def` is the marker's own record: what stands for a multiplication by a number has that number for a derivative.
template <const OpDef& def>
constexpr OpDef marker(std::string_view name, std::string_view doc) {
  return {
      .name = name,
      .doc = doc,
      .kind = Kind::elementwise,
      .arity = {1, 1},
      .dtypes = ir::float_types,
      .attrs = ir::attr_type<ir::NoAttrs>(),
      .infer = [](const InferCtx& c) { return std::vector{c.in[0]}; },
      .grad = ir::rule([](const GradCtx& c) { return std::vector{ir::make(def, {c.dout[0]})}; }),
      .expand = nullptr,
      .scalar = ir::body<1, [](auto x) { return x; }>(),
      .eval = nullptr,
      .sample = [](SampleRng& rng, ir::Dtype dtype) -> Sample {
        return {{draw_array(rng, dtype, draw_dims(rng, draw(rng, 0, 3)))}, {}, {}};
      },
  };
}

}  // namespace

constinit const OpDef loss_seed_op =
    marker<loss_seed_op>("loss_seed", "Identity that marks the gradient of a loss with respect to itself.");
constinit const OpDef param_grad_op =
    marker<param_grad_op>("param_grad", "Identity that marks a gradient that was asked for.");

Value loss_seed(Value one) { return make(loss_seed_op, {std::move(one)}); }
Value param_grad(Value gradient) { return make(param_grad_op, {std::move(gradient)}); }
bool is_marker(const ir::Node& node) { return &node.op() == &loss_seed_op || &node.op() == &param_grad_op; }

std::span<const OpDef* const> marker_ops() {
  static constexpr const OpDef* ops[] = {&loss_seed_op, &param_grad_op};
  return ops;
}

}  // namespace espalier::op
