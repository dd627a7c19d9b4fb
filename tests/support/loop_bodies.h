#pragma once
// Bodies of loops that were hard at some time, each with inputs: what every code generator must get right.
#include <array>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "op/activation.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/loss.h"
#include "op/norm.h"
#include "op/random.h"
#include "op/sampling.h"
#include "op/window.h"

namespace espalier::test {

using ir::Array;
using ir::Dtype;
using ir::Value;

/// Takes a body, its inputs, and how many times the usual tolerance its results may be off.
using CheckBody = std::function<void(const ir::Graph& body, const std::vector<Array>& inputs, double scale)>;

/// Bodies with one subject.
struct LoopBodies {
  const char* name;
  void (*make)(const CheckBody& check);
  struct Name {
    template <class Info>
    std::string operator()(const Info& info) const {
      return info.param.name;
    }
  };
};

namespace bodies {

using namespace op;  // NOLINT: bodies of ops
using Ints = std::vector<int64_t>;

struct BodyMaker {
  explicit BodyMaker(const CheckBody& check) : checker(check) {}
  const CheckBody& checker;
  std::vector<Value> inputs;
  std::vector<Array> data;
  std::mt19937_64 rng{7};

  Value in(Ints dims, Dtype dtype = Dtype::f32, double low = -2, double high = 2) {
    data.push_back(draw_array(rng, dtype, dims, low, high));
    inputs.push_back(ir::new_input("x" + std::to_string(inputs.size()), data.back().type()));
    return inputs.back();
  }
  void check(const std::vector<Value>& outputs, double scale = 1) const {
    ir::Graph body;
    body.inputs = inputs;
    for (size_t i = 0; i < outputs.size(); ++i) body.outputs.push_back({"y" + std::to_string(i), outputs[i]});
    checker(body, data, scale);
  }
};

inline void elementwise_broadcast_and_several_outputs(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({5, 7, 33}), b = c.in({33}), s = c.in({5, 7});
  const Value y = relu(add(mul(x, broadcast_in(s, {5, 7, 33}, {0, 1})), broadcast_to(b, {5, 7, 33})));
  c.check({y, exp(y), gt(y, x)});
}

inline void large_flat_body_in_chunks(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({64, 100, 77}), y = c.in({64, 100, 77});
  c.check({tanh(add(mul(x, y), exp(x)))});
}

inline void softmax_and_log_softmax(const CheckBody& check) {
  for (const Ints& dims : {Ints{9, 40}, Ints{3, 5, 1000}, Ints{70, 3}, Ints{4, 1}, Ints{1, 17}})
    for (int64_t axis = 0; axis < static_cast<int64_t>(dims.size()); ++axis) {
      BodyMaker c(check);
      const Value x = c.in(dims);
      c.check({softmax(x, axis), log_softmax(x, axis)}, 4);
    }
}

inline void layer_norm_with_statistics(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({37, 96}), g = c.in({96}), b = c.in({96});
  const Value mean = reduce_mean(x, {1});
  const Value centred = sub(x, unreduce(mean, x, {1}));
  const Value r = rsqrt(add(reduce_mean(square(centred), {1}), 1e-5));
  const Value y =
      add(mul(mul(centred, unreduce(r, x, {1})), broadcast_to(g, x.dims())), broadcast_to(b, x.dims()));
  c.check({y, mean, r}, 4);
}

inline void batch_statistics_of_many_rows(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({8, 20, 21, 48});
  const Value mean = reduce_mean(x, {0, 1, 2});
  const Value centred = sub(x, unreduce(mean, x, {0, 1, 2}));
  const Value var = reduce_mean(square(centred), {0, 1, 2});
  c.check({mul(centred, unreduce(rsqrt(add(var, 1e-5)), x, {0, 1, 2})), mean, var}, 8);
}

inline void full_reductions(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({300, 1001});
  c.check({reduce_sum(x, {0, 1}), reduce_max(x, {0, 1}),
           div(x, broadcast_to(reduce_sum(abs(x), {0, 1}), x.dims()))},
          20);
}

inline void sum_over_an_indivisible_long_axis(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({100003}), y = c.in({2, 50021, 3});
  c.check({reduce_sum(exp(x), {0}), reduce_sum(exp(y), {1})}, 40);
}

inline void group_norm_splits_channels(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({2, 6, 5, 24}), g = c.in({24}), b = c.in({24});
  c.check({group_norm(x, g, b, 4, 1e-5)}, 8);
}

inline void blocked_layout_and_back(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({2, 5, 6, 48});
  const Value blocked = transpose(reshape(x, {2, 5, 6, 3, 16}), {0, 3, 1, 2, 4});
  c.check({relu(blocked)});
  c.check({reshape(transpose(exp(blocked), {0, 2, 3, 1, 4}), {2, 5, 6, 48})});
}

inline void transposes(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({3, 33, 17, 5});
  c.check({transpose(x, {0, 3, 1, 2}), exp(transpose(x, {3, 2, 1, 0}))});
  BodyMaker d(check);
  const Value y = d.in({130, 70});
  d.check({add(transpose(y, {1, 0}), 1.0)});
}

inline void pad_concat_slice_reverse(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({3, 9, 20}), y = c.in({3, 4, 20});
  const Value both = concat({x, exp(y), neg(x)}, 1);
  const Value padded = pad(both, ir::constant(Dtype::f32, 3.5), {0, 1, 2}, {1, 0, 5});
  c.check({padded, slice(padded, {1, 2, 3}, {3, 10, 9}, {1, 2, 2}), reverse(both, {1, 2})});
  BodyMaker d(check);
  const Value a = d.in({6, 5, 12}), b = d.in({6, 5, 20});
  d.check({relu(concat({a, b}, 2)), reduce_sum(concat({a, b}, 2), {2})}, 2);
}

inline void interior_padding(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({4, 5, 6});
  c.check({pad(x, ir::constant(Dtype::f32, -1.0), {1, 0, 0}, {2, 0, 0}, {2, 0, 0})});
  c.check({pad(x, ir::constant(Dtype::f32, -1.0), {0, 0, 0}, {0, 1, 1}, {0, 1, 1})});
}

inline void embedding_and_one_hot(const CheckBody& check) {
  BodyMaker c(check);
  const Value table = c.in({11, 24}), ids = c.in({4, 3}, Dtype::i64, -2, 13),
              small = c.in({4, 3}, Dtype::i32, 0, 10);
  c.check({gather(table, ids, 0), gather(table, small, 0), one_hot(ids, 12, Dtype::f32),
           gather(transpose(table, {1, 0}), small, 1)});
}

inline void cross_entropy_of_labels(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({19, 10}), labels = c.in({19}, Dtype::i64, 0, 9);
  const Value picked = reduce_sum(mul(log_softmax(x, 1), one_hot(labels, 10, Dtype::f32)), {1});
  c.check({neg(reduce_mean(picked, {0})), sub(softmax(x, 1), one_hot(labels, 10, Dtype::f32))}, 8);
}

inline void arg_reductions_with_nan_and_ties(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({13, 50}, Dtype::f32, -1, 1);
  float* v = const_cast<float*>(c.data[0].data<float>());
  v[7] = std::nanf(""), v[70] = v[80] = 9, v[111] = std::nanf(""), v[120] = std::nanf("");
  c.check({argmax(x, 1), argmin(x, 1), argmax(x, 0), reduce_max(x, {1}), reduce_min(x, {0})});
}

inline void small_products(const CheckBody& check) {
  const auto linear = [&](int64_t m, int64_t k, int64_t n, Dtype dtype) {
    BodyMaker c(check);
    const Value x = c.in({m, k}, dtype), w = c.in({k, n}, dtype), b = c.in({n}, dtype);
    const Value y = matmul(x, w);
    c.check({relu(add(y, broadcast_to(b, y.dims())))}, 8);
  };
  for (const auto& [m, k, n] :
       {std::array<int64_t, 3>{32, 10, 1}, {1, 30, 128}, {1, 64, 1}, {7, 5, 33}, {6, 64, 64}, {13, 17, 16}})
    for (Dtype d : {Dtype::f32, Dtype::bf16, Dtype::f64}) linear(m, k, n, d);
}

inline void products_of_any_contraction(const CheckBody& check) {
  BodyMaker c(check);
  const Value a = c.in({3, 7, 12}), b = c.in({3, 5, 12});
  op::DotAttrs attrs;
  attrs.batch_a = attrs.batch_b = {0};
  attrs.contract_a = attrs.contract_b = {2};
  c.check({dot(a, b, attrs)}, 8);
  attrs.contract_a = {1};
  attrs.contract_b = {1};
  BodyMaker d(check);
  const Value x = d.in({3, 9, 12}), y = d.in({3, 9, 5});
  d.check({softmax(dot(x, y, attrs), 2)}, 16);
}

inline void a_whole_small_step(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({32, 10}), w = c.in({10, 1}), b = c.in({1}), t = c.in({32, 1});
  const Value e = sub(add(matmul(x, w), broadcast_to(b, {32, 1})), t);
  const Value loss = reduce_mean(square(e), {0, 1});
  const Value d = mul(e, 2.0 / 32);
  c.check({loss, sub(w, mul(matmul(transpose(x, {1, 0}), d), 0.1)), sub(b, mul(reduce_sum(d, {0}), 0.1))}, 8);
}

inline void resizing_both_ways(const CheckBody& check) {
  for (const auto& [in, out] :
       {std::array<int64_t, 2>{7, 14}, {5, 13}, {12, 5}, {1, 9}, {9, 1}, {4, 4}, {6, 24}})
    for (const ResizeMode mode : {ResizeMode::nearest, ResizeMode::linear})
      for (const bool align : {false, true}) {
        BodyMaker c(check);
        const Value x = c.in({2, in, 3, 20}), dy = c.in({2, out, 6, 20});
        c.check({resize(x, {{out, 6}, mode, align}), resize_grad(dy, {{in, 3}, mode, align})}, 2);
      }
}

inline void empty_and_single_dims(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({0, 5}), y = c.in({1, 1, 9}), z = c.in({4, 0});
  c.check({exp(x), reduce_sum(x, {0}), reduce_max(z, {1}), reduce_sum(y, {0, 2}), softmax(y, 1)});
}

inline void f16_bf16_round_as_stated(const CheckBody& check) {
  BodyMaker c(check);
  const Value x = c.in({3, 45}, Dtype::bf16), y = c.in({3, 45}, Dtype::f16);
  c.check({cast(x, Dtype::f32), cast(mul(cast(x, Dtype::f32), 1.01), Dtype::bf16), cast(y, Dtype::bf16),
           cast(mul(cast(x, Dtype::f32), 1.7), Dtype::f16)});
}

/// What 16 bits have too few for, compared with its own extreme, which one nest stores and another loads; and what is widened.
inline void extremes_of_sums_that_round(const CheckBody& check) {
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
    BodyMaker c(check);
    const Value a = c.in({24, 40}, dtype), b = c.in({24, 40}, dtype), x = add(a, b), y = mul(a, b);
    const Value rows = reduce_max(x, {1}), columns = reduce_min(x, {0});
    c.check({rows, columns, eq(x, unreduce(rows, x, {1})), eq(x, unreduce(columns, x, {0})), argmax(x, 1)});
    c.check({ge(x, y), max(x, y), cast(x, Dtype::f32)});
    const Value wide = cast(x, Dtype::f32), most = reduce_max(wide, {1}), least = reduce_min(wide, {0});
    c.check({most, least, eq(wide, unreduce(most, x, {1})), eq(wide, unreduce(least, x, {0}))});
  }
}

/// Long folds in parts, the last of which is shorter; no element is beyond what stands for none.
inline void extremes_of_a_prime_number_of_integers(const CheckBody& check) {
  for (const Dtype dtype : {Dtype::i64, Dtype::i32, Dtype::i8, Dtype::u8, Dtype::f32}) {
    BodyMaker c(check);
    const bool is_unsigned = dtype == Dtype::u8;
    const Value below = c.in({100003}, dtype, is_unsigned ? 0 : -100, is_unsigned ? 7 : -3),
                above = c.in({100003}, dtype, 5, 100);
    c.check({reduce_max(below, {0}), reduce_min(above, {0})});
  }
}

}  // namespace bodies

inline constexpr LoopBodies loop_bodies[] = {
    {"elementwise_broadcast_and_several_outputs", bodies::elementwise_broadcast_and_several_outputs},
    {"large_flat_body_in_chunks", bodies::large_flat_body_in_chunks},
    {"softmax_and_log_softmax", bodies::softmax_and_log_softmax},
    {"layer_norm_with_statistics", bodies::layer_norm_with_statistics},
    {"batch_statistics_of_many_rows", bodies::batch_statistics_of_many_rows},
    {"full_reductions", bodies::full_reductions},
    {"sum_over_an_indivisible_long_axis", bodies::sum_over_an_indivisible_long_axis},
    {"group_norm_splits_channels", bodies::group_norm_splits_channels},
    {"blocked_layout_and_back", bodies::blocked_layout_and_back},
    {"transposes", bodies::transposes},
    {"pad_concat_slice_reverse", bodies::pad_concat_slice_reverse},
    {"interior_padding", bodies::interior_padding},
    {"embedding_and_one_hot", bodies::embedding_and_one_hot},
    {"cross_entropy_of_labels", bodies::cross_entropy_of_labels},
    {"arg_reductions_with_nan_and_ties", bodies::arg_reductions_with_nan_and_ties},
    {"small_products", bodies::small_products},
    {"products_of_any_contraction", bodies::products_of_any_contraction},
    {"a_whole_small_step", bodies::a_whole_small_step},
    {"resizing_both_ways", bodies::resizing_both_ways},
    {"empty_and_single_dims", bodies::empty_and_single_dims},
    {"f16_bf16_round_as_stated", bodies::f16_bf16_round_as_stated},
    {"extremes_of_sums_that_round", bodies::extremes_of_sums_that_round},
    {"extremes_of_a_prime_number_of_integers", bodies::extremes_of_a_prime_number_of_integers},
};

}  // namespace espalier::test
