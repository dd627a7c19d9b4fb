#include "op/random.h"

#include "base/philox.h"
#include "op/infer.h"
#include "op/sampling.h"
#include "op/table.h"

namespace espalier::op {

using ir::Array;
using ir::Dtype;
using ir::EvalCtx;
using ir::InferCtx;
using ir::make;
using ir::OpDef;
using ir::Sample;
using ir::SampleRng;
using ir::Type;

namespace {

std::vector<Type> infer_random(const InferCtx& c) {
  const Type& t = c.attrs.get<RandomAttrs>().type;
  const Type scalar{Dtype::i64, {}};
  if (c.in[0] != scalar || c.in[1] != scalar)
    c.fail("key and counter must be scalars", scalar.text() + " both");
  if (!is_float(t.dtype)) c.fail("random numbers are floats", "f64 f32 bf16 f16", t.text());
  check_dims(c, t.dims);
  return {t};
}

/// f(block number) -> the block, under the draw's key, stream and counter.
auto blocks_of(const EvalCtx& c) {
  const auto seed = static_cast<uint64_t>(c.in[0].data<int64_t>()[0]);
  const uint64_t key = philox_stream_key(seed, static_cast<uint64_t>(c.attrs<RandomAttrs>().stream));
  return [key, counter = static_cast<uint64_t>(c.in[1].data<int64_t>()[0])](int64_t block) {
    return philox4x32(key, static_cast<uint64_t>(block), counter);
  };
}

/// Fill by element: small(block, i) of 4 elements a block in f32, large(block, i) of 2 a block in f64.
template <class Small, class Large>
std::vector<Array> draw_all(const EvalCtx& c, Small&& small, Large&& large) {
  Array out(c.attrs<RandomAttrs>().type.dtype, ir::static_dims(c.node.types()[0].dims));
  const auto block = blocks_of(c);
  const int64_t per_block = out.dtype() == Dtype::f64 ? 2 : 4;
  for (int64_t at = 0; at < out.size(); at += per_block) {
    const PhiloxBlock words = block(at / per_block);
    for (int64_t i = 0; i < per_block && at + i < out.size(); ++i)
      out.set(at + i, per_block == 2 ? large(words, i) : static_cast<double>(small(words, i)));
  }
  return {out};
}

std::vector<Array> eval_uniform(const EvalCtx& c) {
  const Dtype dtype = c.attrs<RandomAttrs>().type.dtype;
  const int bits = dtype == Dtype::bf16 ? 8 : dtype == Dtype::f16 ? 11 : 24;
  return draw_all(
      c, [&](const PhiloxBlock& w, int64_t i) { return uniform_of(w[static_cast<size_t>(i)], bits); },
      [](const PhiloxBlock& w, int64_t i) {
        return uniform53(w[static_cast<size_t>(2 * i)], w[static_cast<size_t>(2 * i + 1)]);
      });
}

std::vector<Array> eval_normal(const EvalCtx& c) {
  return draw_all(
      c,
      [](const PhiloxBlock& w, int64_t i) {
        const size_t pair = static_cast<size_t>(i / 2 * 2);
        return normal_pair(w[pair], w[pair + 1])[static_cast<size_t>(i % 2)];
      },
      [](const PhiloxBlock& w, int64_t i) { return normal_pair(w)[static_cast<size_t>(i)]; });
}

Sample sample_random(SampleRng& rng, Dtype) {
  const Type type{static_cast<Dtype>(draw(rng, 0, 3)), ir::to_dims(draw_dims(rng, draw(rng, 0, 3), 5))};
  return {{Array::of<int64_t>({}, {draw(rng, -1000, 1000)}), Array::of<int64_t>({}, {draw(rng, 0, 1000)})},
          RandomAttrs{type, draw(rng, 0, 9)},
          {}};
}

constexpr OpDef random_record(std::string_view name, std::string_view doc, ir::EvalFn eval) {
  return {.name = name,
          .doc = doc,
          .kind = ir::Kind::random,
          .arity = {2, 2},
          .dtypes = ir::dtype_set(Dtype::i64),
          .attrs = ir::attr_type<RandomAttrs>(),
          .infer = infer_random,
          .grad = ir::not_differentiable,
          .expand = nullptr,
          .scalar = {},
          .eval = eval,
          .sample = sample_random};
}

}  // namespace

constinit const OpDef random_uniform_op =
    random_record("random_uniform",
                  "Uniform in [0, 1) from (key, counter): multiples of 2^-p, p the significand's bits (f32: "
                  "24, f16: 11, bf16: 8, f64: 53).",
                  eval_uniform);
constinit const OpDef random_normal_op = random_record(
    "random_normal", "Standard normal from (key, counter) by Box and Muller's method.", eval_normal);

std::span<const OpDef* const> random_ops() {
  static constexpr const OpDef* ops[] = {&random_uniform_op, &random_normal_op};
  return ops;
}

Value random_uniform(Value key, Value counter, Type type, int64_t stream) {
  return make(random_uniform_op, {std::move(key), std::move(counter)}, RandomAttrs{std::move(type), stream});
}
Value random_normal(Value key, Value counter, Type type, int64_t stream) {
  return make(random_normal_op, {std::move(key), std::move(counter)}, RandomAttrs{std::move(type), stream});
}

}  // namespace espalier::op
