// Values of options that the command line refuses, and what it takes from the file of a model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/numpy.h"
#include "format/onnx.h"
#include "nn/layers.h"
#include "support/onnx_file.h"
#include "support/tool.h"
#include "tensor/compile.h"

namespace espalier::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int usage = 2, input = 3;

void expect_error(const std::string& arguments, int code, const std::vector<std::string>& parts) {
  const ToolCall c = call_tool(arguments);
  EXPECT_EQ(c.code, code) << arguments << "\n" << c.err;
  EXPECT_EQ(c.out, "") << arguments;
  for (const std::string& part : parts) EXPECT_THAT(c.err, HasSubstr(part)) << arguments;
}

std::string in_quotes(const std::filesystem::path& path) { return "'" + path.string() + "'"; }

class CommandLineValues : public testing::Test {
 protected:
  void SetUp() override {
    nn::Init init(1);
    nn::Linear layer(8, 4, init);
    (void)parameters_of(layer);
    CompileOptions names;
    names.argument_names = {"x"};
    names.result_names = {"y"};
    const Model model =
        Model::traced([&](const std::vector<Tensor>& in) { return std::vector<Tensor>{layer(in[0])}; },
                      std::array{ir::Type{Dtype::f32, {ir::Dim::symbol("batch"), 8}}}, names);
    format::save_onnx(folder_ / "model.onnx", model.frozen());
  }
  std::string model() const { return in_quotes(folder_ / "model.onnx"); }
  TemporaryFolder folder_;
};

TEST_F(CommandLineValues, DimsAndBatchMustFitTheModel) {
  const std::string none = " --dims z=2,8";
  for (const std::string& command :
       {"bench " + model() + none, "profile " + model() + none, "inspect --plan " + model() + none,
        "optimise " + model() + none + " -o " + in_quotes(folder_ / "o.onnx")})
    expect_error(command, usage, {"--dims", "z", "allowed", "x"});
  expect_error("bench --net linear --dims x=2,10", usage, {"--dims"});
  expect_error("bench " + model() + " --dims x=2,8 --dims x=3,8", usage, {"--dims", "twice"});
  expect_error("bench " + model() + " --dims x=2,8 --batch 5 --json", usage, {"--batch", "5", "2"});
  const nlohmann::json j = call_tool("bench " + model() + " --dims x=2,8 --seconds 0.01 --json").json();
  EXPECT_EQ(j["batch"], 2);
}

TEST_F(CommandLineValues, NumbersOfATraining) {
  const std::string train = "train --net linear --data fake --fake-size 32 --batch 8 ";
  for (const char* rate : {"nan", "inf", "-1", "0", "1e39", "x"})
    expect_error(train + "--rate=" + rate, usage, {"--rate", "finite number > 0", rate});
  for (const char* clip : {"nan", "inf", "-1"})
    expect_error(train + "--clip=" + clip, usage, {"--clip", "finite number >= 0", clip});
  expect_error(train + "--seed=-1", usage, {"--seed", "-1", "0 to 18446744073709551615"});
  for (const char* scale : {"nan", "inf", "0"})
    expect_error(train + "--precision f16 --loss-scale=" + scale, usage, {"--loss-scale", scale});
  expect_error(train + "--loss-scale=2", usage, {"--loss-scale", "f16"});
  const ToolCall trained = call_tool(train + "--rate 1e-2 --clip 1 --seed 7");
  EXPECT_EQ(trained.code, 0) << trained.err;
}

TEST_F(CommandLineValues, FilesOfATrainingDiffer) {
  const std::string train = "train --net linear --data fake --fake-size 32 --batch 8 ";
  const std::string a = in_quotes(folder_ / "a");
  std::filesystem::create_symlink(folder_ / "a", folder_ / "link");
  const std::string link = in_quotes(folder_ / "link");
  expect_error(train + "-o " + a + " --checkpoint " + a, usage, {"--checkpoint", "--output"});
  expect_error(train + "-o " + a + " --log " + link, usage, {"--log", "--output"});
  expect_error(train + "--checkpoint " + in_quotes(folder_ / "." / "a") + " --log " + a, usage,
               {"--log", "--checkpoint"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "a"));
}

TEST_F(CommandLineValues, AResumedTrainingNamesWhatIsOther) {
  const std::string train =
      "train --net linear --data fake --fake-size 32 --batch 8 --checkpoint " + in_quotes(folder_ / "c");
  ASSERT_EQ(call_tool(train).code, 0);
  const ToolCall c = call_tool(train + " --epochs 2 --rate 0.5");
  EXPECT_EQ(c.code, 0) << c.err;
  EXPECT_THAT(c.err, AllOf(HasSubstr("--rate 0.001 (now 0.5)"), HasSubstr("rate of the last step")));
  expect_error(train + " --epochs 2 --seed 3", input, {"seed 0 (now 3)"});
  expect_error(train + " --epochs 1", input, {"beyond the end"});
}

TEST_F(CommandLineValues, TheKeptPrecisionIsUsed) {
  const std::string o = in_quotes(folder_ / "o.onnx");
  ASSERT_EQ(call_tool("optimise " + model() + " --precision bf16 -o " + o).code, 0);
  EXPECT_EQ(call_tool("bench " + o + " --seconds 0.01 --json").json()["precision"], "bf16");
  EXPECT_EQ(call_tool("profile " + o + " --runs 1 --json").json()["precision"], "bf16");
  EXPECT_EQ(call_tool("inspect --plan " + o + " --json").json()["precision"], "bf16");
  EXPECT_EQ(call_tool("bench " + o + " --precision f32 --seconds 0.01 --json").json()["precision"], "f32");
  EXPECT_THAT(call_tool("bench " + o + " --seconds 0.01").out, HasSubstr("bf16"));
  EXPECT_THAT(call_tool("profile " + o + " --runs 1").out, HasSubstr("bf16"));
  EXPECT_THAT(call_tool("inspect --plan " + o).out, HasSubstr("# precision bf16"));
}

TEST_F(CommandLineValues, NothingComputedHasNoFraction) {
  const ToolCall c = call_tool("bench --net mlp --target null --seconds 0.01 --json");
  EXPECT_TRUE(c.json()["fraction_of_ceiling"].is_null()) << c.out;
}

TEST_F(CommandLineValues, IndicesOfAGatherAreChecked) {
  const ir::Array table = ir::Array::of<float>({3, 2}, {0, 1, 2, 3, 4, 5});
  const auto write = [&](const std::string& bytes) { write_file(folder_ / "g.onnx", bytes); };
  write(onnx::model({onnx::node("Gather", {"t", "i"}, {"y"})}, {onnx::tensor("t", table)},
                    {onnx::info("i", {2}, 7)}, {onnx::info("y", {2, 2})}));
  const auto run = [&](int64_t index) {
    format::save_npy(folder_ / "i.npy", ir::Array::of<int64_t>({2}, {0, index}));
    return call_tool("run " + in_quotes(folder_ / "g.onnx") + " --input i=" + in_quotes(folder_ / "i.npy") +
                     " --output " + in_quotes(folder_ / "results"));
  };
  for (const int64_t good : {2, -1, -3}) {
    EXPECT_EQ(run(good).code, 0) << good;
    const ir::Array y = format::load_npy(folder_ / "results" / "y.npy");
    EXPECT_EQ(y.at(2), static_cast<double>((good + 3) % 3 * 2));
  }
  for (const int64_t bad : {3, -4}) {
    const ToolCall c = run(bad);
    EXPECT_EQ(c.code, input) << bad;
    EXPECT_THAT(c.err, AllOf(HasSubstr(std::to_string(bad)), HasSubstr("-3"))) << c.err;
  }
  const ir::Array constant = ir::Array::of<int64_t>({2}, {0, 3});
  write(onnx::model({onnx::node("Gather", {"x", "i"}, {"y"})}, {onnx::tensor("i", constant)},
                    {onnx::info("x", {3, 2})}, {onnx::info("y", {2, 2})}));
  expect_error("inspect " + in_quotes(folder_ / "g.onnx"), input, {"Gather", "out of range", "3", "-3 to 2"});
}

}  // namespace
}  // namespace espalier::test
