// Generated kernels against the reference, in the simulator: every op's samples in every dtype, random bodies, random graphs.
#include <gtest/gtest.h>

#include "op/activation.h"
#include "op/elementwise.h"
#include "op/random.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "support/cuda_loops.h"
#include "support/loop_bodies.h"
#include "support/nvrtc.h"
#include "support/op_samples.h"
#include "support/random_body.h"

namespace espalier::test {
namespace {

class DeviceOps : public testing::TestWithParam<const ir::OpDef*> {};

TEST_P(DeviceOps, SamplesAgreeWithTheReference) {
  const ir::OpDef& op = *GetParam();
  auto rng = rng_of(op, 23);
  CudaCases cases;
  const bool transcendental =
      &op == &op::pow_op || &op == &op::tan_op || &op == &op::rem_op || &op == &op::atan2_op;
  for (const Dtype dtype : dtypes_of(op.dtypes))
    for (int k = 0; k < 3; ++k) {
      const ir::Sample sample = op.sample(rng, dtype);
      CudaCases::Options options{.scale = transcendental ? 4.0 : 2.0};
      if (k == 2) options.map.index_limit = 7;                        // as if there were 2^31 elements
      (void)cases.add(graph_of(op, sample), sample.inputs, options);  // what has no loops is no kernel's
    }
  EXPECT_EQ(cases.run(), "");
}

INSTANTIATE_TEST_SUITE_P(Ops, DeviceOps, testing::ValuesIn(sampled_ops()), OpName());

class DeviceBodies : public testing::TestWithParam<LoopBodies> {};

TEST_P(DeviceBodies, AgreeWithTheReference) {
  CudaCases cases;
  GetParam().make([&](const ir::Graph& body, const std::vector<Array>& data, double scale) {
    for (const bool in_place : {false, true})
      EXPECT_EQ(cases.add(body, data, {.scale = scale, .in_place = in_place}), "");
  });
  EXPECT_EQ(cases.run(), "");
}

INSTANTIATE_TEST_SUITE_P(Bodies, DeviceBodies, testing::ValuesIn(loop_bodies), LoopBodies::Name());

TEST(DeviceKernels, RandomBodies) {
  CudaCases cases;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const RandomBody made(seed);
    ASSERT_EQ(cases.add(made.body(), made.inputs(), {.scale = RandomBody::scale}), "");
  }
  EXPECT_EQ(cases.run(), "");
}

/// Two rows of 96 in every dtype: whole vectors, with a bias along the lanes, a mask, and a result of another width.
TEST(DeviceKernels, VectorsOfEveryWidth) {
  CudaCases cases;
  std::mt19937_64 rng(5);
  for (const Dtype from : dtypes_of(ir::number_types))
    for (const Dtype to : {from, Dtype::f32, Dtype::bf16, Dtype::boolean, Dtype::i64}) {
      if (to != from && (from == Dtype::bf16 || from == Dtype::f16))
        continue;  // sums are not rounded in registers
      const std::vector<Array> data{op::draw_array(rng, from, {6, 96}), op::draw_array(rng, from, {96}),
                                    op::draw_array(rng, Dtype::boolean, {6, 96})};
      std::vector<Value> in;
      for (const Array& a : data) in.push_back(ir::new_input("x" + std::to_string(in.size()), a.type()));
      const Value sum = op::add(in[0], op::broadcast_to(in[1], in[0].dims()));
      const ir::Graph body = body_of(in, {op::cast(op::select(in[2], sum, in[0]), to), sum});
      ASSERT_EQ(cases.add(body, data, {.in_place = to == from}), "");
    }
  EXPECT_EQ(cases.run(), "");
  for (const auto& k : cases.kernels())
    EXPECT_NE(k.source.text.find("esp_load<"), std::string::npos) << k.source.text;
}

TEST(DeviceKernels, ViewsOfLittleAlignmentAreReadByTheElement) {
  CudaCases cases;
  std::mt19937_64 rng(6);
  const std::vector<Array> data{op::draw_array(rng, Dtype::f32, {6, 96})};
  const Value x = ir::new_input("x", data[0].type());
  CudaCases::Options options;
  options.map.alignment = {4, 16};
  ASSERT_EQ(cases.add(body_of({x}, {op::neg(x)}), data, options), "");
  EXPECT_EQ(cases.run(), "");
  const std::string text = cases.kernels()[0].source.text;
  EXPECT_EQ(text.find("esp_load<"), std::string::npos) << text;
  EXPECT_NE(text.find("esp_store<4>"), std::string::npos) << text;
}

TEST(DeviceKernels, RandomBodiesInPlaceOverWideIndices) {
  CudaCases cases;
  for (uint64_t seed = 100; seed < 120; ++seed) {
    const RandomBody made(seed);
    CudaCases::Options options{.scale = RandomBody::scale, .in_place = true};
    options.map.index_limit = 3;
    ASSERT_EQ(cases.add(made.body(), made.inputs(), options), "");
  }
  EXPECT_EQ(cases.run(), "");
}

/// Two loops of more than a tile and of less, in vectors and by the element, with what lies as the result does, padding, casts, two
/// tiles, and results where operands were.
void add_transposes(CudaCases& cases, std::vector<Dtype> of) {
  std::mt19937_64 rng(12);
  struct Shape {
    std::vector<int64_t> dims, perm;
  };
  for (const Shape& s : std::vector<Shape>{{{3, 33, 40}, {0, 2, 1}},
                                           {{70, 130}, {1, 0}},
                                           {{2, 16, 64}, {2, 0, 1}},
                                           {{2, 9, 8, 64}, {0, 3, 1, 2}}})
    for (const Dtype dtype : of) {
      const Value x = ir::new_input("x", {dtype, ir::to_dims(s.dims)}), t = op::transpose(x, s.perm),
                  y = ir::new_input("y", t.type());
      const std::vector<Array> data{op::draw_array(rng, dtype, s.dims),
                                    op::draw_array(rng, dtype, ir::static_dims(t.dims()))};
      ASSERT_EQ(cases.add(body_of({x, y}, {op::add(t, y)}), data, {.in_place = true}), "");
      CudaCases::Options options;
      options.map.alignment = std::vector<int64_t>(3, ir::dtype_size(dtype));
      options.map.index_limit = 7;
      ASSERT_EQ(cases.add(body_of({x}, {op::cast(t, Dtype::f64), op::neg(t)}), {data[0]}, options), "");
      std::vector<int64_t> low(s.dims.size(), 0), high = low;
      low.back() = 3;
      high.front() = 2;
      const Value padded = op::pad(x, ir::constant(dtype, 1.0), low, high);
      const Value both = op::add(op::transpose(padded, s.perm), op::transpose(op::neg(padded), s.perm));
      ASSERT_EQ(cases.add(body_of({x}, {both}), {data[0]}, {}), "");
    }
}

TEST(DeviceKernels, TransposesGoThroughTiles) {
  CudaCases cases;
  add_transposes(cases, dtypes_of(ir::number_types));
  EXPECT_EQ(cases.run(), "");
  for (const auto& k : cases.kernels()) EXPECT_EQ(k.source.name.substr(0, 10), "transpose_") << k.source.text;
}

TEST(DeviceKernels, TilesHaveNoRacesThreads) {
  CudaCases cases;
  add_transposes(cases, {Dtype::bf16});
  EXPECT_EQ(cases.run(), "");
}

/// Folds along rows (groups of 8, 32 and 128 threads) and down columns, with results where operands were.
void add_folds(CudaCases& cases) {
  std::mt19937_64 rng(8);
  const auto add = [&](std::vector<int64_t> dims, std::vector<int64_t> axes, bool in_place) {
    const std::vector<Array> data{op::draw_array(rng, Dtype::f32, dims)};
    const Value x = ir::new_input("x", data[0].type());
    const Value centred = op::sub(x, op::unreduce(op::reduce_max(x, axes), x, axes));
    const Value sum = op::reduce_sum(op::exp(centred), axes);
    const std::vector<Value> out{op::div(op::exp(centred), op::unreduce(sum, x, axes)), sum};
    ASSERT_EQ(cases.add(body_of({x}, out), data, {.scale = 8, .in_place = in_place}), "");
  };
  for (const bool in_place : {false, true}) {
    add({5, 20}, {1}, in_place);
    add({9, 260}, {1}, in_place);
    add({2, 1030}, {1}, in_place);
    add({300, 40}, {0}, in_place);
  }
}

TEST(DeviceKernels, FoldsHaveNoRacesThreads) {
  CudaCases cases;
  add_folds(cases);
  EXPECT_EQ(cases.run(), "");
  std::set<std::string> blocks;
  for (const auto& k : cases.kernels())
    blocks.insert(k.source.name.substr(0, k.source.name.find('_')) + std::to_string(k.call.block.count()));
  EXPECT_EQ(blocks, (std::set<std::string>{"rows256", "rows128", "columns256"}));
}

TEST(DeviceKernels, ABarrierLeftOutOfAFoldIsARaceThreads) {
#if !defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the thread sanitizer finds it";
#else
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  CudaCases cases;
  add_folds(cases);
  for (const auto& k : cases.kernels()) {
    target::KernelSource wrong = k.source;
    const size_t at = wrong.text.find("__syncthreads();");
    if (at == std::string::npos) continue;
    wrong.text.erase(at, 16);
    const target::cuda::sim::KernelLibrary library(std::span(&wrong, 1));
    std::vector<float> memory(3 * 12000);
    std::vector<void*> operands;
    for (size_t i = 0; i < k.operands.size(); ++i) operands.push_back(memory.data() + 12000 * i);
    EXPECT_DEATH(library.launch(wrong, k.call, operands, {}), "data race") << wrong.text;
  }
#endif
}

/// The same numbers as the reference's, which come from base/philox.h.
TEST(DeviceKernels, DrawsAreThoseOfTheSeed) {
  CudaCases cases;
  const Array key = Array::of<int64_t>({}, {77}), counter = Array::of<int64_t>({}, {int64_t{5} << 40});
  const Value k = ir::new_input("key", key.type()), c = ir::new_input("counter", counter.type());
  for (const Dtype dtype : dtypes_of(ir::float_types))
    for (const ir::Dims& dims : {ir::Dims{64, 100}, ir::Dims{7, 33}}) {
      const ir::Type type{dtype, dims};
      ASSERT_EQ(
          cases.add(body_of({k, c}, {op::random_uniform(k, c, type, 3), op::random_normal(k, c, type, 9)}),
                    {key, counter}, {}),
          "");
    }
  EXPECT_EQ(cases.run(), "");
}

constexpr const char* architectures[] = {"sm_80", "sm_89", "sm_90", "sm_100", "sm_120"};

/// All kernels in one text; equal kernels once.
std::string text_of(const std::vector<target::cuda::Emitted>& kernels, std::set<std::string>& names) {
  std::string text = target::cuda::port_text();
  for (const auto& k : kernels)
    if (names.insert(k.source.name).second) text += k.source.text;
  return text;
}

TEST(DeviceKernels, NeitherStackNorSpillsOnAnyArchitectureHeavy) {
  const Nvrtc* nvrtc = Nvrtc::find();
  if (!nvrtc) GTEST_SKIP() << Nvrtc::why_not();
  CudaCases cases;
  for (uint64_t seed = 0; seed < 30; ++seed)
    (void)cases.add(RandomBody(seed).body(), RandomBody(seed).inputs(), {});
  for (const ir::OpDef* op : sampled_ops()) {
    auto rng = rng_of(*op, 23);
    const Dtype dtype = dtypes_of(op->dtypes).back();
    const ir::Sample sample = op->sample(rng, op->dtypes.has(Dtype::f32) ? Dtype::f32 : dtype);
    (void)cases.add(graph_of(*op, sample), sample.inputs, {});
  }
  std::set<std::string> names;
  const std::string text = text_of(cases.kernels(), names);
  for (const char* arch : architectures) {
    const Nvrtc::Result r = nvrtc->compile(text, arch);
    ASSERT_TRUE(r.compiled) << arch << "\n" << r.log;
    EXPECT_EQ(r.log.find("warning"), std::string::npos) << r.log;
    EXPECT_EQ(r.kernels.size(), names.size());
    for (const auto& [name, facts] : r.kernels) {
      EXPECT_EQ(facts.spill_bytes + facts.stack_bytes, 0) << name << " " << arch;
      EXPECT_LE(facts.registers * 512, 65536) << name << " " << arch;
    }
  }
}

int count(const std::string& text, const std::string& what) {
  int n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

TEST(DeviceKernels, PointwiseAndNormKernelsMoveSixteenBytesHeavy) {
  const Nvrtc* nvrtc = Nvrtc::find();
  if (!nvrtc) GTEST_SKIP() << Nvrtc::why_not();
  const Array x(Dtype::f32, {64, 1024}), b(Dtype::f32, {1024});
  const Value vx = ir::new_input("x", x.type()), vb = ir::new_input("b", b.type()),
              vg = ir::new_input("g", b.type());
  const auto ptx_of = [&](const std::vector<Value>& inputs, const Value& y, const std::vector<Array>& data) {
    CudaCases cases;
    EXPECT_EQ(cases.add(body_of(inputs, {y}), data, {}), "");
    std::set<std::string> names;
    return nvrtc->compile(text_of(cases.kernels(), names), "sm_90").ptx;
  };
  const std::string bias = ptx_of({vx, vb}, op::relu(op::add(vx, op::broadcast_to(vb, vx.dims()))), {x, b});
  EXPECT_EQ(count(bias, ".v4.f32"), 3) << bias;
  EXPECT_EQ(count(bias, "ld.global") + count(bias, "st.global"), 3) << bias;
  const std::string across = ptx_of({vx}, op::relu(op::transpose(vx, {1, 0})), {x});
  EXPECT_EQ(count(across, "ld.global") + count(across, "st.global"),
            count(across, "global.nc.v4.f32") + count(across, "st.global.v4.f32"))
      << across;
  EXPECT_GE(count(across, ".v4.f32"), 2) << across;
  for (const std::string& ptx : {ptx_of({vx, vg, vb}, op::layer_norm(vx, vg, vb, 1e-5), {x, b, b}),
                                 ptx_of({vx}, op::softmax(vx, 1), {x})}) {
    EXPECT_GE(count(ptx, ".v4.f32"), 4) << ptx;
    EXPECT_EQ(count(ptx, "ld.global") + count(ptx, "st.global"), count(ptx, ".v4.f32")) << ptx;
  }
}

}  // namespace
}  // namespace espalier::test
