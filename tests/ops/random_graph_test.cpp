// Random graphs are what the differential tests stand on: valid, readable back, deterministic, with the right values.
#include "support/random_graph.h"

#include "support/arrays.h"

namespace espalier {
namespace {

TEST(RandomGraphs, HaveTheValuesTheyCarry) {
  for (const bool stable : {true, false})
    for (uint64_t seed = 0; seed < 60; ++seed) {
      ir::SampleRng rng(seed);
      test::RandomGraphOptions options;
      options.stable = stable;
      options.dtypes = seed % 2 ? ir::dtype_set(ir::Dtype::f32) : ir::all_types;
      const test::RandomGraph r = test::random_graph(rng, options);
      SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + ir::print(r.graph));
      EXPECT_GE(r.graph.nodes().size(), 5u);
      const std::vector<ir::Array> out = target::reference::evaluate(r.graph, r.inputs);
      ASSERT_EQ(out.size(), r.want.size());
      for (size_t i = 0; i < out.size(); ++i) test::expect_close(out[i], r.want[i], {});
      const ir::Graph back = ir::parse(ir::print(r.graph));
      EXPECT_TRUE(same_structure(r.graph, back));
      ir::SampleRng again(seed);
      EXPECT_TRUE(same_structure(r.graph, test::random_graph(again, options).graph)) << "not reproducible";
      if (HasFailure()) return;
    }
}

TEST(Arrays, CloseTellsNumbersApart) {
  using ir::Array;
  const auto f = [](std::initializer_list<float> v) {
    return Array::of<float>({static_cast<int64_t>(v.size())}, v);
  };
  const float nan = std::nanf(""), inf = INFINITY;
  EXPECT_TRUE(test::close(f({1, nan, inf}), f({1.000001f, nan, inf}), {1e-5, 0, 0}));
  EXPECT_FALSE(test::close(f({1}), f({1.1f}), {1e-5, 0, 0}));
  EXPECT_FALSE(test::close(f({nan}), f({1}), {1, 1, 9}));
  EXPECT_FALSE(test::close(f({inf}), f({-inf}), {1, 1, 9}));
  EXPECT_FALSE(test::close(f({1}), f({1, 2}), {1, 1, 9}));
  EXPECT_EQ(test::ulp_distance(ir::Dtype::f32, 1, 1 + 0x1p-23), 1);
  EXPECT_EQ(test::ulp_distance(ir::Dtype::bf16, -0.0, 0), 0);
  EXPECT_EQ(test::ulp_distance(ir::Dtype::f16, -0x1p-24, 0x1p-24), 2);
  const Array a = Array::of<int64_t>({1}, {(int64_t{1} << 60) + 1}),
              b = Array::of<int64_t>({1}, {int64_t{1} << 60});
  EXPECT_FALSE(test::close(a, b, {}));
}

TEST(GuardedBufferDeathTest, DiesOneByteBeyond) {
  const ir::Array a = test::guarded(ir::Array::of<float>({16}, std::vector<float>(16, 2.0f)));
  EXPECT_EQ(a.at(15), 2);
  EXPECT_EQ(reinterpret_cast<size_t>(a.data()) % 64, 0u);
  EXPECT_DEATH(
      {
        volatile float x = static_cast<const volatile float*>(a.data())[16];
        (void)x;
      },
      "");
}

}  // namespace
}  // namespace espalier
