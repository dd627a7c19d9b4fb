// What a plan does where a library of NVIDIA's is missing or does not take a record, and what it says of that; workspaces as the
// libraries tell them; cuDNN's plans from one process to the next.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "run/device_executor.h"
#include "support/arrays.h"
#include "support/folder.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/driver/cuda_device.h"
#include "target/cuda/sim/sim_compiler.h"
#include "target/cuda/sim/sim_driver.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using ir::Array;
using ir::Dtype;
using ir::Value;
using target::cuda::cuda_target;
using target::cuda::sim::SimDriver;
using target::cuda::sim::SimOptions;
using testing::HasSubstr;

constexpr int64_t bound = int64_t{32} << 20;

Value input(const std::string& name, const std::vector<int64_t>& dims) {
  return ir::new_input(name, {Dtype::f32, ir::Dims(dims.begin(), dims.end())});
}

/// A convolution with a bias, then three products of what it gives.
ir::Graph network() {
  const Value x = input("x", {2, 6, 6, 4}), w = input("w", {16, 3, 3, 4}), b = input("b", {16});
  const Value y =
      op::conv(x, w, {.stride = {1, 1}, .pad_low = {1, 1}, .pad_high = {1, 1}, .dilation = {1, 1}});
  ir::Graph g{.name = "network",
              .level = ir::Level::tensor,
              .inputs = {x, w, b},
              .outputs = {},
              .state = {},
              .info = {}};
  Value at = op::reshape(op::add(y, op::broadcast_to(b, y.dims())), {72, 16});
  for (const char* name : {"u", "v", "t"}) {
    g.inputs.push_back(input(name, {16, 16}));
    at = op::dot(at, g.inputs.back(), {.contract_a = {1}, .contract_b = {0}, .out = Dtype::f32});
  }
  g.outputs = {{"y", at}};
  return g;
}

std::shared_ptr<const run::Program> compiled(const ir::Graph& g, const target::Target& target) {
  run::CompileOptions options;
  options.target = &target;
  return run::Program::compile(g, options);
}

std::vector<std::string> kernels_of(const run::Program& p) {
  std::vector<std::string> out;
  for (const run::Step& s : p.steps()) out.emplace_back(s.kernel->name());
  return out;
}

/// The refusals of the first step whose op, or whose body, is of that name.
std::vector<std::string> refusals_of(const run::Program& p, const std::string& op) {
  std::vector<std::string> out;
  for (const run::Step& s : p.steps())
    if (out.empty() && (s.op == op || s.detail.find(op) != std::string::npos))
      for (const kernel::Refusal& r : s.refusals) out.push_back(r.by + ": " + r.reason);
  return out;
}

Array run_once(const ir::Graph& g, const std::shared_ptr<target::Device>& device,
               const std::vector<Array>& inputs) {
  const auto target = cuda_target(device);
  run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(compiled(g, *target), device));
  for (size_t i = 0; i < inputs.size(); ++i)
    std::memcpy(e.input(i), inputs[i].data(), static_cast<size_t>(inputs[i].bytes()));
  Array y(Dtype::f32, {72, 16});
  e.poison();
  std::memcpy(y.write(), e.output(e.run(), 0), static_cast<size_t>(y.bytes()));
  return y;
}

std::vector<Array> data_of(const ir::Graph& g) {
  std::vector<Array> out;
  for (const Value& v : g.inputs) {
    out.emplace_back(Dtype::f32, ir::static_dims(v.dims()));
    for (int64_t i = 0; i < out.back().size(); ++i)
      out.back().set(i, static_cast<double>(i * 37 % 101) / 50 - 1);
  }
  return out;
}

TEST(MissingLibraries, EachIsReplacedAndNamedWithTheReason) {
  const ir::Graph g = network();
  const std::vector<Array> data = data_of(g);
  const Array want = target::reference::evaluate(g, data)[0];
  const auto says = [](const char* name) {
    return std::string(name) + " is missing, kernels of our own take its place: there is none: no such file";
  };
  for (const bool lt : {true, false})
    for (const bool dnn : {true, false}) {
      SCOPED_TRACE(testing::Message() << "cublaslt " << lt << " cudnn " << dnn);
      SimOptions options;
      if (!lt) options.lt_missing = "no such file";
      if (!dnn) options.dnn_missing = "no such file";
      const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device(options);
      const auto target = cuda_target(device);
      const auto program = compiled(g, *target);
      EXPECT_EQ(program->machine(), std::string("cuda sm_90") +
                                        (lt ? " with cublaslt 13.0.0" : " without cublaslt") +
                                        (dnn ? " with cudnn 9.19.0" : " without cudnn"));
      std::vector<std::string> notes;
      for (const run::Note& n : program->notes()) {
        notes.push_back(n.text);
        EXPECT_EQ(n.steps, n.text.starts_with("cudnn") ? 1 : 3);
        EXPECT_THAT(program->text(), HasSubstr("note: " + n.text));
      }
      std::vector<std::string> wanted;
      if (!dnn) wanted.push_back(says("cudnn"));
      if (!lt) wanted.push_back(says("cublaslt"));
      EXPECT_EQ(notes, wanted);
      EXPECT_THAT(kernels_of(*program),
                  testing::Contains(lt ? "cublaslt" : "contraction").Times(testing::Ge(3)));
      if (dnn) EXPECT_THAT(kernels_of(*program), testing::Contains("cudnn conv"));
      else
        EXPECT_THAT(refusals_of(*program, "conv"),
                    testing::Contains("cudnn: it is missing: there is none: no such file"));
      if (!lt)
        EXPECT_THAT(refusals_of(*program, "dot"),
                    testing::Contains("cublaslt: it is missing: there is none: no such file"));
      test::expect_close(run_once(g, device, data), want, test::tolerance_of(Dtype::f32) * 20);
    }
}

/// Without a device: what is there is told, the rest is assumed and says so.
TEST(MissingLibraries, PlannedForWithoutADevice) {
  EXPECT_EQ(&cuda_target(90), &cuda_target(90, {}));
  EXPECT_EQ(&cuda_target(90, {.cublaslt = "a", .cudnn = ""}),
            &cuda_target(90, {.cublaslt = "a", .cudnn = ""}));
  EXPECT_NE(&cuda_target(90), &cuda_target(90, {.cublaslt = "a", .cudnn = ""}));
  const auto program = compiled(network(), cuda_target(90, {.cublaslt = "it is not wanted", .cudnn = ""}));
  EXPECT_EQ(program->machine(), "cuda sm_90 without cublaslt");
  ASSERT_EQ(program->notes().size(), 2u);
  EXPECT_EQ(program->notes()[0].text, "cudnn was not asked: its workspace is assumed to be 33554432 bytes");
  EXPECT_EQ(program->notes()[1].text,
            "cublaslt is missing, kernels of our own take its place: it is not wanted");
}

/// Steps follow each other, so the largest scratch serves them all.
TEST(MissingLibraries, AssumedWorkspacesShareTheirPlace) {
  const auto program = compiled(network(), cuda_target(90));
  EXPECT_GE(program->memory().arena, bound);
  EXPECT_LT(program->memory().arena, bound + (1 << 20));
}

TEST(LibraryWorkspace, IsWhatTheLibraryTakes) {
  const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device();
  const auto program = compiled(network(), *cuda_target(device));
  EXPECT_TRUE(program->notes().empty());
  EXPECT_LT(program->memory().arena, 1 << 16);
  int seen = 0;
  for (const run::Step& s : program->steps())
    for (const target::CallRecord& call : s.kernel->calls()) {
      target::CallRecord::Work asked = call.work;
      auto* product = std::get_if<target::GemmCall>(&asked);
      auto* conv = std::get_if<target::ConvCall>(&asked);
      if (!product && !conv) continue;
      int64_t& workspace = product ? product->workspace : conv->workspace;
      const int64_t planned = std::exchange(workspace, bound);
      EXPECT_EQ(device->ask(asked).workspace, planned) << target::text(call);
      EXPECT_GT(planned, 0);
      ++seen;
    }
  EXPECT_EQ(seen, 4);
}

/// What the library refuses although it is there goes another way, and no fusion is left without a kernel.
TEST(LibraryWorkspace, ARecordThatIsRefusedGoesAnotherWay) {
  const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device();
  target::GemmCall call{.m = 4,
                        .n = 4,
                        .k = 4,
                        .a = {.dtype = Dtype::f32, .ld = 4},
                        .b = {.dtype = Dtype::f32, .ld = 4},
                        .d = {.dtype = Dtype::f32, .ld = 4}};
  EXPECT_EQ(device->ask(call).refusal, "");
  call.d.dtype = Dtype::bf16;
  EXPECT_THAT(device->ask(call).refusal, HasSubstr("it has no algorithm for 4 x 4 x 4 times 1"));
  EXPECT_ANY_THROW(device->ask(target::CopyCall{4}));
}

/// So does a record at which the library fails.
TEST(LibraryWorkspace, ARecordThatTheLibraryFailsAtGoesAnotherWay) {
  const auto driver = std::make_shared<SimDriver>();
  target::cuda::driver::LtApi lt = driver->lt();
  lt.MatmulAlgoGetHeuristic = [](auto...) { return 14; };  // CUBLAS_STATUS_INTERNAL_ERROR
  const auto device = std::make_shared<target::cuda::driver::CudaDevice>(
      target::cuda::driver::CudaDevice::Parts{
          .cu = driver->api(),
          .lt = [&]() -> const target::cuda::driver::LtApi& { return lt; },
          .dnn = [&]() -> const target::cuda::driver::DnnApi& { return driver->dnn(); },
          .compiler = std::make_shared<target::cuda::sim::SimCompiler>(),
          .keeps = driver},
      0);
  const ir::Graph g = network();
  const std::vector<Array> data = data_of(g);
  EXPECT_THAT(refusals_of(*compiled(g, *cuda_target(device)), "dot"),
              testing::Contains(HasSubstr("cublasLtMatmulAlgoGetHeuristic")));
  test::expect_close(run_once(g, device, data), target::reference::evaluate(g, data)[0],
                     test::tolerance_of(Dtype::f32) * 20);
}

// ---- plans on disk -------------------------------------------------------------------------------------------------

TEST(DnnPlanCache, PlansAreRestoredByTheNextProcess) {
  const test::TemporaryFolder folder;
  const ir::Graph g = network();
  const std::vector<Array> data = data_of(g);
  const Array want = target::reference::evaluate(g, data)[0];
  for (const int64_t hits : {0, 1}) {
    ObjectCache cache(folder / "plans");
    const auto driver = std::make_shared<SimDriver>(SimOptions{.plans = &cache});
    test::expect_close(run_once(g, target::cuda::sim::make_sim_device(driver), data), want,
                       test::tolerance_of(Dtype::f32) * 20);
    EXPECT_EQ(cache.counts().hits, hits);
    EXPECT_EQ(cache.counts().stored, 1 - hits);
    EXPECT_EQ(driver->live().dnn, 0);
  }
}

/// Damaged files, and whole ones that hold no plan: the plan is made again, and kept.
TEST(DnnPlanCache, WhatIsNoPlanIsMadeAnew) {
  const test::TemporaryFolder folder;
  const fs::path plans = folder / "plans";
  const ir::Graph g = network();
  const std::vector<Array> data = data_of(g);
  const Array want = target::reference::evaluate(g, data)[0];
  const auto run = [&] {
    ObjectCache cache(plans);
    test::expect_close(run_once(g, target::cuda::sim::make_sim_device(SimOptions{.plans = &cache}), data),
                       want, test::tolerance_of(Dtype::f32) * 20);
    return cache.counts();
  };
  ASSERT_EQ(run().stored, 1);
  const fs::path file = fs::directory_iterator(plans)->path();
  const std::string whole = read_file(file);
  for (size_t at = 0; at < whole.size(); at += whole.size() / 7) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x15);
    write_file(file, damaged);
    const CacheCounts counts = run();
    EXPECT_EQ(counts.corrupt, 1) << "byte " << at;
    EXPECT_EQ(counts.stored, 1);
    EXPECT_EQ(read_file(file), whole);
  }
  const std::string key =
      whole.substr(whole.find("plan of cudnn"), whole.find("{\"simul") - whole.find("plan of cudnn"));
  for (const std::string& foreign :
       {std::string("{}"), std::string(), whole.substr(whole.find("{\"simul"), 200)}) {
    ObjectCache(plans).store(key, foreign);
    const CacheCounts counts = run();
    EXPECT_EQ(counts.corrupt, 1) << foreign;
    EXPECT_EQ(counts.stored, 1);
    EXPECT_EQ(read_file(file), whole);
  }
}

}  // namespace
}  // namespace espalier
