// The real cuDNN plans the records of real convolutions for an H200 that is not there: each test runs this program once more, with a
// driver that only lets cuDNN load.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <sstream>
#include <thread>

#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "run/program.h"
#include "support/golden.h"
#include "support/loops.h"
#include "support/network_graphs.h"
#include "support/process.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/driver/dnn_engine.h"
#include "target/cuda/driver/libraries.h"
#include "target/cuda/match/conv.h"

namespace espalier::test {
namespace {

namespace fs = std::filesystem;
using target::ConvCall;
using target::cuda::conv_calls;
using target::cuda::ConvOptions;
using namespace target::cuda::driver;

// ---- the notes -----------------------------------------------------------------------------------------------------

TEST(DnnNotes, WhatIsPermitted) {
  ConvCall f32, tf32, exact, bf16, f64;
  tf32.tf32 = true;
  exact.exact = true;
  for (target::ConvTensor* t : {&bf16.x, &bf16.w, &bf16.y}) t->dtype = Dtype::bf16;
  for (target::ConvTensor* t : {&f64.x, &f64.w, &f64.y}) t->dtype = Dtype::f64;
  const auto permit = [](const ConvCall& c, std::vector<DnnNote> notes) {
    return dnn_notes_permit(c, notes);
  };
  for (const ConvCall& c : {f32, tf32, exact, bf16, f64}) {
    EXPECT_TRUE(permit(c, {}));
    EXPECT_TRUE(permit(c, {DnnNote::strict_nan}));
    EXPECT_FALSE(permit(c, {DnnNote::nondeterministic}));
    EXPECT_FALSE(permit(c, {DnnNote::strict_nan, DnnNote::reduced_precision_reduction}));
    EXPECT_EQ(permit(c, {DnnNote::down_convert_inputs}), c.tf32);
    for (const DnnNote n : {DnnNote::fft, DnnNote::winograd, DnnNote::winograd_4x4, DnnNote::winograd_6x6,
                            DnnNote::winograd_13x13})
      EXPECT_EQ(permit(c, {n}), !c.exact);
  }
  EXPECT_FALSE(permit(f32, {DnnNote::tensor_core}));
  EXPECT_FALSE(permit(exact, {DnnNote::tensor_core}));
  EXPECT_TRUE(permit(tf32, {DnnNote::tensor_core}));
  EXPECT_TRUE(permit(bf16, {DnnNote::tensor_core}));
  EXPECT_TRUE(permit(f64, {DnnNote::tensor_core}));
}

// ---- convolutions --------------------------------------------------------------------------------------------------

enum class Ending { none, bias_relu, bias_residual_relu };

/// One convolution of a network: a square picture, a square window.
struct Layer {
  int64_t side, in, out, kernel = 3, stride = 1, groups = 1;
  Ending ending = Ending::bias_relu;
};
/// ResNet's first.
constexpr Layer stem{.side = 224, .in = 3, .out = 64, .kernel = 7, .stride = 2};

/// Kinds of convolutions beside those of whole networks.
std::vector<Layer> layers() {
  return {stem,
          {.side = 56, .in = 64, .out = 256, .kernel = 1, .ending = Ending::bias_residual_relu},
          {.side = 56, .in = 64, .out = 128, .stride = 2},
          {.side = 256, .in = 16, .out = 2, .kernel = 1, .ending = Ending::none},
          {.side = 56, .in = 64, .out = 64, .groups = 4},
          {.side = 56, .in = 64, .out = 64, .groups = 64, .ending = Ending::none},
          {.side = 57, .in = 3, .out = 5, .kernel = 4, .stride = 3}};
}

constexpr int64_t batch = 32;

op::ConvAttrs attrs_of(const Layer& l, Dtype out) {
  op::ConvAttrs at = op::plain_conv(2, out);
  at.stride = {l.stride, l.stride};
  at.groups = l.groups;
  const int64_t pad = l.kernel - 1;  // low and high differ where that is odd
  at.pad_low = {pad / 2, pad / 2};
  at.pad_high = {pad - pad / 2, pad - pad / 2};
  return at;
}

ir::Graph forward(const Layer& l, Dtype dtype) {
  const Value x = ir::new_input("x", {dtype, {batch, l.side, l.side, l.in}}),
              w = ir::new_input("w", {dtype, {l.out, l.kernel, l.kernel, l.in / l.groups}});
  std::vector<Value> inputs{x, w};
  Value y = op::conv(x, w, attrs_of(l, l.ending == Ending::none ? dtype : Dtype::f32));
  if (l.ending == Ending::none) return body_of(inputs, {y});
  inputs.push_back(ir::new_input("b", {Dtype::f32, {l.out}}));
  y = op::cast(op::add(y, op::broadcast_to(inputs[2], y.dims())), dtype);
  if (l.ending == Ending::bias_residual_relu) {
    inputs.push_back(ir::new_input("r", y.type()));
    y = op::add(y, inputs[3]);
  }
  return body_of(inputs, {op::relu(y)});
}

/// Where forward's result lies, for the gradients.
ir::Type type_of_y(const Layer& l, Dtype dtype) {
  const Value x = ir::new_input("x", {dtype, {batch, l.side, l.side, l.in}}),
              w = ir::new_input("w", {dtype, {l.out, l.kernel, l.kernel, l.in / l.groups}});
  return op::conv(x, w, attrs_of(l, dtype)).type();
}

ir::Graph data_grad(const Layer& l, Dtype dtype) {
  const Value dy = ir::new_input("dy", type_of_y(l, dtype)),
              w = ir::new_input("w", {dtype, {l.out, l.kernel, l.kernel, l.in / l.groups}});
  op::ConvAttrs at = attrs_of(l, dtype);
  at.spatial = {l.side, l.side};
  return body_of({dy, w}, {op::conv_data_grad(dy, w, at)});
}

/// In f32, as mixed precision asks for it.
ir::Graph weight_grad(const Layer& l, Dtype dtype) {
  const Value x = ir::new_input("x", {dtype, {batch, l.side, l.side, l.in}}),
              dy = ir::new_input("dy", type_of_y(l, dtype));
  op::ConvAttrs at = attrs_of(l, Dtype::f32);
  at.spatial = {l.kernel, l.kernel};
  return body_of({x, dy}, {op::conv_weight_grad(x, dy, at)});
}

/// U-Net's step up: 2x2, stride 2, with a bias.
ir::Graph transposed(int64_t side, int64_t in, int64_t out, Dtype dtype) {
  const Value x = ir::new_input("x", {dtype, {batch, side, side, in}}),
              w = ir::new_input("w", {dtype, {in, 2, 2, out}}), b = ir::new_input("b", {Dtype::f32, {out}});
  op::ConvAttrs at = op::plain_conv(2, Dtype::f32);
  at.stride = {2, 2};
  at.spatial = {2 * side, 2 * side};
  if (dtype != Dtype::f32) at.out = dtype;
  const Value y = op::conv_data_grad(x, w, at);
  if (dtype != Dtype::f32) return body_of({x, w}, {y});
  return body_of({x, w, b}, {op::add(y, op::broadcast_to(b, y.dims()))});
}

/// One and three axes, other dtypes.
std::vector<ir::Graph> odd_ones() {
  std::vector<ir::Graph> all;
  const auto add = [&](Dtype dtype, const ir::Dims& x, const ir::Dims& w, Dtype out) {
    const Value vx = ir::new_input("x", {dtype, x}), vw = ir::new_input("w", {dtype, w});
    op::ConvAttrs at = op::plain_conv(vx.rank() - 2, out);
    at.pad_low.assign(at.pad_low.size(), 1);
    at.dilation[0] = 2;
    all.push_back(body_of({vx, vw}, {op::conv(vx, vw, at)}));
  };
  for (const Dtype d : {Dtype::f32, Dtype::bf16}) {
    add(d, {8, 100, 24}, {16, 3, 24}, d);
    add(d, {2, 12, 13, 14, 8}, {16, 3, 3, 3, 8}, d);
  }
  add(Dtype::bf16, {8, 20, 20, 24}, {16, 3, 3, 24}, Dtype::f32);
  add(Dtype::f16, {8, 20, 20, 24}, {16, 3, 3, 24}, Dtype::f16);
  add(Dtype::f64, {8, 20, 20, 24}, {16, 3, 3, 24}, Dtype::f64);
  const Layer depthwise{.side = 56, .in = 64, .out = 64, .groups = 64};
  all.push_back(forward(depthwise, Dtype::f32));
  all.push_back(forward(depthwise, Dtype::f16));
  add(Dtype::i8, {8, 20, 20, 32}, {16, 3, 3, 32}, Dtype::i32);
  return all;
}

std::vector<ir::Graph> all_bodies() {
  std::vector<ir::Graph> all = odd_ones();
  for (const Dtype d : {Dtype::bf16, Dtype::f32}) {
    for (const Layer& l : layers()) {
      all.push_back(forward(l, d));
      all.push_back(weight_grad(l, d));
      if (l.in != 3) all.push_back(data_grad(l, d));
    }
    all.push_back(transposed(16, 256, 128, d));
    all.push_back(transposed(112, 64, 32, d));
  }
  return all;
}

/// The records of `body` that are convolutions.
std::vector<ConvCall> records(const ir::Graph& body, const ConvOptions& options) {
  auto made = conv_calls(body, options);
  if (const auto* r = std::get_if<kernel::Refusal>(&made)) {
    ADD_FAILURE() << r->reason << "\n" << ir::print(body);
    return {};
  }
  std::vector<ConvCall> out;
  for (const target::CallRecord& c : std::get<0>(made).calls)
    if (const auto* conv = std::get_if<ConvCall>(&c.work)) out.push_back(*conv);
  return out;
}

/// The records of a whole program. A convolution that is none is a failure, with what declined it.
std::vector<ConvCall> records(const run::Program& program, const std::string& name) {
  std::vector<ConvCall> out;
  for (const run::Step& s : program.steps()) {
    const size_t before = out.size();
    for (const target::CallRecord& c : s.kernel->calls())
      if (const auto* conv = std::get_if<ConvCall>(&c.work)) out.push_back(*conv);
    std::istringstream words(s.op + " " + s.detail);
    for (std::string word; words >> word;)
      if (word.starts_with("conv") && out.size() == before)
        ADD_FAILURE() << name << ": " << s.op << " " << s.detail << " is no call of cuDNN's: "
                      << (s.refusals.empty() ? "nothing declined it" : s.refusals[0].reason);
  }
  return out;
}

/// The convolutions of whole programs, training and inference: the golden ones (cuda_programs_test.cpp) and ResNet-50, in every precision
/// that is trained in. A scale of the loss, which f16 has there, is no part of a convolution.
std::vector<ConvCall> program_records() {
  std::vector<ConvCall> out;
  const std::vector<NetworkGraph> golden_ones = network_graphs(small_networks(), Optimisation::momentum),
                                  resnet50 = resnet50_graphs(batch);
  for (const pass::Precision precision : {pass::Precision::f32, pass::Precision::bf16, pass::Precision::f16})
    for (const auto* graphs : {&golden_ones, &resnet50})
      for (const NetworkGraph& n : *graphs) {
        run::CompileOptions options;
        options.target = &target::cuda::cuda_target(90);
        options.precision = precision;
        const std::string name = n.name + " " + std::string(pass::precision_name(precision));
        const std::vector<ConvCall> all = records(*run::Program::compile(n.graph, options), name);
        EXPECT_EQ(all.empty(), n.name.starts_with("mlp")) << name;
        std::printf("%s: %zu convolutions\n", name.c_str(), all.size());
        out.insert(out.end(), all.begin(), all.end());
      }
  return out;
}

/// What conv_calls() makes no record of, with or without a device: cuDNN 9.19 has no engine for it, 9.26 has. f32 gradients of a lower dtype
/// (from bf16 they are computed in bf16 and widened, from f16 of widened operands in TF32), and steps after a depthwise convolution in
/// bf16 (a kernel of ours).
std::vector<ConvCall> declined() {
  std::vector<ConvCall> all;
  const Layer plain{.side = 56, .in = 64, .out = 64, .ending = Ending::none},
      depthwise{.side = 56, .in = 64, .out = 64, .groups = 64, .ending = Ending::none};
  for (const Dtype d : {Dtype::bf16, Dtype::f16}) {
    all.push_back(records(data_grad(plain, d), {})[0]);
    all.back().x.dtype = Dtype::f32;
    all.push_back(records(weight_grad(plain, d), {})[0]);
    for (target::ConvTensor* t : {&all.back().x, &all.back().y}) t->dtype = d;
    all.back().w.dtype = Dtype::f32;
  }
  all.push_back(records(forward(depthwise, Dtype::bf16), {})[0]);
  all.back().steps = {target::ConvStep::add_channel, target::ConvStep::relu};
  all.back().step_count = 2;
  return all;
}

// ---- inside the second process -------------------------------------------------------------------------------------

const DnnApi& cudnn() {
  static Libraries l(search_places(search_environment()));
  return l.dnn().api.value();
}

TEST(DISABLED_InsideCudnn, Version) {
  Libraries l(search_places(search_environment()));
  if (l.dnn().api) std::printf("version %s\n", l.dnn().report.version.c_str());
}

/// "planned TEXT" or "refused TEXT: why". Plans of `whole` are made again from their text.
std::string line_of(const DnnPlanner& planner, const ConvCall& call, bool whole) {
  auto made = planner.plan(call);
  if (const auto* r = std::get_if<DnnRefusal>(&made)) return "refused " + text(call) + ": " + r->reason;
  const auto& plan = std::get<DnnPlan>(made);
  EXPECT_TRUE(dnn_notes_permit(call, plan.notes));
  EXPECT_GE(plan.workspace, 0);
  EXPECT_LE(plan.workspace, call.workspace);
  EXPECT_GE(plan.engine, 0);
  if (whole) {
    const auto again = planner.restore(plan.json());
    if (const auto* r = std::get_if<DnnRefusal>(&again)) ADD_FAILURE() << text(call) << ": " << r->reason;
    else EXPECT_EQ(std::get<DnnPlan>(again).workspace, plan.workspace);
  }
  return "planned " + text(call);
}

/// "records N", then one line for each that differs in its text, with "network " before those of whole programs; "declined TEXT: why" for
/// what is no record.
TEST(DISABLED_InsideCudnn, Plans) {
  const DnnPlanner planner(cudnn(), dnn_h200_json);
  for (const ConvCall& call : declined()) {
    const auto made = planner.plan(call);
    const auto* r = std::get_if<DnnRefusal>(&made);
    std::printf("declined %s: %s\n", text(call).c_str(), r ? r->reason.c_str() : "not refused by cuDNN");
  }
  struct Asked {
    ConvCall call;
    bool of_network = false, whole = false;
  };
  std::map<std::string, Asked> all;
  const auto asked = [&](const ConvCall& call) -> Asked& {
    return all.try_emplace(text(call), Asked{.call = call}).first->second;
  };
  for (const ir::Graph& body : all_bodies())
    for (const ConvCall& call : records(body, {})) asked(call).whole = true;
  for (const ConvCall& call : program_records()) asked(call).of_network = true;
  std::printf("records %zu\n", all.size());
  std::vector<Asked> calls;
  for (const auto& [name, a] : all) calls.push_back(a);
  std::vector<std::string> lines(calls.size());
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    const DnnPlanner own(cudnn(), dnn_h200_json);
    for (size_t i = next++; i < calls.size(); i = next++)
      lines[i] = (calls[i].of_network ? "network " : "") + line_of(own, calls[i].call, calls[i].whole);
  };
  std::thread other(work);
  work();
  other.join();
  for (const std::string& line : lines) std::printf("%s\n", line.c_str());
}

TEST(DISABLED_InsideCudnn, Choices) {
  const DnnPlanner planner(cudnn(), dnn_h200_json);
  const ConvCall plain = records(forward({.side = 56, .in = 64, .out = 64}, Dtype::f32), {})[0];
  ConvCall fast = plain;
  fast.tf32 = true;
  const auto has_tensor_core = [&](const ConvCall& c) {
    const auto made = planner.plan(c);
    const auto& notes = std::get<DnnPlan>(made).notes;
    return std::count(notes.begin(), notes.end(), DnnNote::tensor_core) > 0;
  };
  EXPECT_FALSE(has_tensor_core(plain));
  EXPECT_TRUE(has_tensor_core(fast));
  // cuDNN's first choice for the weights of the stem wants 134 MB.
  ConvCall greedy_one = records(weight_grad(stem, Dtype::f32), {.workspace = int64_t{1} << 30})[0];
  greedy_one.tf32 = true;
  const auto greedy = planner.plan(greedy_one);
  greedy_one.workspace = int64_t{64} << 20;
  const auto modest = planner.plan(greedy_one);
  EXPECT_GT(std::get<DnnPlan>(greedy).workspace, greedy_one.workspace);
  EXPECT_LE(std::get<DnnPlan>(modest).workspace, greedy_one.workspace);
  // A record that is none, and a plan that is none.
  ConvCall wrong = plain;
  wrong.y.dims[2] = 55;
  const auto refused = planner.plan(wrong);
  ASSERT_TRUE(std::holds_alternative<DnnRefusal>(refused));
  EXPECT_NE(std::get<DnnRefusal>(refused).reason, "");
  EXPECT_TRUE(std::holds_alternative<DnnRefusal>(planner.restore("{}")));
  EXPECT_THROW(DnnPlanner(cudnn(), "{"), DnnError);
}

// ---- outside -------------------------------------------------------------------------------------------------------

/// Run `test` where cuDNN is found in `folders` (ESPALIER_CUDA_PATH), without a GPU's driver.
Outcome inside(const std::string& test, const std::string& folders) {
  const std::string driver = fs::path(ESPALIER_FAKES) / "driver_for_cudnn";
  return run_command("unset GTEST_TOTAL_SHARDS GTEST_SHARD_INDEX GTEST_OUTPUT; LD_LIBRARY_PATH=" + driver +
                     " ESPALIER_CUDA_PATH=" + folders + " " + fs::read_symlink("/proc/self/exe").string() +
                     " --gtest_also_run_disabled_tests --gtest_filter=DISABLED_InsideCudnn." + test);
}

/// A cuDNN of this machine: where, and its version.
struct Found {
  std::string folders, version;
};
std::vector<Found> installed() {
  std::vector<Found> out;
  for (const char* folders : {"", "/opt/peers/lib/python3.11/site-packages/nvidia:off"})
    for (const std::string& line : lines_of(inside("Version", folders).output))
      if (line.starts_with("version ") && (out.empty() || out[0].version != line.substr(8)))
        out.push_back({folders, line.substr(8)});
  return out;
}

constexpr const char* no_cudnn = "no cuDNN on this machine: no plans were made";

std::vector<std::string> lines_with(const std::string& text, const std::string& prefix) {
  std::vector<std::string> out;
  for (const std::string& line : lines_of(text))
    if (line.starts_with(prefix)) out.push_back(line.substr(prefix.size()));
  return out;
}

/// Each record is planned or refused, and none of a network is refused, whatever the version.
void expect_every_record(const std::string& output) {
  const auto count = [&](const char* prefix) { return lines_with(output, prefix).size(); };
  const std::vector<std::string> total = lines_with(output, "records "),
                                 refused = lines_with(output, "network refused ");
  ASSERT_EQ(total.size(), 1u) << output;
  const size_t of_networks = count("network planned ") + refused.size();
  EXPECT_EQ(of_networks + count("planned ") + count("refused "), std::stoul(total[0])) << output;
  EXPECT_THAT(refused, testing::IsEmpty());
  EXPECT_GE(of_networks, 600u) << output;
}

TEST(CudnnHeavy, EveryRecordIsPlannedForAnH200) {
  const std::vector<Found> all = installed();
  if (all.empty()) GTEST_SKIP() << no_cudnn;
  const fs::path file = fs::path(ESPALIER_SOURCE_DIR) / "docs/gpu/cudnn_refusals.txt";
  std::string golden_text = fs::exists(file) ? read_file(file) : "";
  for (const Found& found : all) {
    const Outcome out = inside("Plans", found.folders);
    EXPECT_EQ(out.code, 0) << out.output;
    expect_every_record(out.output);
    const std::string prefix = "cuDNN " + found.version + ": ";
    std::string got, rest;
    for (const char* kind : {"declined ", "refused "})
      for (const std::string& line : lines_with(out.output, kind)) got += prefix + kind + line + "\n";
    if (updates_golden()) {
      for (const std::string& line : lines_of(golden_text))
        if (!line.starts_with(prefix)) rest += line + "\n";
      write_file(file, golden_text = rest + got);
      continue;
    }
    if (golden_text.find(prefix) == std::string::npos) {
      std::printf("%s holds no refusals of cuDNN %s; they are\n%s", file.c_str(), found.version.c_str(),
                  got.c_str());
      continue;
    }
    std::string want;
    for (const std::string& line : lines_with(golden_text, prefix)) want += prefix + line + "\n";
    EXPECT_TRUE(golden(want, got, file));
  }
}

TEST(Cudnn, ChoosesByNotesAndWorkspace) {
  const std::vector<Found> all = installed();
  if (all.empty()) GTEST_SKIP() << no_cudnn;
  for (const Found& found : all) {
    const Outcome out = inside("Choices", found.folders);
    EXPECT_EQ(out.code, 0) << out.output;
  }
}

}  // namespace
}  // namespace espalier::test
