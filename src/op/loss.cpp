#include "op/loss.h"

#include "op/indexed.h"
#include "op/infer.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "op/table.h"
#include "op/widen.h"

namespace espalier::op {

using ir::Dims;
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

/// The mean of all elements.
Value mean_of(const Value& x) { return reduce_mean(x, all_axes(x)); }

/// dloss / number of `examples`' elements, repeated to `dims`.
Value share_of(const Value& dloss, const Value& examples, const Dims& dims) {
  return broadcast_in(div(dloss, dim_size(examples, all_axes(examples), dloss.dtype())), dims, {});
}

std::vector<Type> infer_cross_entropy(const InferCtx& c) {
  const Type &logits = c.in[0], &labels = c.in[1];
  if (logits.rank() < 1) c.fail("logits have no class axis", "rank >= 1");
  check_indices(c, 1);
  const Dims examples(logits.dims.begin(), logits.dims.end() - 1);
  if (labels.dims != examples)
    c.fail("labels do not have the logits' dims without the last", ir::dims_text(examples),
           ir::dims_text(labels.dims));
  return {{wide_dtype(logits.dtype), {}}};
}

/// What the loss and its gradient share: logits below their maximum, where the label is, and sum of exp.
struct CrossEntropy {
  Value z, at_label, sum;
  std::vector<int64_t> axis;
};

CrossEntropy cross_entropy_parts(const Value& logits, const Value& labels) {
  CrossEntropy p;
  const Value x = widened(logits);
  const int64_t last = x.rank() - 1;
  p.axis = {last};
  p.z = below_max(x, p.axis);
  const Value classes = iota({labels.dtype(), x.dims()}, last);
  p.at_label = eq(classes, unreduce(labels, x, p.axis));
  p.sum = reduce_sum(exp(p.z), p.axis);
  return p;
}

std::vector<Value> expand_cross_entropy(const Node& n) {
  const CrossEntropy p = cross_entropy_parts(n.input(0), n.input(1));
  const Value picked = reduce_sum(select(p.at_label, p.z, zeros_like(p.z)), p.axis);
  return {mean_of(sub(log(p.sum), picked))};
}

// d logits = (softmax - one_hot) dloss / n. A label out of range is in no class: its row's one_hot is zero.
std::vector<Value> cross_entropy_grad(const GradCtx& c) {
  const CrossEntropy p = cross_entropy_parts(c.in(0), c.in(1));
  const Value softmax = div(exp(p.z), unreduce(p.sum, p.z, p.axis));
  const Value one_hot = select(p.at_label, ones_like(p.z), zeros_like(p.z));
  const Value d = mul(sub(softmax, one_hot), share_of(c.dout[0], c.in(1), p.z.dims()));
  return {cast(d, c.in(0).dtype()), Value()};
}

std::vector<Type> infer_pair_loss(const InferCtx& c) {
  check_one_type(c);
  return {{wide_dtype(c.in[0].dtype), {}}};
}

std::vector<Value> expand_bce_with_logits(const Node& n) {
  const Value x = widened(n.input(0)), t = widened(n.input(1));
  return {mean_of(add(sub(relu(x), mul(x, t)), log1p(exp(neg(abs(x))))))};
}

// dx = (sigmoid(x) - t) dloss / n,  dt = -x dloss / n.
std::vector<Value> bce_with_logits_grad(const GradCtx& c) {
  const Value x = widened(c.in(0)), t = widened(c.in(1)),
              share = share_of(c.dout[0], c.in(0), c.in(0).dims());
  std::vector<Value> grads(2);
  if (c.needed[0]) grads[0] = cast(mul(sub(sigmoid(x), t), share), c.in(0).dtype());
  if (c.needed[1]) grads[1] = cast(neg(mul(x, share)), c.in(1).dtype());
  return grads;
}

std::vector<Value> expand_mse(const Node& n) {
  return {mean_of(square(sub(widened(n.input(0)), widened(n.input(1)))))};
}

Sample sample_cross_entropy(SampleRng& rng, Dtype dtype) {
  std::vector<int64_t> dims = draw_dims(rng, draw(rng, 0, 2), 5);
  const int64_t classes = draw(rng, 1, 6);
  const Dtype label = draw_index_dtype(rng);
  ir::Array labels = draw_array(rng, label, dims, 0, static_cast<double>(classes - 1));
  dims.push_back(classes);
  return {{draw_array(rng, dtype, dims, -4, 4), std::move(labels)}, {}, {}};
}

}  // namespace

constinit const OpDef cross_entropy_op{
    .name = "cross_entropy",
    .doc = "Mean of -log softmax(logits)[label]: (logits [..., classes], labels [...]) -> scalar.",
    .kind = Kind::composite,
    .arity = {2, 2},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<ir::NoAttrs>(),
    .infer = infer_cross_entropy,
    .grad = ir::rule(cross_entropy_grad),
    .expand = expand_cross_entropy,
    .scalar = {},
    .eval = nullptr,
    .sample = sample_cross_entropy,
};

constinit const OpDef bce_with_logits_op{
    .name = "bce_with_logits",
    .doc = "Mean binary cross-entropy of sigmoid(logits) against targets in [0, 1].",
    .kind = Kind::composite,
    .arity = {2, 2},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<ir::NoAttrs>(),
    .infer = infer_pair_loss,
    .grad = ir::rule(bce_with_logits_grad),
    .expand = expand_bce_with_logits,
    .scalar = {},
    .eval = nullptr,
    .sample = [](SampleRng& rng, Dtype dtype) -> Sample {
      const std::vector<int64_t> dims = draw_dims(rng, draw(rng, 0, 3), 5);
      return {{draw_array(rng, dtype, dims, -4, 4), draw_array(rng, dtype, dims, 0, 1)}, {}, {}};
    },
};

constinit const OpDef mse_op{
    .name = "mse",
    .doc = "Mean of (a - b)^2.",
    .kind = Kind::composite,
    .arity = {2, 2},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<ir::NoAttrs>(),
    .infer = infer_pair_loss,
    .grad = ir::by_expansion,
    .expand = expand_mse,
    .scalar = {},
    .eval = nullptr,
    .sample = [](SampleRng& rng, Dtype dtype) -> Sample {
      const std::vector<int64_t> dims = draw_dims(rng, draw(rng, 0, 3), 5);
      return {{draw_array(rng, dtype, dims), draw_array(rng, dtype, dims)}, {}, {}};
    },
};

Value cross_entropy(Value logits, Value labels) {
  return make(cross_entropy_op, {std::move(logits), std::move(labels)});
}
Value bce_with_logits(Value logits, Value targets) {
  return make(bce_with_logits_op, {std::move(logits), std::move(targets)});
}
Value mse(Value a, Value b) { return make(mse_op, {std::move(a), std::move(b)}); }

std::span<const OpDef* const> loss_ops() {
  static constexpr const OpDef* ops[] = {&cross_entropy_op, &bce_with_logits_op, &mse_op};
  return ops;
}

}  // namespace espalier::op
