#include "kernel/lower.h"

#include <gtest/gtest.h>

#include "op/table.h"

namespace espalier {
namespace {

kernel::Lowered lowered(const char* text) {
  (void)op::all_ops();
  return std::get<kernel::Lowered>(kernel::lower(ir::parse(text)));
}

/// Points a nest visits: outer points times those of each stage.
int64_t points(const kernel::LoopNest& nest) {
  int64_t outer = 1, all = 0;
  for (const int v : nest.outer) outer *= nest.extent(v);
  for (const kernel::Stage& s : nest.stages) {
    int64_t inner = 1;
    for (const int v : s.loops) inner *= nest.extent(v);
    all += outer * inner;
  }
  return all;
}

TEST(Lower, AnOutputThatDoesNotWalkTheReductionsLoopsIsStoredOnce) {
  const kernel::Lowered l = lowered(R"(graph "b" tensor {
    %0 = input "x" : f32[16,32,7,7,16]
    %1 = relu(%0) : f32[16,32,7,7,16]
    %2 = reduce_sum(%1){axes=[2,3]} : f32[16,32,16]
    return "a" %1, "b" %2
  })");
  int64_t all = 0;
  for (const kernel::LoopNest& n : l.nests) all += points(n);
  EXPECT_LE(all, 3 * 16 * 32 * 7 * 7 * 16);
}

TEST(Lower, ValuesOfOneReductionAtSeveralOutputsShareItsLoop) {
  const kernel::Lowered l = lowered(R"(graph "b" tensor {
    %0 = input "x" : f32[128,10]
    %1 = reduce_max(%0){axes=[1]} : f32[128]
    %2 = broadcast_to(%1){dims=[128,10], axes=[0]} : f32[128,10]
    %3 = sub(%0, %2) : f32[128,10]
    %4 = exp(%3) : f32[128,10]
    %5 = reduce_sum(%4){axes=[1]} : f32[128]
    %6 = log(%5) : f32[128]
    return "a" %3, "b" %4, "c" %5, "d" %6
  })");
  ASSERT_EQ(l.nests.size(), 1u);
  EXPECT_NO_THROW(kernel::verify(l.nests[0]));
}

/// What is folded over rows, folded again over all of them, and read by the rows' elements: the rows' nest stores both.
TEST(Lower, RowsStoreTheirFoldsAndWhatReadsThemInOneNest) {
  const kernel::Lowered l = lowered(R"(graph "b" tensor {
    %0 = input "x" : f32[128,10]
    %1 = reduce_max(%0){axes=[1]} : f32[128]
    %2 = broadcast_to(%1){dims=[128,10], axes=[0]} : f32[128,10]
    %3 = sub(%0, %2) : f32[128,10]
    %4 = exp(%3) : f32[128,10]
    %5 = reduce_sum(%4){axes=[1]} : f32[128]
    %6 = log(%5) : f32[128]
    %7 = reduce_sum(%6){axes=[0]} : f32[]
    %8 = broadcast_to(%5){dims=[128,10], axes=[0]} : f32[128,10]
    %9 = div(%4, %8) : f32[128,10]
    return "loss" %7, "softmax" %9
  })");
  ASSERT_EQ(l.nests.size(), 2u);
  for (const kernel::LoopNest& nest : l.nests) EXPECT_NO_THROW(kernel::verify(nest));
  EXPECT_LE(points(l.nests[0]), 3 * 128 * 10 + 128);
}

}  // namespace
}  // namespace espalier
