// Ops of ONNX that transformers are made of, as composites of ours.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "format/onnx_import.h"
#include "op/activation.h"
#include "op/axes.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/reduction.h"

namespace espalier::format {

using ir::Dim;
using ir::Dims;
using ir::Dtype;
using ir::Value;
using op::at;

namespace {

/// x / sqrt(mean(x^2) + eps) * scale over the axes from `axis` on; the norm in f32 at least.
Results read_rms_norm(Use& u) {
  const Value x = u.value(0);
  const int64_t axis = u.axis(u.integer("axis", -1), x.rank());
  const double eps = u.real("epsilon", 1e-5);
  if (u.integer("stash_type", 1) != 1)
    u.fail("stash_type is not supported", std::to_string(u.integer("stash_type", 1)), "1");
  Ints axes;
  for (int64_t i = axis; i < x.rank(); ++i) axes.push_back(i);
  const Value normal = in_f32_at_least(x, [&](const Value& v) {
    const Value inverse = op::rsqrt(op::add(op::reduce_mean(op::square(v), axes), eps));
    return op::mul(v, op::unreduce(inverse, v, axes));
  });
  return {held(op::mul(normal, stretched(u.value(1), x.dims())))};
}

int64_t known(const Use& u, const Value& x, int64_t axis) {
  const Dim d = x.dims()[at(axis)];
  if (!d.is_static())
    u.fail("a symbolic dim is not supported here", x.type().text(), "symbols bound when loading");
  return d.value();
}

/// [N, S, heads * size] as [N, heads, S, size].
Value split_heads(const Use& u, const Value& x, int64_t heads) {
  const int64_t width = known(u, x, 2);
  if (heads < 1 || width % heads != 0)
    u.fail("the heads do not divide the width", std::to_string(heads), std::to_string(width));
  return transposed(reshaped(x, {x.dims()[0], x.dims()[1], heads, width / heads}), {0, 2, 1, 3});
}
Value merged_heads(const Value& x) {
  const Dims& d = x.dims();
  return reshaped(transposed(x, {0, 2, 1, 3}), {d[0], d[2], d[1] * d[3]});
}

/// Pairs (a, b) of the first elements of each head turned by the angles of their positions.
Results read_rotary_embedding(Use& u) {
  Value x = u.value(0), cos = u.value(1), sin = u.value(2);
  const int64_t heads = u.integer("num_heads", 0);
  const bool interleaved = u.integer("interleaved", 0) != 0, flat = x.rank() == 3;
  if (x.rank() != 3 && x.rank() != 4) u.fail("the input is of another rank", x.type().text(), "rank 3 or 4");
  if (flat) x = split_heads(u, x, heads);
  const int64_t size = known(u, x, 3), given = u.integer("rotary_embedding_dim", 0);
  const int64_t turned = given == 0 ? size : given, half = turned / 2;
  if (turned < 2 || turned > size || turned % 2 != 0)
    u.fail("rotary_embedding_dim is out of range", std::to_string(turned),
           fmt::format("2 to {}, even", size));
  if (u.has(3)) {
    const Value positions = op::cast(u.value(3), Dtype::i64);
    cos = op::gather(cos, positions, 0), sin = op::gather(sin, positions, 0);
  }
  const Dims each{x.dims()[0], x.dims()[2], half};
  for (const Value& v : {cos, sin})
    if (v.dims() != each) u.fail("the angles do not fit", v.type().text(), dims_text(each));
  Dims pairs = x.dims();
  pairs[3] = half;
  const Value c = op::broadcast_in(cos, pairs, {0, 2, 3}), s = op::broadcast_in(sin, pairs, {0, 2, 3});
  const int64_t step = interleaved ? 2 : 1;
  const auto part = [&](int64_t from) { return op::slice(x, {0, 0, 0, from}, pairs, {1, 1, 1, step}); };
  const Value a = part(0), b = part(interleaved ? 1 : half);
  Value first = op::sub(op::mul(c, a), op::mul(s, b)), second = op::add(op::mul(s, a), op::mul(c, b));
  Dims all = pairs;
  all[3] = turned;
  if (interleaved) {
    pairs.emplace_back(1);
    first = reshaped(first, pairs), second = reshaped(second, pairs);
  }
  Value y = reshaped(op::concat({first, second}, interleaved ? 4 : 3), all);
  if (turned < size) y = op::concat({y, op::slice_axis(x, 3, turned, size - turned)}, 3);
  return {held(flat ? merged_heads(y) : y)};
}

/// Heads of keys and values, each repeated for its group of query heads.
Value for_query_heads(const Use& u, const Value& x, int64_t heads) {
  const int64_t own = known(u, x, 1);
  if (own == heads) return x;
  if (own < 1 || heads % own != 0)
    u.fail("the heads of queries and keys do not fit", std::to_string(heads), std::to_string(own));
  const Dims& d = x.dims();
  return reshaped(op::broadcast_in(x, {d[0], own, heads / own, d[2], d[3]}, {0, 1, 3, 4}),
                  {d[0], heads, d[2], d[3]});
}

/// Which keys each query may see by its position, for scores [N, heads, queries, keys]; empty where every one.
Value visible(Use& u, const Value& scores, int64_t past) {
  const bool causal = u.integer("is_causal", 0) != 0, counted = u.has(6);
  constexpr int64_t everything = int64_t{1} << 40;  // no axis is longer
  const int64_t left = std::min(u.integer("left_window_size", -1), everything),
                right = std::min(u.integer("right_window_size", -1), everything);
  if (!causal && !counted && left < 0 && right < 0) return {};
  const Dim queries = known(u, scores, 2), keys = known(u, scores, 3);
  const Dims dims = counted ? Dims{scores.dims()[0], queries, keys} : Dims{queries, keys};
  const auto rank = static_cast<int64_t>(dims.size());
  const Value key = op::iota({Dtype::i64, dims}, rank - 1), query = op::iota({Dtype::i64, dims}, rank - 2);
  const auto limit = [&](int64_t n) { return op::full_like(key, static_cast<double>(n)); };
  Value distance = op::sub(op::sub(key, query), limit(past)), seen;
  const auto demand = [&](const Value& condition) {
    seen = seen ? op::logical_and(seen, condition) : condition;
  };
  if (counted) {
    const Value count = u.value(6);
    if (count.rank() != 1) u.fail("nonpad_kv_seqlen is no vector", count.type().text(), "[batch]");
    const Value valid = stretched(op::cast(count, Dtype::i64), dims, {0});
    demand(op::lt(key, valid));
    distance = op::sub(op::sub(key, query), op::sub(valid, limit(queries.value())));
  }
  if (causal) demand(op::le(distance, limit(0)));
  if (left >= 0) demand(op::ge(distance, limit(-left)));
  if (right >= 0) demand(op::le(distance, limit(right)));
  return stretched(seen, scores.dims(), counted ? Ints{0, 2, 3} : Ints{2, 3});
}

/// A mask as what is added to the scores; keys behind its end are hidden.
Value as_bias(const Use& u, Value mask, const Value& scores, const Value& zero, const Value& none) {
  const bool is_bool = mask.dtype() == Dtype::boolean;
  if (mask.rank() < 1) u.fail("the mask is a scalar", mask.type().text(), "at least one axis");
  const int64_t width = known(u, mask, mask.rank() - 1);
  if (const int64_t missing = known(u, scores, 3) - width; missing > 0) {
    Ints low(at(mask.rank()), 0), high(at(mask.rank()), 0);
    high.back() = missing;
    const double fill = is_bool ? 0 : -std::numeric_limits<double>::infinity();
    mask = op::pad(mask, ir::constant(mask.dtype(), fill), low, high);
  }
  const Value wide = stretched(mask, scores.dims());
  return is_bool ? op::select(wide, zero, none) : op::cast(wide, scores.dtype());
}

/// softmax(scale * Q K^T + mask) V for heads; rows that see no key give zeros.
Results read_attention(Use& u) {
  if (u.has(4) != u.has(5)) u.fail("past_key and past_value come together");
  if (u.has(4) && u.has(6)) u.fail("past_key and nonpad_kv_seqlen exclude each other");
  u.ignore("softmax_precision");  // f32 at least, as all scores here
  const int64_t shown = u.integer("qk_matmul_output_mode", 0);
  if (shown < 0 || shown > 3)
    u.fail("qk_matmul_output_mode is out of range", std::to_string(shown), "0 to 3");
  Value q = u.value(0), k = u.value(1), v = u.value(2);
  const bool flat = q.rank() == 3;
  for (const Value& x : {q, k, v})
    if (x.rank() != q.rank() || (x.rank() != 3 && x.rank() != 4))
      u.fail("an operand is of another rank", x.type().text(), "rank 3 or 4, all the same");
  const int64_t q_heads = u.integer("q_num_heads", 0), kv_heads = u.integer("kv_num_heads", 0);
  if (flat) q = split_heads(u, q, q_heads), k = split_heads(u, k, kv_heads), v = split_heads(u, v, kv_heads);
  int64_t past = 0;
  if (u.has(4)) {
    past = known(u, u.value(4), 2);
    k = op::concat({u.value(4), k}, 2), v = op::concat({u.value(5), v}, 2);
  }
  const int64_t heads = known(u, q, 1), size = known(u, q, 3);
  const double scale = u.real("scale", 1 / std::sqrt(static_cast<double>(size))),
               softcap = u.real("softcap", 0);
  const Dtype dtype = q.dtype();
  const bool narrow = dtype == Dtype::f16 || dtype == Dtype::bf16;
  const Value keys = transposed(for_query_heads(u, k, heads), {0, 1, 3, 2});
  Value scores = op::matmul(q, keys);
  if (narrow) scores = op::cast(scores, Dtype::f32);
  scores = op::mul(scores, scale);
  const Value capped = softcap == 0 ? scores : op::mul(op::tanh(op::div(scores, softcap)), softcap);
  const Value none = op::full_like(scores, -std::numeric_limits<double>::infinity());
  const Value zero = op::zeros_like(scores);
  Value bias = u.has(3) ? as_bias(u, u.value(3), scores, zero, none) : Value();
  if (const Value seen = visible(u, scores, past)) bias = op::select(seen, bias ? bias : zero, none);
  const Value biased = bias ? op::add(capped, bias) : capped;
  Value shares = op::softmax(biased, 3);
  if (bias) {
    const Value most = op::unreduce(op::reduce_max(bias, {3}), bias, {3});
    shares = op::select(op::eq(most, none), zero, shares);
  }
  const Value y = op::matmul(op::cast(shares, dtype), for_query_heads(u, v, heads));
  return {held(flat ? merged_heads(y) : y), held(k), held(v),
          held(op::cast(std::array{scores, capped, biased, shares}[at(shown)], dtype))};
}

constexpr ReadRow transformer_table[] = {
    {"RMSNormalization", 23, newest_opset, 2, 2, read_rms_norm},
    {"RotaryEmbedding", 23, newest_opset, 3, 4, read_rotary_embedding},
    {"Attention", 23, newest_opset, 3, 7, read_attention},
};

}  // namespace

std::span<const ReadRow> transformer_rows() { return transformer_table; }

}  // namespace espalier::format
