// Folds of much to a few numbers on a GPU are done by many threads, whatever goes along with them.
#include <gtest/gtest.h>

#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "support/arrays.h"
#include "support/device_program.h"
#include "support/graph_of.h"
#include "support/tolerance.h"
#include "target/cuda/sim/sim_driver.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
using ir::Value;

/// The fewest threads of a launch that moves 128 KiB or more.
int64_t fewest_threads(const run::Program& p) {
  int64_t fewest = int64_t{1} << 40;
  for (const run::Step& s : p.steps())
    for (const target::CallRecord& call : s.kernel->calls())
      if (const auto* k = std::get_if<target::KernelCall>(&call.work); k && call.cost.bytes >= 1 << 17)
        fewest = std::min(fewest, k->grid.count() * k->block.count());
  return fewest;
}

std::vector<Array> run_on_gpu(const std::shared_ptr<const run::Program>& p,
                              const std::vector<Array>& inputs) {
  const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device();
  run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(p, device));
  e.poison();
  test::feed(e, inputs, true);
  const auto results = test::outputs_of(e, e.run());
  e.check_red_zones();
  return results;
}

TEST(Rows, FoldsToFewNumbersOfEveryKind) {
  ir::SampleRng rng(3);
  for (const Dtype dtype : {Dtype::f32, Dtype::f64, Dtype::f16, Dtype::bf16, Dtype::i32})
    for (const ir::Dims& dims : {ir::Dims{2, 40, 20, 41}, ir::Dims{300, 220}, ir::Dims{3, 5, 4400}}) {
      const Value x = ir::new_input("x", {dtype, dims});
      const std::vector<int64_t> all = op::all_axes(x), inner(all.begin() + 1, all.end());
      std::vector<Value> out{op::reduce_max(op::abs(x), all), op::reduce_min(op::neg(x), all),
                             op::reduce_sum(op::mul(x, x), all)};
      if (dims[0].value() < 32) out.push_back(op::reduce_max(x, inner));
      const ir::Graph g = test::graph_of({x}, out);
      const Array a = op::draw_array(rng, dtype, ir::static_dims(dims), -2, 2);
      const auto program = test::compiled(g);
      EXPECT_GE(fewest_threads(*program), 1024) << program->text();
      const auto got = run_on_gpu(program, {a}), want = target::reference::evaluate(g, std::vector{a});
      for (size_t o = 0; o < want.size(); ++o) {
        if (o == 2) test::expect_close(got[o], want[o], test::tolerance_of(dtype) * 64);
        else EXPECT_EQ(got[o], want[o]) << o;
      }
    }
}

/// A gradient of batch norm's kind, and whether all numbers of a channel's sums are finite: the latter is no part of the kernel that walks the tensor.
TEST(Rows, ANumberOfWhatRowsGaveIsMadeBehindThem) {
  ir::SampleRng rng(4);
  const Value x = ir::new_input("x", {Dtype::f32, {4, 20, 20, 64}}), dy = ir::new_input("dy", x.type());
  const Value sum = op::reduce_sum(op::mul(x, dy), {0, 1, 2});
  const Value dx = op::sub(dy, op::mul(x, op::unreduce(sum, x, {0, 1, 2})));
  const ir::Graph g = test::graph_of({x, dy}, {dx, sum, op::reduce_max(op::abs(sum), {0})});
  const auto program = test::compiled(g);
  EXPECT_GE(fewest_threads(*program), 1024) << program->text();
  const std::vector<int64_t> dims = ir::static_dims(x.dims());
  const std::vector<Array> in{op::draw_array(rng, Dtype::f32, dims, -1, 1),
                              op::draw_array(rng, Dtype::f32, dims, -1, 1)};
  const auto got = run_on_gpu(program, in), want = target::reference::evaluate(g, in);
  for (size_t o = 0; o < want.size(); ++o)
    test::expect_close(got[o], want[o], test::tolerance_of(Dtype::f32) * 256);
}

}  // namespace
}  // namespace espalier
