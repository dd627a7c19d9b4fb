#include "op/activation.h"

#include <numbers>

#include "base/text.h"
#include "op/infer.h"
#include "op/sampling.h"
#include "op/table.h"
#include "op/widen.h"

namespace espalier::op {

using ir::Array;
using ir::Dtype;
using ir::GradCtx;
using ir::InferCtx;
using ir::Kind;
using ir::Node;
using ir::OpDef;
using ir::Sample;
using ir::SampleRng;
using ir::Type;

namespace {

std::vector<Type> infer_along_axis(const InferCtx& c) {
  check_axis(c, c.attrs.get<AxisAttrs>().axis, c.in[0].rank());
  return {c.in[0]};
}

std::vector<int64_t> axis_of(const Node& n) { return {n.attrs<AxisAttrs>().axis}; }

std::vector<Value> expand_softmax(const Node& n) {
  const std::vector<int64_t> axis = axis_of(n);
  const Value e = exp(below_max(widened(n.input(0)), axis));
  return {cast(div(e, unreduce(reduce_sum(e, axis), e, axis)), n.input(0).dtype())};
}

// dx = y (dy - sum(dy y)).
std::vector<Value> softmax_grad(const GradCtx& c) {
  const std::vector<int64_t> axis = axis_of(c.node);
  const Value y = widened(c.out()), dy = widened(c.dout[0]);
  const Value sum = unreduce(reduce_sum(mul(dy, y), axis), y, axis);
  return {cast(mul(y, sub(dy, sum)), c.in(0).dtype())};
}

std::vector<Value> expand_log_softmax(const Node& n) {
  const std::vector<int64_t> axis = axis_of(n);
  const Value z = below_max(widened(n.input(0)), axis);
  return {cast(sub(z, unreduce(log(reduce_sum(exp(z), axis)), z, axis)), n.input(0).dtype())};
}

// dx = dy - exp(y) sum(dy).
std::vector<Value> log_softmax_grad(const GradCtx& c) {
  const std::vector<int64_t> axis = axis_of(c.node);
  const Value y = widened(c.out()), dy = widened(c.dout[0]);
  const Value sum = unreduce(reduce_sum(dy, axis), y, axis);
  return {cast(sub(dy, mul(exp(y), sum)), c.in(0).dtype())};
}

// Hendrycks and Gimpel 2016.
std::vector<Value> expand_gelu(const Node& n) {
  const Value x = widened(n.input(0));
  Value inner;
  if (n.attrs<GeluAttrs>().tanh_form) {
    const Value cube = mul(mul(square(x), x), 0.044715);
    inner = tanh(mul(add(x, cube), std::numbers::sqrt2 * std::numbers::inv_sqrtpi));
  } else {
    inner = erf(mul(x, 1 / std::numbers::sqrt2));
  }
  return {cast(mul(mul(x, 0.5), add(inner, 1.0)), n.input(0).dtype())};
}

std::vector<Value> expand_silu(const Node& n) {
  const Value x = widened(n.input(0));
  return {cast(mul(x, sigmoid(x)), n.input(0).dtype())};
}

std::vector<Type> infer_dropout(const InferCtx& c) {
  const double rate = c.attrs.get<DropoutAttrs>().rate;
  if (!(rate >= 0 && rate < 1)) c.fail("rate is out of range", "0 <= rate < 1", number_text(rate));
  for (size_t i = 1; i < 3; ++i)
    if (c.in[i] != Type{Dtype::i64, {}})
      c.fail(i == 1 ? "key is of a wrong type" : "counter is of a wrong type", "i64[]");
  return {c.in[0]};
}

std::vector<Value> expand_dropout(const Node& n) {
  const Value& x = n.input(0);
  const auto& at = n.attrs<DropoutAttrs>();
  const Value u = random_uniform(n.input(1), n.input(2), {Dtype::f32, x.dims()}, at.stream);
  return {select(ge(u, full_like(u, at.rate)), mul(x, 1 / (1 - at.rate)), zeros_like(x))};
}

std::vector<Type> infer_embedding(const InferCtx& c) {
  if (c.in[0].rank() != 2) c.fail("the table is no matrix", "rank 2 [rows, features]", c.in[0].text());
  check_indices(c, 1);
  ir::Dims dims = c.in[1].dims;
  dims.push_back(c.in[0].dims[1]);
  return {{c.in[0].dtype, std::move(dims)}};
}

Sample sample_along_axis(SampleRng& rng, Dtype dtype) {
  const int64_t rank = draw(rng, 1, 3);
  return {{draw_array(rng, dtype, draw_dims(rng, rank))}, AxisAttrs{.axis = draw(rng, 0, rank - 1)}, {}};
}

Array draw_any(SampleRng& rng, Dtype dtype) {
  return draw_array(rng, dtype, draw_dims(rng, draw(rng, 0, 3)), -4, 4);
}

Sample sample_embedding(SampleRng& rng, Dtype dtype) {
  const int64_t rows = draw(rng, 1, 5);
  const Dtype id = draw_index_dtype(rng);
  return {{draw_array(rng, dtype, {rows, draw_dim(rng)}),
           draw_array(rng, id, draw_dims(rng, draw(rng, 0, 2)), 0, static_cast<double>(rows - 1))},
          {},
          {}};
}

}  // namespace

constinit const OpDef softmax_op{
    .name = "softmax",
    .doc = "exp(x) over its sum along an axis, computed without overflow.",
    .kind = Kind::composite,
    .arity = {1, 1},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<AxisAttrs>(),
    .infer = infer_along_axis,
    .grad = ir::rule(softmax_grad),
    .expand = expand_softmax,
    .scalar = {},
    .eval = nullptr,
    .sample = sample_along_axis,
};

constinit const OpDef log_softmax_op{
    .name = "log_softmax",
    .doc = "The logarithm of softmax, computed without overflow.",
    .kind = Kind::composite,
    .arity = {1, 1},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<AxisAttrs>(),
    .infer = infer_along_axis,
    .grad = ir::rule(log_softmax_grad),
    .expand = expand_log_softmax,
    .scalar = {},
    .eval = nullptr,
    .sample = sample_along_axis,
};

constinit const OpDef gelu_op{
    .name = "gelu",
    .doc = "x times the normal distribution function of x, exactly or in the tanh form.",
    .kind = Kind::composite,
    .arity = {1, 1},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<GeluAttrs>(),
    .infer = same_type,
    .grad = ir::by_expansion,
    .expand = expand_gelu,
    .scalar = {},
    .eval = nullptr,
    .sample = [](SampleRng& rng, Dtype dtype) -> Sample {
      return {{draw_any(rng, dtype)}, GeluAttrs{.tanh_form = draw_chance(rng, 0.5)}, {}};
    },
};

constinit const OpDef silu_op{
    .name = "silu",
    .doc = "x times sigmoid(x).",
    .kind = Kind::composite,
    .arity = {1, 1},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<ir::NoAttrs>(),
    .infer = same_type,
    .grad = ir::by_expansion,
    .expand = expand_silu,
    .scalar = {},
    .eval = nullptr,
    .sample = [](SampleRng& rng, Dtype dtype) -> Sample {
      return {{draw_any(rng, dtype)}, {}, {}};
    },
};

constinit const OpDef dropout_op{
    .name = "dropout",
    .doc = "Zeroes elements at random and scales the rest so that the mean stays: (x, key, counter) -> y.",
    .kind = Kind::composite,
    .arity = {3, 3},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<DropoutAttrs>(),
    .infer = infer_dropout,
    .grad = ir::by_expansion,
    .expand = expand_dropout,
    .scalar = {},
    .eval = nullptr,
    .sample = [](SampleRng& rng, Dtype dtype) -> Sample {
      return {{draw_any(rng, dtype), draw_array(rng, Dtype::i64, {}, 0, 1000),
               draw_array(rng, Dtype::i64, {}, 0, 1000)},
              DropoutAttrs{.rate = static_cast<double>(draw(rng, 0, 3)) / 4, .stream = draw(rng, 0, 3)},
              {}};
    },
};

constinit const OpDef embedding_op{
    .name = "embedding",
    .doc = "Rows of a table at given ids: (table, ids) -> ids.dims + [features].",
    .kind = Kind::composite,
    .arity = {2, 2},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<ir::NoAttrs>(),
    .infer = infer_embedding,
    .grad = ir::by_expansion,
    .expand = [](const Node& n) { return std::vector{gather(n.input(0), n.input(1), 0)}; },
    .scalar = {},
    .eval = nullptr,
    .sample = sample_embedding,
};

Value softmax(Value x, int64_t axis) { return make(softmax_op, {std::move(x)}, AxisAttrs{.axis = axis}); }
Value log_softmax(Value x, int64_t axis) {
  return make(log_softmax_op, {std::move(x)}, AxisAttrs{.axis = axis});
}
Value gelu(Value x, bool tanh_form) {
  return make(gelu_op, {std::move(x)}, GeluAttrs{.tanh_form = tanh_form});
}
Value silu(Value x) { return make(silu_op, {std::move(x)}); }
Value dropout(Value x, Value key, Value counter, double rate, int64_t stream) {
  return make(dropout_op, {std::move(x), std::move(key), std::move(counter)},
              DropoutAttrs{.rate = rate, .stream = stream});
}
Value embedding(Value table, Value ids) { return make(embedding_op, {std::move(table), std::move(ids)}); }

std::span<const OpDef* const> activation_ops() {
  static constexpr const OpDef* ops[] = {&softmax_op, &log_softmax_op, &gelu_op,
                                         &silu_op,    &dropout_op,     &embedding_op};
  return ops;
}

}  // namespace espalier::op
