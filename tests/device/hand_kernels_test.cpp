// What no loop nest says has kernels of its own: scatters and contractions against the reference, in the simulator; and with them
// every op of the table has a kernel on a GPU.
#include <gtest/gtest.h>

#include <numeric>

#include "kernel/fused.h"
#include "op/contraction.h"
#include "op/indexed.h"
#include "op/sampling.h"
#include "support/cuda_calls.h"
#include "support/nvrtc.h"
#include "target/cuda/arch.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/kernels/contraction.h"
#include "target/cuda/kernels/scatter.h"

namespace espalier::test {
namespace {

using target::cuda::CallList;
using target::cuda::contraction_calls;
using target::cuda::ContractionOptions;
using target::cuda::scatter_calls;
using target::cuda::ScatterOptions;
using Ints = std::vector<int64_t>;

const ir::Node& node_of(const ir::Graph& g) { return g.outputs.at(0).value.node(); }

CallList listed(std::variant<CallList, kernel::Refusal> made) {
  if (auto* refusal = std::get_if<kernel::Refusal>(&made)) throw InternalError("refused: " + refusal->reason);
  return std::get<CallList>(std::move(made));
}

// ---- the table

/// A body of its own is run by the executor, record by record.
bool is_control_flow(const ir::OpDef& op) { return op.kind == ir::Kind::control; }

class DeviceTable : public testing::TestWithParam<const ir::OpDef*> {};

TEST_P(DeviceTable, EveryDtypeHasAKernel) {
  const ir::OpDef& op = *GetParam();
  if (is_control_flow(op)) GTEST_SKIP() << "its bodies are programs of their own";
  auto rng = rng_of(op, 41);
  for (const Dtype dtype : dtypes_of(op.dtypes))
    for (int k = 0; k < 8; ++k) {
      const ir::Graph g = graph_of(op, op.sample(rng, dtype));
      const target::Prepared made = target::cuda::cuda_target(90).prepare(node_of(g), {}, {});
      std::string refusals;
      for (const kernel::Refusal& r : made.refusals) refusals += r.by + ": " + r.reason + "\n";
      ASSERT_TRUE(made.kernel) << refusals << ir::print(g);
    }
}

INSTANTIATE_TEST_SUITE_P(Ops, DeviceTable, testing::ValuesIn(sampled_ops()), OpName());

TEST(DeviceTable, OpsWithoutSamplesAreThoseOfGraphsThemselves) {
  std::set<std::string> without;
  for (const ir::OpDef* op : op::all_ops())
    if (!op->sample && !is_control_flow(*op)) without.insert(std::string(op->name));
  EXPECT_EQ(without, (std::set<std::string>{"constant", "input"}));
}

// ---- contractions

ir::Graph graph_of_two(const ir::OpDef& op, const ir::Attrs& attrs, const std::vector<Array>& data) {
  return graph_of(op, {data, attrs, {}});
}

class DeviceContractions : public testing::TestWithParam<const ir::OpDef*> {};

/// Random shapes with all that contractions have, each as it is planned and with its sum in parts.
TEST_P(DeviceContractions, SamplesAgreeWithTheReference) {
  const ir::OpDef& op = *GetParam();
  auto rng = rng_of(op, 3);
  CallCases cases;
  for (const Dtype dtype : dtypes_of(op.dtypes))
    for (int k = 0; k < 5; ++k) {
      const ir::Sample sample = op.sample(rng, dtype);
      const ir::Graph g = graph_of(op, sample);
      ContractionOptions options;
      if (k == 1) options.map.index_limit = 3;  // as if there were 2^30 elements
      if (k == 2) options.map.alignment = Ints(3, ir::dtype_size(dtype));
      cases.add(g, sample.inputs, listed(contraction_calls(node_of(g), options)), {.scale = 8});
    }
  EXPECT_EQ(cases.run(), "");
}

INSTANTIATE_TEST_SUITE_P(Ops, DeviceContractions,
                         testing::Values(&op::dot_op, &op::conv_op, &op::conv_data_grad_op,
                                         &op::conv_weight_grad_op),
                         OpName());

struct Product {
  int64_t batch, m, n, k;
  bool a_across, b_across;  ///< the folded axis is the first of the two
};

ir::Graph product(const Product& p, Dtype dtype, Dtype out, std::vector<Array>& data, double size = 2) {
  std::mt19937_64 rng(static_cast<uint64_t>(p.m * 31 + p.n));
  const auto side = [&](int64_t free, bool across) {
    return across ? Ints{p.batch, p.k, free} : Ints{p.batch, free, p.k};
  };
  data = {op::draw_array(rng, dtype, side(p.m, p.a_across), -size, size),
          op::draw_array(rng, dtype, side(p.n, p.b_across), -size, size)};
  const op::DotAttrs attrs{{0}, {0}, {p.a_across ? 1 : 2}, {p.b_across ? 1 : 2}, out};
  return graph_of_two(op::dot_op, attrs, data);
}

TEST(DeviceContractions, TilesOfEverySizeAndLayout) {
  CallCases cases;
  std::vector<Array> data;
  for (const Product& p : std::vector<Product>{{1, 130, 70, 36, false, false},
                                               {1, 64, 128, 64, false, true},
                                               {2, 33, 65, 20, true, true},
                                               {1, 17, 16, 100, true, false},
                                               {3, 1, 40, 33, false, true},
                                               {1, 100, 1, 48, false, false},
                                               {1, 257, 129, 16, true, true},
                                               {1, 5, 7, 0, false, false},
                                               {0, 5, 7, 3, false, false}})
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f64}) {
      const ir::Graph g = product(p, dtype, dtype, data);
      cases.add(g, data, listed(contraction_calls(node_of(g), {.map = {}, .wanted_blocks = 1})),
                {.scale = 32});
    }
  EXPECT_EQ(cases.run(), "");
}

TEST(DeviceContractions, ProductsInEveryDtypeAndItsWiderResult) {
  CallCases cases;
  std::vector<Array> data;
  for (const Dtype dtype : dtypes_of(op::dot_op.dtypes))
    for (const Dtype out : {dtype, Dtype::f32, Dtype::i32}) {
      const bool integer = dtype == Dtype::i8 || dtype == Dtype::u8,
                 half = dtype == Dtype::bf16 || dtype == Dtype::f16;
      if (out != dtype && !(out == Dtype::i32 ? integer : half)) continue;
      const ir::Graph g = product({2, 48, 80, 96, false, true}, dtype, out, data, integer ? 100 : 2);
      cases.add(g, data, listed(contraction_calls(node_of(g))), {.scale = 32});
    }
  EXPECT_EQ(cases.run(), "");
}

/// bf16 and f16 on tensor cores: every size of tile, either layout, tails of every kind, convolutions among them elsewhere.
TEST(DeviceContractions, TensorCoresMultiplyTilesOfHalves) {
  CallCases cases;
  std::vector<Array> data;
  for (const Product& p : std::vector<Product>{{1, 130, 72, 40, false, false},
                                               {2, 40, 65, 33, true, true},
                                               {1, 64, 128, 64, false, true},
                                               {1, 257, 129, 16, true, false},
                                               {3, 16, 8, 100, false, true},
                                               {1, 32, 40, 2000, true, true},
                                               {1, 32, 40, 1504, true, true}})  // fifths are no whole tiles
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16})
      for (const Dtype out : {dtype, Dtype::f32}) {
        const ir::Graph g = product(p, dtype, out, data);
        CallList list = listed(contraction_calls(node_of(g)));
        EXPECT_EQ(list.calls.size(), p.k > 1000 ? 2u : 1u);
        EXPECT_NE(list.sources[0].text.find("esp_mma_"), std::string::npos) << list.sources[0].text;
        cases.add(g, data, std::move(list), {.scale = p.k > 1000 ? 256.0 : 32.0});
      }
  EXPECT_EQ(cases.run(), "");
}

const target::KernelCall& launch_of(const CallList& list) {
  return std::get<target::KernelCall>(list.calls.at(0).work);
}

/// Where a block may have more than 48 KiB: a quarter less is asked of memory for the same results, the same bits.
TEST(DeviceContractions, LargeTilesOfTensorCoresLoadLess) {
  const ContractionOptions small{},
      large{.map = {}, .shared_limit = target::cuda::arch_of(80).shared_per_block};
  std::vector<Array> data;
  for (const bool tall : {false, true}) {
    const ir::Graph g = product({1, tall ? 4096 : 2048, tall ? 2048 : 4096, 512, false, true}, Dtype::bf16,
                                Dtype::bf16, data);
    const CallList before = listed(contraction_calls(node_of(g), small)),
                   after = listed(contraction_calls(node_of(g), large));
    EXPECT_EQ(launch_of(before).shared_bytes, 0);
    EXPECT_EQ(launch_of(after).shared_bytes, (256 + 128) * (64 + 8) * 2);
    EXPECT_EQ(before.calls[0].cost.loaded, int64_t{16} * 32 * (128 + 128) * 512 * 2);
    EXPECT_EQ(after.calls[0].cost.loaded, int64_t{16} * 16 * (256 + 128) * 512 * 2);
    EXPECT_EQ(4 * after.calls[0].cost.loaded, 3 * before.calls[0].cost.loaded);
  }
  for (const int capability : {80, 89, 90, 100, 120}) {
    const ir::Graph g = product({1, 4096, 2048, 512, false, true}, Dtype::bf16, Dtype::bf16, data);
    const target::Prepared made =
        target::cuda::cuda_target(capability, {.cublaslt = "it is not there", .cudnn = ""})
            .prepare(node_of(g), {}, {});
    EXPECT_EQ(std::get<target::KernelCall>(made.kernel->calls()[0].work).shared_bytes, 55296) << capability;
  }
  CallCases cases;
  for (const Product& p :
       std::vector<Product>{{1, 256, 100, 256, false, true}, {1, 72, 256, 300, true, false}})
    for (const bool larger : {false, true}) {
      const ir::Graph g = product(p, Dtype::bf16, Dtype::f32, data);
      const ContractionOptions options{
          .map = {}, .wanted_blocks = 1, .shared_limit = larger ? large.shared_limit : small.shared_limit};
      CallList list = listed(contraction_calls(node_of(g), options));
      EXPECT_EQ(launch_of(list).shared_bytes, larger ? 55296 : 0);
      cases.add(g, data, std::move(list), {.scale = 64, .in_place = false, .all_orders = false});
    }
  EXPECT_EQ(cases.run(), "");
  const std::vector<std::vector<Array>> results = cases.results();
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[2], results[3]);
}

/// Two launches: runs of the sum beside each other, then added in order.
TEST(DeviceContractions, LongSumsAreCutInParts) {
  CallCases cases;
  std::vector<Array> data;
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::i32}) {
    const ir::Graph g = product({1, 20, 24, 3000, true, true}, dtype, dtype, data);
    CallList list = listed(contraction_calls(node_of(g)));
    EXPECT_EQ(list.calls.size(), 2u);
    EXPECT_GT(list.scratch_bytes, 20 * 24 * 4);
    cases.add(g, data, std::move(list), {.scale = 128});
  }
  EXPECT_EQ(cases.run(), "");
}

struct ConvCase {
  Ints x, w;
  op::ConvAttrs at;
};

std::vector<ConvCase> convolutions() {
  std::vector<ConvCase> all;
  const auto add = [&](Ints x, Ints w, Ints stride, Ints low, Ints high, Ints dilation, int64_t groups) {
    op::ConvAttrs at;
    at.stride = std::move(stride);
    at.pad_low = std::move(low);
    at.pad_high = std::move(high);
    at.dilation = std::move(dilation);
    at.groups = groups;
    all.push_back({std::move(x), std::move(w), std::move(at)});
  };
  add({2, 9, 8, 16}, {24, 3, 3, 16}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 1);
  add({2, 11, 10, 8}, {12, 3, 3, 8}, {2, 2}, {1, 0}, {1, 1}, {1, 1}, 1);  // rests of both axes
  add({1, 12, 12, 3}, {20, 7, 7, 3}, {2, 2}, {3, 3}, {3, 3}, {1, 1}, 1);  // a stem
  add({2, 9, 9, 40}, {40, 3, 3, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 40);  // depthwise
  add({1, 9, 9, 36}, {72, 3, 3, 1}, {2, 2}, {1, 1}, {0, 1}, {1, 1}, 36);  // depthwise, two filters each
  add({2, 7, 7, 32}, {16, 1, 1, 32}, {1, 1}, {0, 0}, {0, 0}, {1, 1}, 1);  // a plain product
  add({1, 10, 9, 12}, {8, 3, 2, 6}, {3, 2}, {2, 1}, {0, 3}, {2, 3}, 2);   // everything at once
  add({1, 12, 4}, {4, 3, 4}, {4}, {1}, {0}, {2}, 1);                      // taps that some inputs never meet
  add({1, 16, 16, 4}, {8, 4, 4, 4}, {4, 4}, {0, 0}, {0, 0}, {1, 1}, 1);   // patches
  add({1, 5, 4, 6, 8}, {8, 3, 2, 3, 8}, {1, 2, 1}, {1, 0, 2}, {0, 1, 1}, {1, 1, 2}, 1);
  return all;
}

TEST(DeviceContractions, ConvolutionsInAllDirections) {
  std::mt19937_64 rng(9);
  CallCases cases;
  for (const ConvCase& c : convolutions())
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::i8}) {
      op::ConvAttrs at = c.at;
      at.out = dtype;
      const std::vector<Array> forward{op::draw_array(rng, dtype, c.x, -2, 2),
                                       op::draw_array(rng, dtype, c.w, -2, 2)};
      const ir::Graph y = graph_of_two(op::conv_op, at, forward);
      cases.add(y, forward, listed(contraction_calls(node_of(y))), {.scale = 32});
      const Array dy = op::draw_array(rng, dtype, ir::static_dims(y.outputs[0].value.dims()), -2, 2);
      at.spatial = Ints(c.x.begin() + 1, c.x.end() - 1);
      const ir::Graph dx = graph_of_two(op::conv_data_grad_op, at, {dy, forward[1]});
      cases.add(dx, {dy, forward[1]}, listed(contraction_calls(node_of(dx))), {.scale = 32});
      at.spatial = Ints(c.w.begin() + 1, c.w.end() - 1);
      const ir::Graph dw = graph_of_two(op::conv_weight_grad_op, at, {forward[0], dy});
      cases.add(dw, {forward[0], dy}, listed(contraction_calls(node_of(dw))), {.scale = 64});
    }
  EXPECT_EQ(cases.run(), "");
}

TEST(DeviceContractions, TilesHaveNoRacesThreads) {
  CallCases cases;
  std::vector<Array> data;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    const ir::Graph g = product({1, 20, 40, 40, false, true}, dtype, dtype, data);
    cases.add(g, data, listed(contraction_calls(node_of(g))),
              {.scale = 32, .in_place = false, .all_orders = false});
  }
  EXPECT_EQ(cases.run(), "");
}

TEST(DeviceContractions, ABarrierLeftOutOfATileIsARaceThreads) {
#if !defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the thread sanitizer finds it";
#else
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  std::vector<Array> data;
  const ir::Graph g = product({1, 20, 40, 70, false, true}, Dtype::bf16, Dtype::bf16, data);
  const CallList list = listed(contraction_calls(node_of(g)));
  const std::string& text = list.sources[0].text;
  for (size_t at = text.find("__syncthreads();"); at != std::string::npos;
       at = text.find("__syncthreads();", at + 1)) {
    CallList wrong = list;
    wrong.sources[0].text.erase(at, 16);
    CallCases cases;
    cases.add(g, data, std::move(wrong), {.scale = 32});
    EXPECT_DEATH((void)cases.run(), "data race") << at;
  }
#endif
}

// ---- scatters

struct Scatter {
  Ints base, indices;
  int64_t axis = 0;
  bool along = false;
  double low = 0, high = 0;  ///< of the indices
};

ir::Graph scatter(const Scatter& s, Dtype dtype, Dtype index, std::vector<Array>& data) {
  std::mt19937_64 rng(static_cast<uint64_t>(s.base[0] + s.axis));
  Ints updates = s.indices;
  if (!s.along) {
    updates = s.base;
    updates.erase(updates.begin() + s.axis);
    updates.insert(updates.begin() + s.axis, s.indices.begin(), s.indices.end());
  }
  data = {op::draw_array(rng, dtype, s.base, -2, 2), op::draw_array(rng, index, s.indices, s.low, s.high),
          op::draw_array(rng, dtype, updates, -2, 2)};
  return graph_of(s.along ? op::scatter_add_along_op : op::scatter_add_op,
                  {data, op::ScatterAttrs{s.axis}, {}});
}

/// Duplicates, all equal, out of range on both sides, nothing, one; one block of the sort and several.
const std::vector<Scatter>& scatters() {
  static const std::vector<Scatter> all{{{11, 8}, {40}, 0, false, 0, 10},
                                        {{3, 7, 5}, {4, 10}, 1, false, -3, 9},
                                        {{300, 4}, {5000}, 0, false, -5, 305},
                                        {{9, 16}, {600}, 0, false, 4, 4},
                                        {{70000}, {4500}, 0, false, 0, 70000},
                                        {{1}, {33}, 0, false, 0, 0},
                                        {{5, 3}, {0}, 0, false, 0, 4},
                                        {{0, 3}, {20}, 0, false, -1, 1},
                                        {{4, 0}, {20}, 0, false, 0, 3},
                                        {{6}, {}, 0, false, 0, 5},
                                        {{9, 6}, {30, 6}, 0, true, -1, 9},
                                        {{5, 9}, {5, 40}, 1, true, 0, 8},
                                        {{4, 50, 6}, {4, 200, 6}, 1, true, -2, 51},
                                        {{7, 3}, {1, 3}, 0, true, 2, 2}};
  return all;
}

TEST(DeviceScatter, UpdatesAreAddedInOrderLookedAtOrSorted) {
  CallCases cases;
  std::vector<Array> data;
  size_t n = 0;
  for (const Scatter& s : scatters())
    for (const bool sorted : {false, true}) {
      const Dtype index = ++n % 2 ? Dtype::i64 : Dtype::i32;
      const ir::Graph g = scatter(s, Dtype::f32, index, data);
      ScatterOptions options;
      if (sorted) options.few_updates = options.little_work = 0;
      CallList list = listed(scatter_calls(node_of(g), options));
      const bool empty = data[2].size() == 0 || data[0].size() == 0;
      EXPECT_TRUE(list.calls.size() > 1 || !sorted || empty) << n;
      cases.add(g, data, std::move(list), {.scale = 64, .in_place = n % 3 == 0});
    }
  EXPECT_EQ(cases.run(), "");
}

/// One by one or sorted, over one block of the sort or several: an element adds the same numbers in the same order.
TEST(DeviceScatter, ASortLeavesTheOrderOfUpdates) {
  std::vector<Array> data;
  for (const Scatter& s :
       {Scatter{{37, 3}, {9000}, 0, false, -1, 37}, Scatter{{3, 300, 2}, {3, 1500, 2}, 1, true, 0, 299}}) {
    CallCases cases;
    const ir::Graph g = scatter(s, Dtype::f32, Dtype::i32, data);
    cases.add(g, data, listed(scatter_calls(node_of(g), {.map = {}, .few_updates = 1 << 20})), {});
    cases.add(g, data, listed(scatter_calls(node_of(g), {.map = {}, .few_updates = 0, .little_work = 0})),
              {});
    const auto results = cases.results();
    EXPECT_TRUE(results[0] == results[1]);
  }
}

TEST(DeviceScatter, EveryDtypeInPlaceAndNot) {
  CallCases cases;
  std::vector<Array> data;
  for (const Dtype dtype : dtypes_of(op::scatter_add_op.dtypes))
    for (const bool along : {false, true})
      for (const bool sorted : {false, true}) {
        ScatterOptions options;
        if (sorted) options.few_updates = options.little_work = 0;
        if (along) options.map.index_limit = 3;
        if (!sorted) options.map.alignment = Ints(4, ir::dtype_size(dtype));
        const Scatter s = along ? Scatter{{5, 9, 16}, {5, 40, 16}, 1, true, -1, 9}
                                : Scatter{{5, 9, 16}, {2, 20}, 1, false, -1, 9};
        const ir::Graph g = scatter(s, dtype, Dtype::i64, data);
        cases.add(g, data, listed(scatter_calls(node_of(g), options)), {.scale = 64, .in_place = sorted});
      }
  EXPECT_EQ(cases.run(), "");
}

TEST(DeviceScatter, SamplesAgreeWithTheReference) {
  CallCases cases;
  for (const ir::OpDef* op : {&op::scatter_add_op, &op::scatter_add_along_op}) {
    auto rng = rng_of(*op, 7);
    for (const Dtype dtype : dtypes_of(op->dtypes))
      for (int k = 0; k < 4; ++k) {
        const ir::Sample sample = op->sample(rng, dtype);
        const ir::Graph g = graph_of(*op, sample);
        ScatterOptions options;
        if (k % 2) options.few_updates = options.little_work = 0;
        cases.add(g, sample.inputs, listed(scatter_calls(node_of(g), options)), {.scale = 8});
      }
  }
  EXPECT_EQ(cases.run(), "");
}

TEST(DeviceScatter, SortsHaveNoRacesThreads) {
  CallCases cases;
  std::vector<Array> data;
  const ir::Graph g = scatter({{300, 4}, {4200}, 0, false, -5, 305}, Dtype::f32, Dtype::i64, data);
  cases.add(g, data, listed(scatter_calls(node_of(g), {.map = {}, .few_updates = 0, .little_work = 0})),
            {.scale = 64, .in_place = false, .all_orders = false});
  EXPECT_EQ(cases.run(), "");
}

// ---- what the vendor's compiler says

TEST(DeviceHandKernels, NeitherStackNorSpillsOnAnyArchitectureHeavy) {
  const Nvrtc* nvrtc = Nvrtc::find();
  if (!nvrtc) GTEST_SKIP() << Nvrtc::why_not();
  CallCases cases;
  std::vector<Array> data;
  for (const Dtype dtype : dtypes_of(op::dot_op.dtypes))
    for (const bool across : {false, true}) {
      const ir::Graph g = product({1, 2048, 2048, 64, across, !across}, dtype, dtype, data);
      cases.add(g, {}, listed(contraction_calls(node_of(g))), {});
    }
  for (const bool across : {false, true}) {
    const ir::Graph g = product({1, 4096, 4096, 256, across, !across}, Dtype::bf16, Dtype::bf16, data);
    CallList list = listed(contraction_calls(
        node_of(g), {.map = {}, .shared_limit = target::cuda::arch_of(120).shared_per_block}));
    EXPECT_GT(launch_of(list).shared_bytes, 0);
    cases.add(g, {}, std::move(list), {});
  }
  for (const ConvCase& c : convolutions()) {
    const std::vector<Array> forward{Array(Dtype::bf16, c.x), Array(Dtype::bf16, c.w)};
    op::ConvAttrs at = c.at;
    at.out = Dtype::bf16;
    const ir::Graph y = graph_of_two(op::conv_op, at, forward);
    const Array dy(Dtype::bf16, ir::static_dims(y.outputs[0].value.dims()));
    cases.add(y, {}, listed(contraction_calls(node_of(y))), {});
    at.spatial = Ints(c.x.begin() + 1, c.x.end() - 1);
    const ir::Graph dx = graph_of_two(op::conv_data_grad_op, at, {dy, forward[1]});
    cases.add(dx, {}, listed(contraction_calls(node_of(dx))), {});
    at.spatial = Ints(c.w.begin() + 1, c.w.end() - 1);
    const ir::Graph dw = graph_of_two(op::conv_weight_grad_op, at, {forward[0], dy});
    cases.add(dw, {}, listed(contraction_calls(node_of(dw))), {});
  }
  for (const Dtype dtype : {Dtype::f64, Dtype::bf16, Dtype::i8})
    for (const bool along : {false, true}) {
      const Scatter s = along ? Scatter{{5, 90, 16}, {5, 4000, 16}, 1, true, 0, 9}
                              : Scatter{{5000, 64}, {90, 90}, 0, false, 0, 9};
      const ir::Graph g = scatter(s, dtype, Dtype::i32, data);
      cases.add(g, {}, listed(scatter_calls(node_of(g), {.map = {}, .few_updates = 0, .little_work = 0})),
                {});
      cases.add(g, {}, listed(scatter_calls(node_of(g), {.map = {}, .few_updates = 1 << 20})), {});
    }
  std::string text = target::cuda::port_text();
  std::map<std::string, int> threads;
  for (const target::KernelSource& s : cases.sources()) {
    text += s.text;
    threads[s.name] = s.max_threads;
  }
  for (const char* arch : {"sm_80", "sm_89", "sm_90", "sm_100", "sm_120"}) {
    const Nvrtc::Result r = nvrtc->compile(text, arch);
    ASSERT_TRUE(r.compiled) << arch << "\n" << r.log;
    EXPECT_EQ(r.log.find("warning"), std::string::npos) << r.log;
    EXPECT_EQ(r.kernels.size(), threads.size());
    for (const auto& [name, facts] : r.kernels) {
      EXPECT_EQ(facts.spill_bytes + facts.stack_bytes, 0) << name << " " << arch;
      EXPECT_LE(facts.registers * threads[name], 65536) << name << " " << arch;
    }
  }
}

TEST(DeviceHandKernels, TilesAreBroughtSixteenBytesAtATimeHeavy) {
  const Nvrtc* nvrtc = Nvrtc::find();
  if (!nvrtc) GTEST_SKIP() << Nvrtc::why_not();
  std::vector<Array> data;
  for (const Dtype half : {Dtype::bf16, Dtype::f16}) {
    const ir::Graph g = product({1, 1024, 1024, 64, false, false}, half, half, data);
    const CallList list = listed(contraction_calls(node_of(g)));
    const std::string ptx = nvrtc->compile(target::cuda::port_text() + list.sources.at(0).text, "sm_80").ptx;
    const std::string mma = "mma.sync.aligned.m16n8k16.row.col.f32." + std::string(ir::dtype_name(half));
    EXPECT_NE(ptx.find(mma), std::string::npos) << ptx;
    for (size_t at = ptx.find("ld.global"); at != std::string::npos; at = ptx.find("ld.global", at + 1))
      EXPECT_NE(ptx.substr(at, 32).find(".v4"), std::string::npos) << ptx.substr(at, 60);
  }
  for (const bool across : {false, true}) {
    const ir::Graph g = product({1, 1024, 1024, 64, across, across}, Dtype::f32, Dtype::f32, data);
    const CallList list = listed(contraction_calls(node_of(g)));
    const std::string ptx = nvrtc->compile(target::cuda::port_text() + list.sources.at(0).text, "sm_90").ptx;
    for (const char* access : {"ld.global", "st.global", "ld.shared"})
      for (size_t at = ptx.find(access); at != std::string::npos; at = ptx.find(access, at + 1))
        EXPECT_NE(ptx.substr(at, 32).find(".v4"), std::string::npos) << ptx.substr(at, 60);
  }
}

}  // namespace
}  // namespace espalier::test
