// cuBLASLt: descriptors built by the real library and read back, and whole products through a device over a library that stands for it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/sampling.h"
#include "support/arrays.h"
#include "support/device_run.h"
#include "support/environment.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/driver/cuda_device.h"
#include "target/cuda/driver/libraries.h"
#include "target/cuda/driver/lt_engine.h"
#include "target/cuda/match/gemm.h"
#include "target/cuda/sim/sim_compiler.h"
#include "target/cuda/sim/sim_driver.h"
#include "target/reference/interpreter.h"

namespace espalier::test {
namespace {

using namespace target::cuda::driver;  // NOLINT: all of it is the subject
using ir::Array;
using ir::Dtype;
using ir::Value;
using target::CallRecord;
using target::GemmCall;
using target::GemmEpilogue;
using target::cuda::CallList;
using target::cuda::sim::SimDriver;

/// Reads attributes back; the product itself has no use for that.
class LtReader {
 public:
  explicit LtReader(const std::string& path) {
    FoundLibrary found = find_library({.names = {path}, .folders = {""}});
    if (!found.library) return;
    library_.emplace(*std::move(found.library));
    (void)library_->find("cublasLtMatmulDescGetAttribute", desc_);
    (void)library_->find("cublasLtMatrixLayoutGetAttribute", layout_);
    (void)library_->find("cublasLtMatmulPreferenceGetAttribute", preference_);
  }
  bool complete() const { return desc_ && layout_ && preference_; }

  template <class T>
  T of(LtMatmulDesc desc, int attribute) const {
    return read<T>(desc_, desc, attribute);
  }
  template <class T>
  T of(LtMatrixLayout layout, int attribute) const {
    return read<T>(layout_, layout, attribute);
  }
  template <class T>
  T of(LtMatmulPreference preference, int attribute) const {
    return read<T>(preference_, preference, attribute);
  }

 private:
  using Get = LtStatus(void* object, int attribute, void* value, size_t bytes, size_t* written);
  template <class T>
  static T read(Get* get, void* object, int attribute) {
    T value{};
    size_t written = 0;
    EXPECT_EQ(get(object, attribute, &value, sizeof value, &written), lt_success) << attribute;
    EXPECT_EQ(written, sizeof value) << attribute;
    return value;
  }
  std::optional<DynamicLibrary> library_;
  Get *desc_ = nullptr, *layout_ = nullptr, *preference_ = nullptr;
};

GemmCall batched_call() {
  return {.m = 24,
          .n = 40,
          .k = 56,
          .batch = 3,
          .a = {.dtype = Dtype::bf16, .transposed = true, .ld = 64, .stride = 1600},
          .b = {.dtype = Dtype::bf16, .transposed = false, .ld = 56, .stride = 2240},
          .d = {.dtype = Dtype::f32, .transposed = false, .ld = 24, .stride = 960},
          .compute = Dtype::f32,
          .tf32 = false,
          .alpha = 0.5,
          .beta = 1,
          .epilogue = GemmEpilogue::relu_bias,
          .workspace = int64_t{32} << 20};
}

/// Attribute numbers that only reading needs, as in cublasLt.h: of the descriptor 0 compute type, 1 scale type; of a layout 0 type, 1 order
/// (0: column-major), 2 rows, 3 columns, 4 leading dimension.
TEST(DeviceLt, DescriptorsAreReadBackAsTheRecordSays) {
  const auto& lt = libraries().lt();
  if (!lt.api) GTEST_SKIP() << "no cuBLASLt: " << lt.report.reason;
  const LtReader reader(lt.report.path.string());
  ASSERT_TRUE(reader.complete());
  const GemmCall call = batched_call();
  const LtDescriptors x(*lt.api, call);

  EXPECT_EQ(reader.of<int>(x.desc, 0), static_cast<int>(LtCompute::f32));
  EXPECT_EQ(reader.of<int>(x.desc, 1), static_cast<int>(LtType::r_32f));
  EXPECT_EQ(reader.of<int>(x.desc, 3), static_cast<int>(LtOperation::transpose));
  EXPECT_EQ(reader.of<int>(x.desc, 4), static_cast<int>(LtOperation::none));
  EXPECT_EQ(reader.of<int>(x.desc, 7), static_cast<int>(LtEpilogue::relu_bias));
  EXPECT_EQ(reader.of<uint64_t>(x.desc, 8) % target::gemm_alignment, 0u);

  const auto check = [&](LtMatrixLayout layout, LtType type, uint64_t rows, uint64_t columns, int64_t ld,
                         int64_t stride) {
    EXPECT_EQ(reader.of<int>(layout, 0), static_cast<int>(type));
    EXPECT_EQ(reader.of<int>(layout, 1), 0);
    EXPECT_EQ(reader.of<uint64_t>(layout, 2), rows);
    EXPECT_EQ(reader.of<uint64_t>(layout, 3), columns);
    EXPECT_EQ(reader.of<int64_t>(layout, 4), ld);
    EXPECT_EQ(reader.of<int>(layout, 5), 3);
    EXPECT_EQ(reader.of<int64_t>(layout, 6), stride);
  };
  check(x.a, LtType::r_16bf, 56, 24, 64, 1600);
  check(x.b, LtType::r_16bf, 56, 40, 56, 2240);
  check(x.d, LtType::r_32f, 24, 40, 24, 960);

  EXPECT_EQ(reader.of<uint64_t>(x.preference, 1), uint64_t{32} << 20);
  EXPECT_EQ(reader.of<uint32_t>(x.preference, 3), lt_reduction_in_compute_type);
  for (const int which : {5, 6, 7, 8}) EXPECT_EQ(reader.of<uint32_t>(x.preference, which), 16u);
}

TEST(DeviceLt, EveryDtypeAndEpilogueHasDescriptors) {
  const auto& lt = libraries().lt();
  if (!lt.api) GTEST_SKIP() << "no cuBLASLt: " << lt.report.reason;
  const LtReader reader(lt.report.path.string());
  ASSERT_TRUE(reader.complete());
  struct Case {
    Dtype in, out, compute;
    bool tf32;
    LtCompute want;
    LtType scale;
  };
  for (const Case& c :
       {Case{Dtype::f32, Dtype::f32, Dtype::f32, false, LtCompute::f32, LtType::r_32f},
        Case{Dtype::f32, Dtype::f32, Dtype::f32, true, LtCompute::f32_fast_tf32, LtType::r_32f},
        Case{Dtype::f64, Dtype::f64, Dtype::f64, false, LtCompute::f64, LtType::r_64f},
        Case{Dtype::f16, Dtype::f16, Dtype::f32, false, LtCompute::f32, LtType::r_32f},
        Case{Dtype::i8, Dtype::i32, Dtype::i32, false, LtCompute::i32, LtType::r_32i}}) {
    GemmCall call = batched_call();
    call.a.dtype = call.b.dtype = c.in;
    call.d.dtype = c.out;
    call.compute = c.compute;
    call.tf32 = c.tf32;
    const LtDescriptors x(*lt.api, call);
    EXPECT_EQ(reader.of<int>(x.desc, 0), static_cast<int>(c.want));
    EXPECT_EQ(reader.of<int>(x.desc, 1), static_cast<int>(c.scale));
  }
  for (const auto& [ours, theirs] :
       {std::pair(GemmEpilogue::none, 1), std::pair(GemmEpilogue::bias, 4), std::pair(GemmEpilogue::relu, 2),
        std::pair(GemmEpilogue::relu_bias, 6), std::pair(GemmEpilogue::gelu, 32),
        std::pair(GemmEpilogue::gelu_bias, 36), std::pair(GemmEpilogue::gelu_aux, 160),
        std::pair(GemmEpilogue::gelu_aux_bias, 164), std::pair(GemmEpilogue::relu_aux, 130),
        std::pair(GemmEpilogue::relu_aux_bias, 134), std::pair(GemmEpilogue::drelu, 136),
        std::pair(GemmEpilogue::sum_a, 256), std::pair(GemmEpilogue::sum_b, 512)}) {
    const bool mask = target::gives_mask(ours) || target::takes_mask(ours);
    GemmCall call = batched_call();
    call.epilogue = ours;
    call.mask_ld = mask ? 128 : 0;
    const LtDescriptors x(*lt.api, call);
    EXPECT_EQ(reader.of<int>(x.desc, 7), theirs);
    EXPECT_EQ(reader.of<int64_t>(x.desc, 12), mask ? 128 : target::keeps_gelu_operand(ours) ? 24 : 0);
    if (mask || target::keeps_gelu_operand(ours))
      EXPECT_EQ(reader.of<uint64_t>(x.desc, 11) % target::gemm_alignment, 0u);
  }
}

// ---- through a device ------------------------------------------------------------------------------------------------

struct Layer {
  ir::SampleRng rng{5};
  std::vector<Value> inputs;
  std::vector<Array> data;
  Value in(const std::vector<int64_t>& dims, Dtype dtype) {
    data.push_back(op::draw_array(rng, dtype, dims, -2, 2));
    inputs.push_back(ir::new_input("x" + std::to_string(inputs.size()), data.back().type()));
    return inputs.back();
  }
  ir::Graph of(const Value& y) const {
    ir::Graph g;
    g.inputs = inputs;
    g.outputs.push_back({"y", y});
    return g;
  }
};

/// Frozen layers of three dtypes with bias, residual, relu; attention's scores, laid anew; a gradient of weights.
std::vector<std::pair<Layer, ir::Graph>> steps() {
  std::vector<std::pair<Layer, ir::Graph>> all;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
    Layer l;
    const Value x = l.in({3, 10, 24}, dtype), w = l.in({24, 12}, dtype), b = l.in({12}, Dtype::f32),
                r = l.in({3, 10, 12}, Dtype::f32);
    Value y = op::dot(
        x, w, {.batch_a = {}, .batch_b = {}, .contract_a = {2}, .contract_b = {0}, .out = Dtype::f32});
    y = op::relu(op::add(op::add(y, op::broadcast_to(b, y.dims())), r));
    all.emplace_back(l, l.of(y));
  }
  Layer heads;
  const Value q = heads.in({2, 6, 4, 8}, Dtype::bf16), k = heads.in({2, 5, 4, 8}, Dtype::bf16);
  const Value scores = op::dot(
      q, k, {.batch_a = {0, 2}, .batch_b = {0, 2}, .contract_a = {3}, .contract_b = {3}, .out = Dtype::f32});
  all.emplace_back(heads, heads.of(op::mul(scores, 0.25)));
  Layer gradient;
  const Value x = gradient.in({16, 9}, Dtype::f64), dy = gradient.in({16, 7}, Dtype::f64);
  all.emplace_back(
      gradient,
      gradient.of(op::dot(
          x, dy, {.batch_a = {}, .batch_b = {}, .contract_a = {0}, .contract_b = {0}, .out = Dtype::f64})));
  return all;
}

std::variant<CallList, kernel::Refusal> calls_of(const ir::Graph& body) {
  const std::vector<char> frozen(body.inputs.size(), 1);
  return target::cuda::gemm_calls(body, {.exact = false, .tf32 = false, .constant = frozen, .alignment = {}});
}

/// From the record to descriptors, read by what stands for the library, and late, as a stream does.
TEST(DeviceLt, ProductsOnADeviceAreTheReferences) {
  const auto driver = std::make_shared<SimDriver>();
  const auto device = target::cuda::sim::make_sim_device(driver);
  for (const auto& [layer, body] : steps()) {
    const std::vector<Array> got = run_on_device(*device, body, layer.data, calls_of(body));
    const std::vector<Array> want = target::reference::evaluate(body, layer.data);
    expect_close(got[0], want[0], tolerance_of(want[0].dtype()) * 4, ir::print(body));
  }
  EXPECT_EQ(driver->live().lt, 1);  // the handle
}

TEST(DeviceLt, EverythingIsGivenBackWhicheverCallFails) {
  const auto [layer, body] = steps()[3];
  const auto calls = calls_of(body);
  const auto driver = std::make_shared<SimDriver>();
  const auto run = [&] {
    const auto device = target::cuda::sim::make_sim_device(driver);
    (void)run_on_device(*device, body, layer.data, calls);
  };
  const int64_t before = driver->calls();
  run();
  const int64_t count = driver->calls() - before;
  int failed = 0;
  for (int64_t n = 1; n <= count; ++n) {
    driver->fail({.call = n, .error = cu_error_unknown});
    try {
      run();
    } catch (const target::DeviceError&) {
      ++failed;
    }
    driver->fail({});
    ASSERT_EQ(driver->live(), target::cuda::sim::LiveCounts{}) << "after call " << n << " failed";
  }
  EXPECT_GT(failed, 40);
}

TEST(DeviceLt, WhatTheLibraryDoesNotTakeSaysWhatWasAsked) {
  const auto device = target::cuda::sim::make_sim_device();
  GemmCall call = batched_call();
  call.d.dtype = Dtype::f16;  // of bf16 operands
  const std::vector<CallRecord> records{{.work = call, .operands = {}, .cost = {}}};
  try {
    (void)device->load({}, records);
    FAIL() << "loaded";
  } catch (const target::DeviceError& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("not supported (15)"));
    EXPECT_THAT(e.what(),
                testing::HasSubstr("24 x 40 x 56 times 3, types 14 2, compute type 68, epilogue 6"));
  }
}

TEST(DeviceLt, WithoutTheLibraryALoadSaysWhyThereIsNone) {
  const auto driver = std::make_shared<SimDriver>();
  Libraries nothing{SearchPlaces{}};
  CudaDevice device({.cu = driver->api(),
                     .nvml = nullptr,
                     .lt = [&]() -> const LtApi& { return find_lt(nothing); },
                     .compiler = std::make_shared<target::cuda::sim::SimCompiler>(),
                     .keeps = driver},
                    0);
  const std::vector<CallRecord> records{{.work = batched_call(), .operands = {}, .cost = {}}};
  EXPECT_THAT([&] { (void)device.load({}, records); },
              testing::ThrowsMessage<target::DeviceError>(testing::AllOf(
                  testing::HasSubstr("there is no cuBLASLt"), testing::HasSubstr("nothing is searched"))));
}

/// A write past the end of an allocation loses the device.
TEST(DeviceLt, AProductThatReachesOutOfItsMemoryLosesTheDevice) {
  const auto device = target::cuda::sim::make_sim_device();
  const auto [layer, body] = steps()[0];
  CallList list = std::get<CallList>(calls_of(body));
  std::get<GemmCall>(list.calls[0].work).a.ld += 4;
  EXPECT_THAT([&] { (void)run_on_device(*device, body, layer.data, list); },
              testing::ThrowsMessage<target::DeviceError>(testing::HasSubstr("a matrix product: ")));
}

}  // namespace
}  // namespace espalier::test
