// The programs of examples/, as they are built and as they stand there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <regex>

#include "format/onnx.h"
#include "nn/models.h"
#include "support/process.h"

namespace espalier {
namespace {

using test::Outcome;
using testing::HasSubstr;

std::string example(const std::string& name) {
  return (std::filesystem::path(ESPALIER_TOOL).parent_path() / "examples" / name).string();
}

/// The numbers that follow `word` in `text`.
std::vector<double> numbers_after(const std::string& text, const std::string& word) {
  std::vector<double> out;
  const std::regex pattern(word + " +([-+0-9.e]+)");
  for (std::sregex_iterator i(text.begin(), text.end(), pattern), end; i != end; ++i)
    out.push_back(std::stod((*i)[1]));
  return out;
}

TEST(Examples, AreShort) {
  for (const char* name : {"devices_and_matmul", "train_linear", "half_precision", "unet_fake_data"}) {
    std::ifstream in(std::string(ESPALIER_SOURCE_DIR) + "/examples/" + name + ".cpp");
    int lines = 0;
    for (std::string line; std::getline(in, line);) ++lines;
    EXPECT_GT(lines, 0) << name;
    EXPECT_LT(lines, 60) << name;
  }
}

TEST(Examples, DevicesAndMatmul) {
  const Outcome o = test::run_command(example("devices_and_matmul"));
  EXPECT_EQ(o.code, 0) << o.output;
  EXPECT_THAT(o.output, HasSubstr("cpu"));
  EXPECT_THAT(o.output, testing::AnyOf(HasSubstr("\ncuda:0 "), HasSubstr("\nno GPU: ")));
  EXPECT_THAT(o.output, HasSubstr("f32[2,2] [[4, 5], [10, 11]]"));
}

TEST(Examples, TrainLinear) {
  const Outcome o = test::run_command(example("train_linear"));
  EXPECT_EQ(o.code, 0) << o.output;
  const std::vector<double> loss = numbers_after(o.output, "loss");
  ASSERT_EQ(loss.size(), 10u) << o.output;
  EXPECT_GT(loss.front(), 1);
  EXPECT_LT(loss.back(), 0.02);
  EXPECT_EQ(test::run_command(example("train_linear")).output, o.output) << "another run trained otherwise";
}

TEST(Examples, HalfPrecision) {
  const test::TemporaryFolder folder;
  nn::Init init(1);
  nn::LeNet net(init);
  parameters_of(net);
  const ir::Type image{Dtype::f32, {Dim::symbol("batch"), 28, 28, 1}};
  const Model model = Model::traced(
      [&](const std::vector<Tensor>& in) { return std::vector<Tensor>{net(in[0])}; }, std::vector{image});
  format::save_onnx(folder / "lenet.onnx", model.frozen());
  const std::string from = (folder / "lenet.onnx").string(), to = (folder / "half.onnx").string();
  const Outcome o = test::run_command(example("half_precision") + " " + from + " " + to);
  EXPECT_EQ(o.code, 0) << o.output;
  EXPECT_THAT(o.output, HasSubstr("f32[1,10] [["));
  EXPECT_THAT(o.output, HasSubstr("difference: 0 from before saving"));
  const std::vector<double> off = numbers_after(o.output, "saving,");
  ASSERT_EQ(off.size(), 1u) << o.output;
  EXPECT_TRUE(off[0] > 0 && off[0] < 0.01) << o.output;
  EXPECT_EQ(test::run_command(example("half_precision")).code, 2);
  const Outcome absent = test::run_command(example("half_precision") + " " + to + ".absent " + to);
  EXPECT_EQ(absent.code, 1);
  EXPECT_THAT(absent.output, HasSubstr("half.onnx.absent"));
}

TEST(Examples, UnetOnFakeData) {
  const Outcome o = test::run_command(example("unet_fake_data") + " 3 32 2 16");
  EXPECT_EQ(o.code, 0) << o.output;
  const std::vector<double> loss = numbers_after(o.output, "loss");
  ASSERT_EQ(loss.size(), 3u) << o.output;
  for (const double l : loss) EXPECT_TRUE(l > 0.3 && l < 1.5) << o.output;
}

TEST(Examples, UnetRefusesASizeThatDoesNotFit) {
  const Outcome o = test::run_command(example("unet_fake_data") + " 1 40 2 16");
  EXPECT_EQ(o.code, 1);
  EXPECT_THAT(o.output, HasSubstr("multiples of 32"));
}

TEST(Examples, FashionMnistLearns) {
  if (!std::filesystem::exists("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"))
    GTEST_SKIP() << "dataset-fashion-mnist is not installed (apt install dataset-fashion-mnist)";
  const Outcome o = test::run_command(example("fashion_mnist") + " 1 3840");
  EXPECT_EQ(o.code, 0) << o.output;
  const std::vector<double> accuracy = numbers_after(o.output, "test accuracy");
  ASSERT_EQ(accuracy.size(), 1u) << o.output;
  EXPECT_GT(accuracy[0], 0.3) << "after 30 steps; chance is 0.1";
}

TEST(Examples, FashionMnistReaches91PercentHeavy) {
  if (!std::filesystem::exists("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"))
    GTEST_SKIP() << "dataset-fashion-mnist is not installed (apt install dataset-fashion-mnist)";
  const Outcome o = test::run_command(example("fashion_mnist"));
  EXPECT_EQ(o.code, 0) << o.output;
  const std::vector<double> accuracy = numbers_after(o.output, "test accuracy");
  ASSERT_EQ(accuracy.size(), 1u) << o.output;
  EXPECT_GE(accuracy[0], 0.91);
}

}  // namespace
}  // namespace espalier
