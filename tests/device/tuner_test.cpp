// Tuning the ways of libraries: every one is run and compared, the fastest right one is chosen, kept as text, and used.
#include "run/tuner.h"

#include <gmock/gmock.h>

#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/reduction.h"
#include "run/device_executor.h"
#include "support/errors.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"

namespace espalier {
namespace {

using ir::Dtype;
using ir::Value;
using target::Choices;
using target::cuda::sim::make_sim_device;
using target::cuda::sim::SimDriver;
using target::cuda::sim::SimOptions;
using testing::HasSubstr;

/// A convolution twice over, and a product.
ir::Graph two_kinds() {
  const Value x = ir::new_input("x", {Dtype::f32, {2, 6, 6, 4}}),
              w = ir::new_input("w", {Dtype::f32, {4, 3, 3, 4}});
  const Value a = ir::new_input("a", {Dtype::f32, {8, 16}}), b = ir::new_input("b", {Dtype::f32, {16, 24}});
  op::ConvAttrs at = op::plain_conv(2, Dtype::f32);
  at.pad_low = at.pad_high = {1, 1};
  const Value once = op::conv(x, w, at);
  return {.name = "g",
          .level = ir::Level::tensor,
          .inputs = {x, w, a, b},
          .outputs = {{"y", op::conv(once, w, at)}, {"z", op::matmul(a, b)}},
          .state = {},
          .info = {}};
}

std::shared_ptr<const run::Program> planned(std::shared_ptr<target::Device> device) {
  const auto target = target::cuda::cuda_target(std::move(device));
  run::CompileOptions options;
  options.target = target.get();
  return run::Program::compile(two_kinds(), options);
}

struct Gpu {
  explicit Gpu(const SimOptions& options = {})
      : driver(std::make_shared<SimDriver>(options)), device(make_sim_device(driver)) {}
  std::shared_ptr<SimDriver> driver;
  std::shared_ptr<target::Device> device;
};

TEST(Tuner, RunsEveryWayThatIsPermitted) {
  Gpu gpu;
  const auto program = planned(gpu.device);
  const run::TuneReport report = run::tune(*program, *gpu.device, {.top = 8, .runs = 3});
  ASSERT_EQ(report.records.size(), 2u) << run::text(report);
  const auto taken = gpu.driver->ways_taken();
  for (const char* library : {"cublaslt ", "cudnn "})
    for (int way = 0; way < 3; ++way)
      EXPECT_EQ(taken.at(library + std::to_string(way)), 4)
          << library << way << ": once for values, thrice for time";
  EXPECT_EQ(taken.size(), 6u) << "nothing that is not deterministic";
  for (const run::TunedRecord& r : report.records) {
    EXPECT_EQ(r.times, r.library == "cudnn" ? 2 : 1);
    ASSERT_EQ(r.ways.size(), 3u);
    ASSERT_GE(r.chosen, 0);
    for (const run::TunedWay& w : r.ways) {
      EXPECT_EQ(w.dropped, "");
      EXPECT_GT(w.us, 0);
      EXPECT_LE(r.ways[static_cast<size_t>(r.chosen)].us, w.us);
    }
    EXPECT_EQ(report.choices.records.at(r.record).name, r.ways[static_cast<size_t>(r.chosen)].name);
  }
  EXPECT_LE(report.chosen_us, report.first_us);
  EXPECT_EQ(report.choices.libraries.size(), 2u);
  EXPECT_EQ(run::tune(*program, *gpu.device, {.top = 2, .runs = 1}).records[0].ways.size(), 2u);
}

TEST(Tuner, WaysThatAreWrongOrFailAreDropped) {
  for (const int wrong : {0, 1}) {
    Gpu gpu({.ways = {.count = 4, .wrong = wrong, .failing = 2}});
    const run::TuneReport report = run::tune(*planned(gpu.device), *gpu.device, {.runs = 1});
    ASSERT_EQ(report.records.size(), 2u);
    for (const run::TunedRecord& r : report.records) {
      SCOPED_TRACE(r.record);
      ASSERT_EQ(r.ways.size(), 4u);
      EXPECT_THAT(r.ways[static_cast<size_t>(wrong)].dropped, HasSubstr("not those of the others"));
      EXPECT_THAT(r.ways[2].dropped,
                  HasSubstr(r.library == "cudnn" ? "cudnnBackendExecute" : "cublasLtMatmul"));
      EXPECT_TRUE(r.chosen == 1 - wrong || r.chosen == 3) << r.chosen;
    }
    EXPECT_THAT(run::text(report), HasSubstr("dropped"));
  }
}

/// A product of a network's training that gives the sums of its operand, too.
TEST(Tuner, WaysThatAreWrongInAnotherResultAreDropped) {
  const Value x = ir::new_input("x", {Dtype::f32, {16, 24}}),
              dy = ir::new_input("dy", {Dtype::f32, {16, 32}});
  ir::Graph g = two_kinds();
  g.inputs = {x, dy};
  g.outputs = {{"dw", op::dot(x, dy, {.contract_a = {0}, .contract_b = {0}, .out = Dtype::f32})},
               {"db", op::reduce_sum(dy, {0})}};
  Gpu gpu({.ways = {.count = 3, .wrong_beside = 1}});
  const auto target = target::cuda::cuda_target(gpu.device);
  const auto program = run::Program::compile(g, {.target = target.get()});
  ASSERT_EQ(program->steps().size(), 1u) << program->text();
  const run::TuneReport report = run::tune(*program, *gpu.device, {.runs = 1});
  ASSERT_EQ(report.records.size(), 1u);
  const run::TunedRecord& r = report.records[0];
  ASSERT_EQ(r.ways.size(), 3u);
  EXPECT_EQ(r.ways[0].dropped, "");
  EXPECT_THAT(r.ways[1].dropped, HasSubstr("not those of the others"));
  EXPECT_EQ(r.ways[2].dropped, "");
}

TEST(Tuner, AProgramIsPlannedAndLoadedWithThePlan) {
  Gpu gpu;
  run::TuneReport report = run::tune(*planned(gpu.device), *gpu.device, {.runs = 1});
  for (run::TunedRecord& r : report.records)
    report.choices.records.at(r.record).name = r.ways[2].name;  // whatever was fastest
  const Choices read = target::parse_choices(text(report.choices), "plan");
  EXPECT_EQ(text(read), text(report.choices));
  const auto outputs = [](const Gpu& on) {
    run::DeviceExecutor e(std::make_shared<run::DeviceProgram>(planned(on.device), on.device));
    for (size_t i = 0; i < 4; ++i)
      for (int64_t k = 0; k < e.program().inputs()[i].bytes() / 4; ++k)
        static_cast<float*>(e.input(i))[k] = static_cast<float>(k % 5) - 2;
    const run::Ticket t = e.run();
    std::vector<float> out;
    for (size_t o = 0; o < 2; ++o) {
      const auto* at = static_cast<const float*>(e.output(t, o));
      out.insert(out.end(), at, at + e.program().outputs()[o].bytes() / 4);
    }
    return out;
  };
  Gpu fresh, plain;
  EXPECT_EQ(run::use_choices(*fresh.device, read), "");
  EXPECT_EQ(outputs(fresh), outputs(plain));
  EXPECT_EQ(fresh.driver->ways_taken(), (std::map<std::string, int64_t>{{"cublaslt 2", 1}, {"cudnn 2", 2}}));
  EXPECT_EQ(plain.driver->ways_taken(), (std::map<std::string, int64_t>{{"cublaslt 0", 1}, {"cudnn 0", 2}}));
}

TEST(Tuner, APlanOfAnotherDeviceOrVersionIsNotUsed) {
  Gpu gpu;
  const Choices good = run::tune(*planned(gpu.device), *gpu.device, {.runs = 1}).choices;
  Choices other = good;
  other.device = "NVIDIA Other";
  EXPECT_THAT(run::use_choices(*gpu.device, other), HasSubstr("another device, NVIDIA Other"));
  other = good;
  other.libraries["cudnn"] = "1.2.3";
  EXPECT_THAT(run::use_choices(*gpu.device, other), HasSubstr("made with cudnn 1.2.3; here is 9.19.0"));
  EXPECT_EQ(gpu.device->used(), nullptr);
  Gpu without({.dnn_missing = "gone"});
  EXPECT_THAT(run::use_choices(*without.device, good), HasSubstr("here is none"));
}

TEST(Tuner, AChoiceThatIsNotOfferedIsRefused) {
  Gpu gpu;
  Choices choices = run::tune(*planned(gpu.device), *gpu.device, {.runs = 1}).choices;
  const auto program = planned(gpu.device);
  for (auto& [record, choice] : choices.records) choice.name = record.starts_with("gemm") ? "00" : "99:7";
  ASSERT_EQ(run::use_choices(*gpu.device, choices), "");
  const std::string error = test::error_of([&] { run::DeviceProgram(program, gpu.device); });
  EXPECT_TRUE(error.find("99:7") != std::string::npos || error.find("algorithm 00") != std::string::npos)
      << error;
  EXPECT_EQ(run::tune(*program, *gpu.device, {.runs = 1}).records.size(), 2u)
      << "tuning asks for its own ways";
  EXPECT_NE(gpu.device->used(), nullptr) << "what was used before is used after";
}

TEST(Choices, BadTextsAreErrorsWithTheirLine) {
  const std::string head = "espalier choices 1\n";
  const auto error = [](const std::string& text) {
    return test::error_of([&] { (void)target::parse_choices(text, "tuned.txt"); });
  };
  const std::string good = head + "device A B\nlibrary cudnn 9\nchoice 1.5 2:7 conv x\n";
  EXPECT_EQ(target::parse_choices(good, "").records.at("conv x"), (target::Choice{"2:7", 1.5}));
  EXPECT_EQ(target::parse_choices(good, "").device, "A B");
  EXPECT_THAT(error(""), HasSubstr("tuned.txt, line 0"));
  EXPECT_THAT(error("espalier choices 2\n"), HasSubstr("tuned.txt, line 1"));
  EXPECT_THAT(error(head), HasSubstr("names no device"));
  EXPECT_THAT(error(good + "chioce 1 a b\n"), testing::AllOf(HasSubstr("line 5"), HasSubstr("chioce")));
  EXPECT_THAT(error(good + "choice x a b\n"), HasSubstr("line 5"));
  EXPECT_THAT(error(good + "choice -1 a b\n"), HasSubstr("microseconds"));
  EXPECT_THAT(error(good + "choice 1 a\n"), HasSubstr("no choice for a record"));
  EXPECT_THAT(error(good + "choice 1 a conv x\n"), HasSubstr("second choice"));
  EXPECT_THAT(error(good + "device C\n"), HasSubstr("line 5"));
  EXPECT_THAT(error(good + "library cudnn 8\n"), HasSubstr("line 5"));
  EXPECT_THAT(error(good.substr(0, good.size() - 1)), HasSubstr("middle of a line"));
}

}  // namespace
}  // namespace espalier
