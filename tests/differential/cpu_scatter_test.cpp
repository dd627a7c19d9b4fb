// scatter_add of sizes that are cut in chunks, on the CPU against the reference and on any number of threads.
#include "base/threads.h"
#include "op/indexed.h"
#include "op/sampling.h"
#include "support/cpu_run.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
using Ints = std::vector<int64_t>;

struct Shapes {
  Ints base, indices;
  int64_t axis;
};

/// Indices beyond both ends, and many that are equal.
ir::Graph scatter(const Shapes& s, Dtype dtype, bool along, std::vector<Array>& data) {
  ir::SampleRng rng(5);
  const auto n = static_cast<double>(s.base[static_cast<size_t>(s.axis)]);
  Ints updates = s.base;
  if (along) {
    updates = s.indices;
  } else {
    updates.erase(updates.begin() + s.axis);
    updates.insert(updates.begin() + s.axis, s.indices.begin(), s.indices.end());
  }
  data = {op::draw_array(rng, dtype, s.base, -2, 2), op::draw_array(rng, Dtype::i64, s.indices, -2, n + 1),
          op::draw_array(rng, dtype, updates, -2, 2)};
  std::vector<ir::Value> in;
  for (const Array& a : data) in.push_back(ir::new_input("x" + std::to_string(in.size()), a.type()));
  const ir::Value out = along ? op::scatter_add_along(in[0], in[1], in[2], s.axis)
                              : op::scatter_add(in[0], in[1], in[2], s.axis);
  return {.name = "scatter",
          .level = ir::Level::tensor,
          .inputs = in,
          .outputs = {{"y", out}},
          .state = {},
          .info = {}};
}

void check(const Shapes& s, Dtype dtype, bool along) {
  SCOPED_TRACE(std::string(ir::dtype_name(dtype)) + (along ? " along" : ""));
  std::vector<Array> data;
  const ir::Graph g = scatter(s, dtype, along, data);
  set_threads(1);
  const std::vector<Array> alone = test::run_on_cpu(g, data);
  set_threads(3);
  EXPECT_EQ(alone, test::run_on_cpu(g, data)) << "on three threads";
  set_threads(available_threads());
  test::expect_close(alone, target::reference::evaluate(g, data), 64);
}

TEST(CpuScatter, RowsInEveryDtype) {
  for (int d = 0; d < ir::dtype_count; ++d)
    if (const auto dtype = static_cast<Dtype>(d); dtype != Dtype::boolean)
      check({{97, 300}, {11, 61}, 0}, dtype, false);
}

TEST(CpuScatter, FewLongRowsManyShortOnesAndAMiddleAxis) {
  check({{3, 70001}, {9}, 0}, Dtype::f32, false);
  check({{200000}, {5000}, 0}, Dtype::f32, false);
  check({{40, 50, 33}, {70}, 1}, Dtype::f32, false);
  check({{5000, 7}, {20}, 1}, Dtype::bf16, false);
}

TEST(CpuScatter, AlongAnAxis) {
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::f64, Dtype::i8, Dtype::i64}) {
    check({{90, 1000}, {40, 1000}, 0}, dtype, true);
    check({{1000, 90}, {1000, 40}, 1}, dtype, true);
  }
}

TEST(CpuScatter, NothingToAdd) {
  check({{4, 5}, {0}, 0}, Dtype::f32, false);
  check({{4, 0}, {3}, 0}, Dtype::f32, false);
  check({{0, 4}, {0, 4}, 0}, Dtype::f32, true);
}

}  // namespace
}  // namespace espalier
