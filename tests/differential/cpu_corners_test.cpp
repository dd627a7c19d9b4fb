// Graphs at which two things that look alike are not: the CPU target against the reference.
#include <limits>

#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "support/arrays.h"
#include "support/cpu_run.h"
#include "support/op_samples.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
using ir::Value;

/// A graph over inputs of these types, at random values.
template <class Build>
void check(const std::vector<ir::Type>& types, Build build, double factor = 8) {
  ir::SampleRng rng(11);
  ir::Graph g{.name = "corner", .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  std::vector<Array> inputs;
  for (const ir::Type& t : types) {
    g.inputs.push_back(ir::new_input("x" + std::to_string(inputs.size()), t));
    inputs.push_back(op::draw_array(rng, t.dtype, ir::static_dims(t.dims), -2, 2));
  }
  for (const Value& v : build(g.inputs)) g.outputs.push_back({"y" + std::to_string(g.outputs.size()), v});
  SCOPED_TRACE(ir::print(g));
  test::expect_close(test::run_on_cpu(g, inputs), target::reference::evaluate(g, inputs), factor);
}
using Values = std::vector<Value>;

TEST(CpuCorners, AFoldThatIsAResultAndSpreadAlongBothAxesOfASquare) {
  for (const int64_t n : {16, 32, 33})
    check({{Dtype::f32, {n, 64}}}, [&](const Values& in) {
      const Value s = op::reduce_sum(op::mul(in[0], in[0]), {1});
      const ir::Dims square{n, n};
      return Values{s, op::add(op::broadcast_in(s, square, {0}), op::broadcast_in(s, square, {1})),
                    op::sub(op::broadcast_in(s, square, {1}), op::broadcast_in(s, square, {0}))};
    });
}

TEST(CpuCorners, ASquareConstantContractedAlongEitherAxis) {
  ir::SampleRng rng(12);
  const Value w = ir::constant(op::draw_array(rng, Dtype::f32, {256, 256}, -1, 1));
  check(
      {{Dtype::f32, {64, 256}}},
      [&](const Values& in) {
        op::DotAttrs plain{.batch_a = {}, .batch_b = {}, .contract_a = {1}, .contract_b = {0}},
            turned = plain;
        turned.contract_b = {1};
        return Values{op::dot(in[0], w, plain), op::dot(in[0], w, turned)};
      },
      256);
}

TEST(CpuCorners, AVectorOfTheLastAxisBesideAProductOfSeveralOrNoFreeAxes) {
  check(
      {{Dtype::f32, {64, 96}}, {Dtype::f32, {96, 8, 32}}, {Dtype::f32, {32}}},
      [](const Values& in) {
        const Value y =
            op::dot(in[0], in[1], {.batch_a = {}, .batch_b = {}, .contract_a = {1}, .contract_b = {0}});
        const Value row = op::broadcast_in(in[2], y.dims(), {2});
        return Values{op::relu(op::add(y, row)), op::mul(y, row)};
      },
      128);
  check(
      {{Dtype::f32, {64, 128, 96}}, {Dtype::f32, {96}}, {Dtype::f32, {128}}},
      [](const Values& in) {
        const Value y =
            op::dot(in[0], in[1], {.batch_a = {}, .batch_b = {}, .contract_a = {2}, .contract_b = {0}});
        return Values{op::add(y, op::broadcast_in(in[2], y.dims(), {1}))};
      },
      128);
}

TEST(CpuCorners, WholeNumbersThatADoubleHasNot) {
  constexpr int64_t most = std::numeric_limits<int64_t>::max();
  for (const int64_t n : {most, -most, (int64_t{1} << 53) + 1}) {
    Array scalar(Dtype::i64, {});
    *static_cast<int64_t*>(scalar.write()) = n;
    check({{Dtype::i64, {40}}}, [&](const Values& in) {
      const Value c = op::broadcast_in(ir::constant(scalar), in[0].dims(), {});
      return Values{op::min(in[0], c), op::max(in[0], c), op::logical_xor(in[0], c)};
    });
  }
}

TEST(CpuCorners, FloatsBetweenTwoIntegersSaturate) {
  const auto through = [](Dtype from, Dtype via, Dtype to) {
    check({{from, {64}}}, [&](const Values& in) {
      const Value hundred = op::broadcast_in(ir::constant(Dtype::f64, 100), in[0].dims(), {});
      const Value wide = op::mul(op::cast(in[0], Dtype::f64), hundred);
      const Value x = op::cast(wide, from);  // saturated: of every size
      return Values{op::cast(op::cast(x, via), to)};
    });
  };
  through(Dtype::u8, Dtype::f32, Dtype::i8);
  through(Dtype::i8, Dtype::f32, Dtype::u8);
  through(Dtype::i32, Dtype::f64, Dtype::i8);
}

TEST(CpuCorners, NotANumberIsOneWhateverItsSign) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const auto& [n, size] : {std::pair{nan, 40}, {-nan, 41}})  // kernels of their own
    check({{Dtype::f32, {size}}}, [&, n = n](const Values& in) {
      const Value c = op::broadcast_in(ir::constant(Dtype::f32, n), in[0].dims(), {});
      return Values{op::max(in[0], c), op::min(c, in[0]), op::relu(c)};
    });
}

}  // namespace
}  // namespace espalier
