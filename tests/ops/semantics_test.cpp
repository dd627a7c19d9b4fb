// What the ops mean, in numbers worked out by hand: NaN, infinities, ties, wrapping, empty axes, rounding.
#include <cmath>
#include <limits>

#include "base/philox.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/movement.h"
#include "op/random.h"
#include "op/reduction.h"
#include "op/table.h"
#include "support/arrays.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dim;
using ir::Dims;
using ir::Dtype;
using ir::Type;
using ir::Value;

constexpr double inf = std::numeric_limits<double>::infinity();
const double nan = std::nan("");

Array array(Dtype dtype, std::vector<int64_t> dims, std::vector<double> values) {
  Array a(dtype, std::move(dims));
  EXPECT_EQ(a.size(), static_cast<int64_t>(values.size()));
  for (int64_t i = 0; i < a.size(); ++i) a.set(i, values[static_cast<size_t>(i)]);
  return a;
}
Array row(Dtype dtype, std::vector<double> values) {
  const auto n = static_cast<int64_t>(values.size());
  return array(dtype, {n}, std::move(values));
}

Value in(const Array& a) { return ir::constant(a); }

Array eval(const Value& v) {
  ir::Graph g;
  g.outputs.push_back({"y", v});
  return target::reference::evaluate(g, {})[0];
}

std::vector<double> values(const Value& v) {
  const Array a = eval(v);
  std::vector<double> out;
  for (int64_t i = 0; i < a.size(); ++i) out.push_back(a.at(i));
  return out;
}

#define EXPECT_VALUES(value, ...) \
  test::expect_close(eval(value), array((value).dtype(), eval(value).dims(), __VA_ARGS__), {})

TEST(Semantics, NanPropagatesThroughMaxAndMinAndComparesFalse) {
  for (const Dtype d : {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16}) {
    const Value a = in(row(d, {nan, 1, nan, -inf, 2})), b = in(row(d, {1, nan, nan, inf, 2}));
    EXPECT_VALUES(op::max(a, b), {nan, nan, nan, inf, 2});
    EXPECT_VALUES(op::min(a, b), {nan, nan, nan, -inf, 2});
    EXPECT_VALUES(op::eq(a, b), {0, 0, 0, 0, 1});
    EXPECT_VALUES(op::ne(a, b), {1, 1, 1, 1, 0});
    EXPECT_VALUES(op::lt(a, b), {0, 0, 0, 1, 0});
    EXPECT_VALUES(op::ge(a, b), {0, 0, 0, 0, 1});
    EXPECT_VALUES(op::is_nan(a), {1, 0, 1, 0, 0});
    EXPECT_VALUES(op::relu(a), {nan, 1, nan, 0, 2});
    EXPECT_VALUES(op::clamp(a, in(row(d, {0, 0, 0, 0, 0})), in(row(d, {1, 1, 1, 1, 1}))),
                  {nan, 1, nan, 0, 1});
    EXPECT_VALUES(op::sign(a), {nan, 1, nan, -1, 1});
  }
}

TEST(Semantics, NanInAnyOperandOfArithmeticGivesNan) {
  for (const ir::OpDef* op : op::elementwise_ops()) {
    if (!op->dtypes.has(Dtype::f32) || !op->scalar || op == &op::pow_op) continue;  // pow(x, 0) is 1
    for (const Dtype d : {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16})
      for (int k = 0; k < op->arity.max; ++k) {
        std::vector<Value> operands(static_cast<size_t>(op->arity.max), in(row(d, {1, 0.5, -3, inf})));
        operands[static_cast<size_t>(k)] = in(row(d, {nan, nan, nan, nan}));
        const Value y = make(*op, operands);
        if (!is_float(y.dtype())) continue;
        EXPECT_VALUES(y, {nan, nan, nan, nan});
      }
  }
}

TEST(Semantics, ActivationsAtTheEnds) {
  const Value x = in(row(Dtype::f32, {-inf, -1000, 0, 1000, inf}));
  EXPECT_VALUES(op::sigmoid(x), {0, 0, 0.5, 1, 1});
  EXPECT_VALUES(op::softplus(x), {0, 0, 0.6931471805599453, 1000, inf});
  EXPECT_VALUES(op::tanh(x), {-1, -1, 0, 1, 1});
  EXPECT_VALUES(op::erf(x), {-1, -1, 0, 1, 1});
}

TEST(Semantics, RoundingIsToEven) {
  const Value x = in(row(Dtype::f32, {0.5, 1.5, 2.5, -0.5, -1.5, 2.6}));
  EXPECT_VALUES(op::round(x), {0, 2, 2, -0.0, -2, 3});
  EXPECT_VALUES(op::trunc(x), {0, 1, 2, -0.0, -1, 2});
  EXPECT_VALUES(op::floor(x), {0, 1, 2, -1, -2, 2});
  EXPECT_VALUES(op::ceil(x), {1, 2, 3, -0.0, -1, 3});
  // bf16 keeps 8 bits: 257 lies halfway between 256 and 258, 259 between 258 and 260.
  EXPECT_VALUES(op::cast(in(row(Dtype::f32, {257, 259})), Dtype::bf16), {256, 260});
  EXPECT_VALUES(op::add(in(row(Dtype::bf16, {256, 256})), in(row(Dtype::bf16, {1, 3}))), {256, 260});
}

TEST(Semantics, IntegersWrapAndDivideByZeroToZero) {
  EXPECT_VALUES(op::add(in(row(Dtype::i8, {127, -128})), in(row(Dtype::i8, {1, -1}))), {-128, 127});
  EXPECT_VALUES(op::mul(in(row(Dtype::u8, {16, 255})), in(row(Dtype::u8, {16, 255}))), {0, 1});
  EXPECT_VALUES(op::neg(in(row(Dtype::u8, {1, 0}))), {255, 0});
  EXPECT_VALUES(op::abs(in(row(Dtype::i8, {-128, -5}))), {-128, 5});
  const double lowest = -2147483648.0;
  EXPECT_VALUES(op::div(in(row(Dtype::i32, {7, -7, 7, lowest})), in(row(Dtype::i32, {2, 2, 0, -1}))),
                {3, -3, 0, lowest});
  EXPECT_VALUES(op::rem(in(row(Dtype::i32, {7, -7, 7, lowest})), in(row(Dtype::i32, {4, 4, 0, -1}))),
                {3, -3, 0, 0});
  EXPECT_VALUES(op::rem(in(row(Dtype::f32, {7.5, -7.5})), in(row(Dtype::f32, {2, 2}))), {1.5, -1.5});
  EXPECT_VALUES(op::pow(in(row(Dtype::i32, {3, 2, 2, -1, 0})), in(row(Dtype::i32, {4, 32, -1, -3, 0}))),
                {81, 0, 0, -1, 1});
  const int64_t big = std::numeric_limits<int64_t>::max();
  const Value b = in(Array::of<int64_t>({1}, {big})), one = in(Array::of<int64_t>({1}, {int64_t{1}}));
  EXPECT_EQ(eval(op::add(b, one)).data<int64_t>()[0], std::numeric_limits<int64_t>::min());
  EXPECT_EQ(eval(op::reduce_sum(op::concat({b, one}, 0), {0})).data<int64_t>()[0],
            std::numeric_limits<int64_t>::min());
  EXPECT_TRUE(eval(op::gt(b, op::sub(b, one))).data<bool>()[0]) << "i64 compares exactly";
}

TEST(Semantics, BitsAndShifts) {
  const Value a = in(row(Dtype::i8, {12, -1, 1})), b = in(row(Dtype::i8, {10, 1, 8}));
  EXPECT_VALUES(op::logical_and(a, b), {8, 1, 0});
  EXPECT_VALUES(op::logical_or(a, b), {14, -1, 9});
  EXPECT_VALUES(op::logical_xor(a, b), {6, -2, 9});
  EXPECT_VALUES(op::logical_not(a), {-13, 0, -2});
  EXPECT_VALUES(op::logical_not(in(row(Dtype::u8, {0, 255}))), {255, 0});
  EXPECT_VALUES(op::shift_left(a, b), {0, -2, 0});
  EXPECT_VALUES(op::shift_right(in(row(Dtype::i8, {-8, 64, 64})), in(row(Dtype::i8, {1, 3, 9}))), {-4, 8, 0});
  const Value t = in(row(Dtype::boolean, {0, 0, 1, 1})), u = in(row(Dtype::boolean, {0, 1, 0, 1}));
  EXPECT_VALUES(op::logical_not(t), {1, 1, 0, 0});
  EXPECT_VALUES(op::logical_xor(t, u), {0, 1, 1, 0});
  EXPECT_VALUES(op::max(t, u), {0, 1, 1, 1});
  EXPECT_VALUES(op::min(t, u), {0, 0, 0, 1});
  EXPECT_VALUES(op::lt(t, u), {0, 1, 0, 0});
}

TEST(Semantics, CastsSaturateTruncateAndWrap) {
  EXPECT_VALUES(op::cast(in(row(Dtype::f32, {nan, inf, -inf, 300, -300, 2.9, -2.9})), Dtype::i8),
                {0, 127, -128, 127, -128, 2, -2});
  EXPECT_VALUES(op::cast(in(row(Dtype::f64, {-1, 256, 1e300})), Dtype::u8), {0, 255, 255});
  EXPECT_VALUES(op::cast(in(row(Dtype::i32, {300, -1, 128})), Dtype::u8), {44, 255, 128});
  EXPECT_VALUES(op::cast(in(row(Dtype::i32, {300, -1, 128})), Dtype::i8), {44, -1, -128});
  EXPECT_VALUES(op::cast(in(row(Dtype::f32, {0, -0.0, 0.25, nan})), Dtype::boolean), {0, 0, 1, 1});
  EXPECT_VALUES(op::cast(in(row(Dtype::i32, {0, 256})), Dtype::boolean), {0, 1});
  EXPECT_VALUES(op::cast(in(row(Dtype::f32, {70000, 1e-9})), Dtype::f16), {inf, 0});
  // Rounded once: by way of f64 this would be 2^60.
  const int64_t between = (int64_t{1} << 60) + (int64_t{1} << 36) + 1;
  EXPECT_EQ(eval(op::cast(in(Array::of<int64_t>({}, {between})), Dtype::f32)).data<float>()[0],
            0x1p60f + 0x1p37f);
}

TEST(Semantics, ReductionsOverNothing) {
  for (const Dtype d : {Dtype::f32, Dtype::bf16, Dtype::f64}) {
    const Value x = in(Array(d, {2, 0}));
    EXPECT_VALUES(op::reduce_sum(x, {1}), {0, 0});
    EXPECT_VALUES(op::reduce_prod(x, {1}), {1, 1});
    EXPECT_VALUES(op::reduce_max(x, {1}), {-inf, -inf});
    EXPECT_VALUES(op::reduce_min(x, {1}), {inf, inf});
    EXPECT_EQ(eval(op::reduce_sum(x, {0})).size(), 0);
    EXPECT_VALUES(op::reduce_mean(x, {1}), {nan, nan});
  }
  EXPECT_VALUES(op::reduce_max(in(Array(Dtype::i8, {0})), {0}), {-128});
  EXPECT_VALUES(op::reduce_min(in(Array(Dtype::u8, {0})), {0}), {255});
  EXPECT_VALUES(op::reduce_max(in(Array(Dtype::boolean, {0})), {0}), {0});
  EXPECT_VALUES(op::reduce_min(in(Array(Dtype::boolean, {0})), {0}), {1});
  EXPECT_THROW(op::argmax(in(Array(Dtype::f32, {2, 0})), 1), UserError);
}

TEST(Semantics, Reductions) {
  const Value x = in(array(Dtype::f32, {2, 3}, {1, 5, 5, nan, -2, 7}));
  EXPECT_VALUES(op::reduce_max(x, {1}), {5, nan});
  EXPECT_VALUES(op::reduce_min(x, {0}), {nan, -2, 5});
  EXPECT_VALUES(op::argmax(x, 1), {1, 0});
  EXPECT_VALUES(op::argmin(x, 1), {0, 0});
  EXPECT_VALUES(op::argmax(in(row(Dtype::f32, {3, nan, nan, 9})), 0), {1});
  EXPECT_VALUES(op::reduce_sum(in(array(Dtype::i32, {2, 3}, {1, 2, 3, 4, 5, 6})), {0, 1}), {21});
  EXPECT_VALUES(op::reduce_sum(in(array(Dtype::u8, {2}, {200, 100})), {0}), {44});
  EXPECT_VALUES(op::reduce_prod(in(array(Dtype::i32, {2, 2}, {1, 2, 3, 4})), {1}), {2, 12});
  EXPECT_EQ(op::reduce_sum(x, {}), x);
  // A long bf16 sum accumulates wide: 1 + 1 + ... stops at 256 where it is rounded at every step.
  EXPECT_VALUES(op::reduce_sum(in(Array::full(Dtype::bf16, {1000}, 1)), {0}), {1000});
  EXPECT_VALUES(op::reduce_mean(in(Array::full(Dtype::f16, {4000}, 50)), {0}), {50});
}

TEST(Semantics, Movement) {
  const Value x = in(array(Dtype::i32, {2, 3}, {1, 2, 3, 4, 5, 6}));
  EXPECT_VALUES(op::transpose(x, {1, 0}), {1, 4, 2, 5, 3, 6});
  EXPECT_VALUES(op::reshape(x, {3, 2}), {1, 2, 3, 4, 5, 6});
  EXPECT_VALUES(op::reverse(x, {1}), {3, 2, 1, 6, 5, 4});
  EXPECT_VALUES(op::slice(x, {0, 0}, {2, 2}, {1, 2}), {1, 3, 4, 6});
  EXPECT_VALUES(op::pad(x, ir::constant(Dtype::i32, 9), {0, 1}, {1, 0}, {0, 1}),
                {9, 1, 9, 2, 9, 3, 9, 4, 9, 5, 9, 6, 9, 9, 9, 9, 9, 9});
  EXPECT_VALUES(op::concat({x, op::slice_axis(x, 1, 0, 1)}, 1), {1, 2, 3, 1, 4, 5, 6, 4});
  EXPECT_VALUES(op::broadcast_in(in(row(Dtype::i32, {1, 2})), {2, 3}, {0}), {1, 1, 1, 2, 2, 2});
  EXPECT_VALUES(op::broadcast_to(in(array(Dtype::i32, {2, 1}, {1, 2})), {2, 2, 2}), {1, 1, 2, 2, 1, 1, 2, 2});
  EXPECT_VALUES(op::dim_size(x, {0, 1}, Dtype::f32), {6});
  EXPECT_EQ(op::broadcast_dims({4, 1, 3}, {2, 3}), (Dims{4, 2, 3}));
  EXPECT_THROW(op::broadcast_dims({4}, {3}), UserError);
  EXPECT_THROW(op::broadcast_to(x, {2, 4}), UserError);
  EXPECT_THROW(op::reshape(x, {7}), UserError);
  EXPECT_THROW(op::slice(x, {0, 2}, {2, 2}), UserError);
  EXPECT_THROW(op::transpose(x, {0, 0}), UserError);
}

TEST(Semantics, IndicesClampOrAreIgnored) {
  const Value x = in(array(Dtype::f32, {3, 2}, {1, 2, 3, 4, 5, 6})), i = in(row(Dtype::i64, {-1, 1, 7}));
  EXPECT_VALUES(op::gather(x, i, 0), {1, 2, 3, 4, 5, 6});
  EXPECT_VALUES(op::gather(x, i, 1), {1, 2, 2, 3, 4, 4, 5, 6, 6});
  const Value along = in(array(Dtype::i32, {1, 2}, {2, -5}));
  EXPECT_VALUES(op::gather_along(x, along, 0), {5, 2});
  const Value ones = in(Array::full(Dtype::f32, {3, 2}, 1));
  EXPECT_VALUES(op::scatter_add(x, i, ones, 0), {1, 2, 4, 5, 5, 6});
  EXPECT_VALUES(op::scatter_add(x, in(row(Dtype::i32, {0, 0, 2})), ones, 0), {3, 4, 3, 4, 6, 7});
  EXPECT_VALUES(op::scatter_add_along(x, along, in(array(Dtype::f32, {1, 2}, {10, 20})), 0),
                {1, 2, 3, 4, 15, 6});
  EXPECT_VALUES(op::one_hot(in(row(Dtype::i32, {1, -1, 2})), 2, Dtype::i8), {0, 1, 0, 0, 0, 0});
  EXPECT_VALUES(op::iota({Dtype::f32, {2, 3}}, 1), {0, 1, 2, 0, 1, 2});
  EXPECT_THROW(op::gather(in(Array(Dtype::f32, {0})), in(row(Dtype::i32, {0})), 0), UserError);
}

TEST(Semantics, SymbolsGoThroughAndAreCheckedWhenBound) {
  const Dim n = Dim::symbol("batch"), m = Dim::symbol("length");
  const Value x = ir::new_input("x", {Dtype::f32, {n, m, 8}});
  EXPECT_EQ(op::reshape(x, {n, m, 2, 4}).dims(), (Dims{n, m, 2, 4}));
  EXPECT_EQ(op::reshape(x, {Dim(2) * n, m, 4}).dims(), (Dims{Dim(2) * n, m, 4}));
  EXPECT_THROW(op::reshape(x, {n, n, 8}), UserError);
  EXPECT_EQ(op::reduce_mean(x, {0, 1}).dims(), (Dims{8}));
  EXPECT_EQ(op::concat({x, x}, 0).dims(), (Dims{Dim(2) * n, m, 8}));
  EXPECT_EQ(op::broadcast_to(op::reduce_sum(x, {1, 2}), {m, n}).dims(), (Dims{m, n}));
  ir::Graph g{.name = "g", .level = {}, .inputs = {x}, .outputs = {}, .state = {}, .info = {}};
  g.outputs.push_back({"first", op::slice_axis(x, 0, 0, 2)});
  g.outputs.push_back({"mean", op::reduce_mean(x, {0, 1, 2})});
  const std::vector<Array> out =
      target::reference::evaluate(g, std::vector{Array::full(Dtype::f32, {3, 5, 8}, 2)});
  EXPECT_EQ(out[0].dims(), (std::vector<int64_t>{2, 5, 8}));
  EXPECT_EQ(out[1].at(0), 2);
  EXPECT_THROW(target::reference::evaluate(g, std::vector{Array(Dtype::f32, {1, 5, 8})}), UserError);
}

TEST(Reference, WrongInputsAreRefused) {
  const Value x = ir::new_input("x", {Dtype::f32, {Dim::symbol("n"), Dim(2) * Dim::symbol("n"), 3}});
  const ir::Graph g{
      .name = "g", .level = {}, .inputs = {x}, .outputs = {{"y", op::neg(x)}}, .state = {}, .info = {}};
  const auto run = [&](std::vector<Array> in) { return target::reference::evaluate(g, in); };
  EXPECT_EQ(run({Array(Dtype::f32, {2, 4, 3})})[0].dims(), (std::vector<int64_t>{2, 4, 3}));
  EXPECT_THROW(run({}), UserError);
  EXPECT_THROW(run({Array(Dtype::f64, {2, 4, 3})}), UserError);
  EXPECT_THROW(run({Array(Dtype::f32, {2, 4})}), UserError);
  EXPECT_THROW(run({Array(Dtype::f32, {2, 4, 4})}), UserError);
  EXPECT_THROW(run({Array(Dtype::f32, {2, 5, 3})}), UserError);
  EXPECT_THROW(run({Array(Dtype::f32, {3, 4, 3})}), UserError);
}

TEST(Random, DependsOnKeyCounterStreamAndPositionOnly) {
  const auto draw = [](int64_t key, int64_t counter, int64_t stream, Type type, bool normal) {
    const Value k = in(Array::of<int64_t>({}, {key})), c = in(Array::of<int64_t>({}, {counter}));
    return values(normal ? op::random_normal(k, c, type, stream) : op::random_uniform(k, c, type, stream));
  };
  for (const bool normal : {false, true})
    for (const Dtype d : {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16}) {
      const std::vector<double> a = draw(1, 2, 3, {d, {9, 7}}, normal);
      EXPECT_EQ(a, draw(1, 2, 3, {d, {63}}, normal));
      std::vector<double> longer = draw(1, 2, 3, {d, {70}}, normal);
      longer.resize(63);
      EXPECT_EQ(a, longer);
      EXPECT_NE(a, draw(2, 2, 3, {d, {9, 7}}, normal));
      EXPECT_NE(a, draw(1, 3, 3, {d, {9, 7}}, normal));
      EXPECT_NE(a, draw(1, 2, 4, {d, {9, 7}}, normal));
    }
  const PhiloxBlock block = philox4x32(philox_stream_key(1, 3), 1, 2);
  EXPECT_EQ(draw(1, 2, 3, {Dtype::f32, {8}}, false)[6], static_cast<double>(block[2] >> 8) * 0x1p-24);
}

TEST(Random, UniformAndNormalHaveTheirMoments) {
  const Value k = in(Array::of<int64_t>({}, {int64_t{7}}));
  for (const Dtype d : {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16}) {
    double sum = 0, squares = 0, low = 1, high = 0;
    const std::vector<double> u = values(op::random_uniform(k, k, {d, {40000}}, 0));
    for (const double x : u) sum += x, low = std::min(low, x), high = std::max(high, x);
    EXPECT_NEAR(sum / 40000, 0.5, 0.01);
    EXPECT_GE(low, 0);
    EXPECT_LT(high, 1);
    EXPECT_GT(high, 0.99);
    sum = 0;
    for (const double x : values(op::random_normal(k, k, {d, {40000}}, 0))) sum += x, squares += x * x;
    EXPECT_NEAR(sum / 40000, 0, 0.02);
    EXPECT_NEAR(squares / 40000, 1, 0.03);
  }
}

}  // namespace
}  // namespace espalier
