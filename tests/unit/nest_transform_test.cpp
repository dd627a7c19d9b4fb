#include "kernel/nest_transform.h"

#include <gtest/gtest.h>

namespace espalier::kernel {
namespace {

/// y[v0, v1, v2] = x[v0, v1, v2] over extents 3, 4, 5, with x's rows `row` elements apart.
LoopNest copy_of_rows(int64_t row) {
  const auto address = [](int64_t rows) {
    Affine a = Affine::var(0, 4 * rows);
    a.add(Affine::var(1, rows)).add(Affine::var(2));
    return a;
  };
  LoopNest nest;
  nest.extents = {3, 4, 5};
  nest.outer = {0, 1, 2};
  nest.buffers = {{Role::input, Dtype::f32, 12 * row}, {Role::output, Dtype::f32, 60}};
  Instr in;
  in.kind = Instr::Kind::load;
  in.buffer = 0;
  in.address = address(row);
  nest.stages.push_back({{}, {in}, {}, {{1, address(5), 0}}});
  return nest;
}

TEST(MergeLoops, ContiguousLoopsBecomeOne) {
  LoopNest nest = copy_of_rows(5);
  merge_loops(nest);
  verify(nest);
  EXPECT_EQ(nest.outer, std::vector<int>{2});
  EXPECT_EQ(points(nest, nest.outer), 60);
  EXPECT_EQ(nest.stages[0].stores[0].address, Affine::var(2));
}

TEST(MergeLoops, AGapKeepsLoopsApart) {
  LoopNest nest = copy_of_rows(6);
  merge_loops(nest);
  verify(nest);
  EXPECT_EQ(nest.outer, (std::vector<int>{1, 2}));
  EXPECT_EQ(points(nest, nest.outer), 60);
}

}  // namespace
}  // namespace espalier::kernel
