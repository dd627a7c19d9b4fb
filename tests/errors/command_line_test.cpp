// The command line as real processes: help, JSON, exit codes, bad input, full disks, signals.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "format/numpy.h"
#include "format/onnx.h"
#include "nn/layers.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "support/tool.h"
#include "tensor/compile.h"

namespace espalier::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int usage = 2, input = 3, machine = 4, interrupted = 130;

const std::vector<std::string> commands{"devices", "train",   "optimise", "run",
                                        "bench",   "inspect", "profile",  "demo"};

std::string in_quotes(const std::filesystem::path& path) { return "'" + path.string() + "'"; }

size_t files_in(const std::filesystem::path& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

/// A folder with a model of one layer of 64 to 256 (64 KiB of weights) and a fitting input.
class CommandLine : public testing::Test {
 protected:
  void SetUp() override {
    nn::Init init(1);
    nn::Linear layer(64, 256, init);
    (void)parameters_of(layer);
    CompileOptions names;
    names.argument_names = {"x"};
    names.result_names = {"y"};
    const Model model =
        Model::traced([&](const std::vector<Tensor>& in) { return std::vector<Tensor>{layer(in[0])}; },
                      std::array{ir::Type{Dtype::f32, {ir::Dim::symbol("batch"), 64}}}, names);
    format::save_onnx(model_, model.frozen());
    format::save_npy(x_, Tensor::randn({5, 64}, 1).array());
    std::filesystem::create_directory(folder_ / "full");
  }
  std::string run_arguments(const std::string& rest) const {
    return "run " + in_quotes(model_) + " --output " + in_quotes(folder_ / "results") + " " + rest;
  }
  /// A call that fails with this code, says all of `parts` on standard error and nothing on standard output.
  static void expect_error(const std::string& arguments, int code, const std::vector<std::string>& parts,
                           const std::string& before = "") {
    const ToolCall c = call_tool(arguments, before);
    EXPECT_EQ(c.code, code) << arguments << "\n" << c.err;
    EXPECT_EQ(c.out, "") << arguments;
    for (const std::string& part : parts) EXPECT_THAT(c.err, HasSubstr(part)) << arguments;
  }

  TemporaryFolder folder_;
  std::filesystem::path model_ = folder_ / "model.onnx", x_ = folder_ / "x.npy";
};

TEST_F(CommandLine, EveryCommandHasHelpWithExamplesAndJson) {
  const ToolCall all = call_tool("--help");
  EXPECT_EQ(all.code, 0);
  EXPECT_THAT(all.out, HasSubstr("Exit codes"));
  for (const std::string& name : commands) {
    EXPECT_THAT(all.out, HasSubstr(name));
    const ToolCall c = call_tool(name + " --help");
    EXPECT_EQ(c.code, 0);
    EXPECT_THAT(c.out, AllOf(HasSubstr("Example"), HasSubstr("espalier " + name))) << name;
    if (name != "demo") EXPECT_THAT(c.out, HasSubstr("--json")) << name;
  }
}

TEST_F(CommandLine, JsonIsOneObjectOnStandardOutput) {
  const std::string m = in_quotes(model_);
  const auto json = [](const std::string& arguments) {
    const ToolCall c = call_tool(arguments + " --json");
    EXPECT_EQ(c.code, 0) << arguments << "\n" << c.err;
    return c.json();
  };
  EXPECT_TRUE(json("devices").contains("cpu"));
  EXPECT_EQ(json("inspect " + m)["inputs"]["x"], "f32[batch,64]");
  EXPECT_TRUE(json("inspect " + m + " --graph --passes --plan --time").contains("plan"));
  EXPECT_EQ(json("inspect --list-passes")["passes"][0]["name"], "simplify");
  EXPECT_TRUE(json("optimise " + m + " -o " + in_quotes(folder_ / "o.onnx")).contains("kernels"));
  EXPECT_EQ(json(run_arguments("--input x=" + in_quotes(x_)))["outputs"][0]["type"], "f32[5,256]");
  const nlohmann::json bench = json("bench --net linear --seconds 0.01");
  for (const char* key : {"median_ms", "p10_ms", "p90_ms", "first_ms", "peak_bytes", "planned_bytes", "gflop",
                          "fraction_of_ceiling"})
    EXPECT_TRUE(bench.contains(key)) << key;
#if !defined(__SANITIZE_ADDRESS__)  // which has memory of its own
  EXPECT_LT(bench["peak_bytes"].get<int64_t>(), 90 << 20) << "of a process that runs Linear(10, 1)";
#endif
  EXPECT_TRUE(json("profile --net linear --runs 1").contains("steps"));
  EXPECT_EQ(json("train --net linear --data fake --fake-size 32 --batch 8")["steps"], 4);
}

TEST_F(CommandLine, AWrongCallIsCode2) {
  const std::string m = in_quotes(model_), x = in_quotes(x_);
  expect_error("", usage, {"subcommand"});
  expect_error("explode", usage, {"explode", "train optimise"});
  expect_error("inspect " + m + " --nope", usage, {"--nope"});
  expect_error("inspect", usage, {"MODEL"});
  expect_error("bench --net resnet19", usage, {"resnet19", "resnet18", "unet-r18"});
  expect_error("bench", usage, {"--net or MODEL", "none"});
  expect_error("bench " + m + " --net mlp", usage, {"both"});
  expect_error("bench " + m + " --train", usage, {"--train"});
  expect_error("bench --net linear --seconds -1", usage, {"--seconds"});
  expect_error("bench --net linear --batch 0", usage, {"--batch"});
  expect_error("bench --net linear --threads 0", usage, {"--threads"});
  expect_error("bench --net linear --precision f33", usage, {"f33", "bf16"});
  expect_error("bench --net linear --target gpu", usage, {"gpu", "reference"});
  expect_error("train --net nope", usage, {"nope", "lenet"});
  expect_error("train --net resnet18 --data fashion-mnist", usage, {"--net", "lenet"});
  expect_error("train --data tarot", usage, {"tarot", "fashion-mnist"});
  expect_error("inspect " + m + " --dims x=1,,64", usage, {"--dims", "1,,64"});
  expect_error(run_arguments("--input " + x), usage, {"--input", "NAME=FILE.npy"});
  expect_error(run_arguments("--input z=" + x), usage, {"names no input", "z", "x"});
  expect_error(run_arguments("--input x=" + x + " --input x=" + x), usage, {"twice"});
  expect_error(run_arguments(""), usage, {"--input"});
}

TEST_F(CommandLine, PassesAreNamedDisabledAndStoppedAfter) {
  const std::string m = in_quotes(model_);
  const std::vector<std::string> options{"inspect " + m + " --stop-after", "inspect " + m + " --disable",
                                         "optimise " + m + " -o none --disable",
                                         "bench --net linear --disable"};
  for (const std::string& option : options)
    expect_error(option + " fuse_lops", usage, {"fuse_lops", "fold_batch_norm", "fuse_loops"});
  const ToolCall stopped = call_tool("inspect " + m + " --stop-after expand_composites");
  EXPECT_THAT(stopped.out, AllOf(HasSubstr("graph"), testing::Not(HasSubstr("fusion"))));
  EXPECT_THAT(call_tool("inspect " + m + " --stop-after fuse_loops").out, HasSubstr("fusion"));
  EXPECT_THAT(call_tool("inspect " + m + " --passes").out, HasSubstr("# after fuse_contractions"));
  const nlohmann::json passes =
      call_tool("inspect " + m +
                " --time --no-verify --disable fuse_contractions --disable fuse_loops --json")
          .json()["passes"];
  ASSERT_FALSE(passes.empty());
  EXPECT_EQ(passes[0]["name"], "simplify");
  EXPECT_GE(passes[0]["ms"].get<double>(), 0);
  for (const nlohmann::json& p : passes) {
    const bool disabled = p["name"] == "fuse_contractions" || p["name"] == "fuse_loops";
    EXPECT_EQ(p["outcome"] == "disabled", disabled) << p["name"];
  }
  const ToolCall table = call_tool("inspect " + m + " --time --disable fuse_loops");
  EXPECT_THAT(table.out, AllOf(HasSubstr("all passes"), HasSubstr("disabled")));
  const ToolCall plain = call_tool(run_arguments("--input x=" + in_quotes(x_)));
  const std::string y = read_file(folder_ / "results/y.npy");
  const ToolCall exact = call_tool(
      run_arguments("--exact --disable fuse_loops --disable fuse_contractions --input x=" + in_quotes(x_)));
  EXPECT_EQ(exact.code, 0) << exact.err;
  EXPECT_EQ(read_file(folder_ / "results/y.npy").size(), y.size());
}

TEST_F(CommandLine, BadModelsAreCode3) {
  const std::string whole = read_file(model_);
  const std::filesystem::path cut = folder_ / "cut.onnx";
  for (const size_t keep : {size_t{0}, size_t{1}, size_t{20}, whole.size() / 2, whole.size() - 1}) {
    write_file(cut, whole.substr(0, keep));
    for (const char* command : {"inspect ", "bench --seconds 0.01 "})
      expect_error(command + in_quotes(cut), input, {"cut.onnx"});
    expect_error("optimise " + in_quotes(cut) + " -o " + in_quotes(folder_ / "out.onnx"), input,
                 {"cut.onnx"});
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out.onnx"));
  }
  expect_error("inspect " + in_quotes(folder_ / "none.onnx"), input, {"none.onnx", "No such file"});
  expect_error("inspect " + in_quotes(folder_.path()), input, {folder_.path().string()});
  expect_error("inspect " + in_quotes(model_) + " --dims x=5,65", input, {"do not fit", "5,65"});
  expect_error("train --folder " + in_quotes(folder_.path()), input, {folder_.path().string()});
}

TEST_F(CommandLine, BadArraysAreCode3) {
  const auto try_array = [&](const Tensor& t, const std::vector<std::string>& parts) {
    format::save_npy(folder_ / "bad.npy", t.array());
    expect_error(run_arguments("--input x=" + in_quotes(folder_ / "bad.npy")), input, parts);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "results")) << "something was written";
  };
  try_array(Tensor::ones({5, 65}), {"x", "65", "64"});
  try_array(Tensor::ones({64}), {"x", "[64]"});
  try_array(Tensor::ones({1, 5, 64}), {"x", "[1,5,64]"});
  try_array(Tensor::ones({5, 64}).cast(Dtype::f64), {"x", "f64", "f32"});
  const std::string whole = read_file(x_);
  for (const size_t keep : {size_t{0}, size_t{9}, size_t{60}, whole.size() - 1}) {
    write_file(folder_ / "cut.npy", whole.substr(0, keep));
    expect_error(run_arguments("--input x=" + in_quotes(folder_ / "cut.npy")), input, {"cut.npy"});
  }
  expect_error(run_arguments("--input x=" + in_quotes(folder_ / "none.npy")), input, {"none.npy"});
}

TEST_F(CommandLine, WhatCannotBeWrittenIsCode4) {
  const std::string m = in_quotes(model_), under_a_file = in_quotes(x_ / "sub");
  expect_error("run " + m + " --input x=" + in_quotes(x_) + " --output " + under_a_file, machine,
               {"x.npy/sub"});
  expect_error("optimise " + m + " -o " + under_a_file, machine, {"x.npy/sub"});
  expect_error("profile --net linear --runs 1 --trace " + under_a_file + " >/dev/null", machine,
               {"x.npy/sub"});
  expect_error("train --net linear --data fake --fake-size 32 --batch 8 --log " + under_a_file, machine,
               {"x.npy/sub"});
  expect_error("inspect " + m + " >/dev/full", machine, {"standard output"});
  expect_error("devices --json >/dev/full", machine, {"standard output"});
}

TEST_F(CommandLine, WhatIsNoRegularFileStaysWhatItIs) {
  std::filesystem::create_symlink("/proc/self/fd/1", folder_ / "stdout");  // as /dev/stdout is
  const std::string optimise = "optimise " + in_quotes(model_) + " -o ";
  ASSERT_EQ(call_tool(optimise + in_quotes(folder_ / "o.onnx")).code, 0);
  for (const std::string& to : {std::string("| cat >"), std::string(">")}) {
    const ToolCall c =
        call_tool(optimise + in_quotes(folder_ / "stdout") + " --json " + to + in_quotes(folder_ / "all"));
    EXPECT_EQ(c.code, 0) << c.err;
    const std::string all = read_file(folder_ / "all"), model = read_file(folder_ / "o.onnx");
    EXPECT_TRUE(all.starts_with(model)) << to;
    EXPECT_THAT(all.substr(model.size()), AllOf(testing::StartsWith("{"), testing::EndsWith("}\n"))) << to;
    EXPECT_TRUE(std::filesystem::is_symlink(folder_ / "stdout")) << to;
  }
}

TEST_F(CommandLine, AFullDiskLeavesNothingHalfWritten) {
  const std::string full = "ulimit -f 8;";  // no file beyond 4 KiB (dash counts in half KiB)
  const std::filesystem::path out = folder_ / "full";
  const std::string m = in_quotes(model_), no_space = "File too large";
  expect_error("optimise " + m + " -o " + in_quotes(out / "a.onnx"), machine, {"a.onnx", no_space}, full);
  expect_error("run " + m + " --input x=" + in_quotes(x_) + " --output " + in_quotes(out), machine,
               {"y.npy", no_space}, full);
  const std::string train = "train --net mlp-fraud --data fake --fake-size 32 --batch 8 ";
  ToolCall c = call_tool(train + "--checkpoint " + in_quotes(out / "c.safetensors"), full);
  EXPECT_EQ(c.code, machine) << c.err;
  EXPECT_THAT(c.err, AllOf(HasSubstr("c.safetensors"), HasSubstr(no_space)));
  c = call_tool(train + "-o " + in_quotes(out / "m.onnx"), full);
  EXPECT_EQ(c.code, machine) << c.err;
  EXPECT_THAT(c.err, AllOf(HasSubstr("m.onnx"), HasSubstr(no_space)));
  EXPECT_EQ(files_in(out), 0u) << "something was left";
  // a file that was there before stays as it was
  std::filesystem::copy_file(model_, out / "old.onnx");
  expect_error("optimise " + m + " -o " + in_quotes(out / "old.onnx"), machine, {"old.onnx"}, full);
  EXPECT_EQ(read_file(out / "old.onnx"), read_file(model_));
  EXPECT_EQ(files_in(out), 1u);
}

TEST_F(CommandLine, AnObjectCacheThatIsFullOrUselessIsNoError) {
  const std::string arguments = "bench --net mlp-fraud --train --seconds 0.01 --json";
  for (const std::string& before :
       {"export ESPALIER_CACHE_DIR=" + in_quotes(folder_ / "cache") + "; ulimit -f 1;",
        "export ESPALIER_CACHE_DIR=" + in_quotes(x_ / "cache") + ";",
        std::string("export ESPALIER_CACHE_DIR=/proc/none;")}) {
    const ToolCall c = call_tool(arguments, before);
    EXPECT_EQ(c.code, 0) << before << c.err;
    EXPECT_TRUE(c.json().contains("median_ms"));
  }
}

TEST_F(CommandLine, BadTrainingDataIsCode3) {
  const std::filesystem::path data = folder_ / "fashion", out = folder_ / "out.onnx";
  std::filesystem::create_directory(data);
  const std::string pictures =
                        std::string("\0\0\x08\3\0\0\0\2\0\0\0\x1c\0\0\0\x1c", 16) + std::string(2 * 784, 'p'),
                    labels("\0\0\x08\1\0\0\0\2\3\7", 10);
  for (const char* part : {"train", "t10k"}) {
    write_file(data / (std::string(part) + "-images-idx3-ubyte"), pictures);
    write_file(data / (std::string(part) + "-labels-idx1-ubyte"), labels);
  }
  const std::string train = "train --net mlp --batch 2 --folder " + in_quotes(data) + " -o " + in_quotes(out);
  ASSERT_EQ(call_tool(train).code, 0) << "the data is sound";
  std::filesystem::remove(out);
  const auto refuses = [&](const std::string& file, const std::string& bytes,
                           const std::vector<std::string>& says) {
    const std::string good = read_file(data / file);
    write_file(data / file, bytes);
    expect_error(train, input, says);
    EXPECT_FALSE(std::filesystem::exists(out));
    write_file(data / file, good);
  };
  const std::string file = "train-images-idx3-ubyte", label_file = "t10k-labels-idx1-ubyte";
  for (const size_t keep : {size_t{0}, size_t{3}, size_t{15}, size_t{16}, pictures.size() - 1})
    refuses(file, pictures.substr(0, keep), {file});
  refuses(file, "this is no IDX file at all", {file});
  refuses(label_file, labels.substr(0, 9) + "\x0a", {label_file, "label is out of range", "10", "0 to 9"});
  refuses(label_file, labels.substr(0, 9), {label_file});
}

TEST_F(CommandLine, ALossThatIsNotFiniteIsCode3AndKeepsTheCheckpoint) {
  const std::filesystem::path checkpoint = folder_ / "c", out = folder_ / "out.onnx";
  const std::string train =
      "train --net mlp-fraud --data fake --fake-size 32 --batch 8 --checkpoint " + in_quotes(checkpoint);
  ASSERT_EQ(call_tool(train).code, 0);
  const std::string before = read_file(checkpoint);
  const ToolCall c = call_tool(train + " --epochs 3 --rate 1e38 -o " + in_quotes(out));
  EXPECT_EQ(c.code, input) << c.err;
  EXPECT_THAT(c.err, AllOf(HasSubstr("epoch 2"), HasSubstr("the loss is not finite"),
                           HasSubstr(checkpoint.string())));
  EXPECT_EQ(c.out, "");
  EXPECT_TRUE(read_file(checkpoint) == before);
  EXPECT_FALSE(std::filesystem::exists(out));
  // the only step's loss is finite, what it leaves is not
  const ToolCall last =
      call_tool("train --net mlp-fraud --data fake --fake-size 8 --batch 8 --rate 3e38 --checkpoint " +
                in_quotes(folder_ / "d") + " -o " + in_quotes(out));
  EXPECT_EQ(last.code, input) << last.err;
  EXPECT_THAT(last.err, HasSubstr("not finite after the update"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "d") || std::filesystem::exists(out));
}

TEST_F(CommandLine, WhereATrainingCannotWriteIsKnownBeforeItBegins) {
  const std::string train = "train --net linear --data fake --fake-size 32 --batch 8 ",
                    nowhere = in_quotes(x_ / "sub");
  for (const std::string& option : {"-o " + nowhere, "--log " + nowhere, "--checkpoint " + nowhere}) {
    const ToolCall c = call_tool(train + option);
    EXPECT_EQ(c.code, machine) << option << c.err;
    EXPECT_THAT(c.err, AllOf(HasSubstr("x.npy/sub"), testing::Not(HasSubstr("step 4/4")))) << option;
  }
}

TEST_F(CommandLine, ADamagedCheckpointIsCode3AndStays) {
  const std::filesystem::path checkpoint = folder_ / "c", out = folder_ / "out.onnx";
  const std::string train = "train --net mlp-fraud --data fake --fake-size 32 --batch 8 --epochs 2 -o " +
                            in_quotes(out) + " --checkpoint " + in_quotes(checkpoint);
  const std::string other =
      "train --net linear --data fake --fake-size 32 --batch 8 --checkpoint " + in_quotes(checkpoint);
  ASSERT_EQ(call_tool(other).code, 0);
  const std::string good = read_file(checkpoint);
  for (const std::string& bytes :
       {std::string(), good.substr(0, good.size() / 2), std::string("no checkpoint"), good}) {
    write_file(checkpoint, bytes);
    expect_error(train, input, {checkpoint.string()});  // the last one is another network's
    EXPECT_TRUE(read_file(checkpoint) == bytes);
    EXPECT_FALSE(std::filesystem::exists(out));
  }
}

/// A convolution over pictures of any size, as another tool would save it: saved for 200 x 201, then those dims' numbers
/// replaced by names of as many bytes.
void save_symbolic_picture_model(const std::filesystem::path& path) {
  const ir::Value x = ir::new_input("x", {Dtype::f32, {1, 200, 201, 2}});
  const ir::Array ones = Tensor::ones({2, 3, 3, 2}).array();
  op::ConvAttrs a = op::plain_conv(2, Dtype::f32);
  a.pad_low = a.pad_high = {1, 1};
  const ir::Value y = op::relu(op::conv(x, ir::constant(ones), a));
  format::save_onnx(path,
                    {.name = "pictures", .inputs = {x}, .outputs = {{"y", y}}, .state = {}, .info = {}});
  std::string bytes = read_file(path);
  for (const auto& [number, name] : {std::pair{"\x0a\x03\x08\xc8\x01", "\x0a\x03\x12\x01h"},
                                     std::pair{"\x0a\x03\x08\xc9\x01", "\x0a\x03\x12\x01w"}}) {
    int count = 0;
    for (size_t at = 0; (at = bytes.find(number, at)) != std::string::npos; ++count)
      bytes.replace(at, 5, name);
    ASSERT_GE(count, 2) << "input and output";
  }
  write_file(path, bytes);
}

TEST_F(CommandLine, SymbolicPicturesTakeTheDimsOfTheGivenInput) {
  const std::filesystem::path model = folder_ / "pictures.onnx";
  save_symbolic_picture_model(model);
  for (const std::vector<int64_t>& size : {std::vector<int64_t>{1, 12, 10, 2}, {1, 5, 33, 2}}) {
    format::save_npy(folder_ / "p.npy", Tensor::ones(size).array());
    const ToolCall c = call_tool("run " + in_quotes(model) + " --input x=" + in_quotes(folder_ / "p.npy") +
                                 " --output " + in_quotes(folder_ / "results"));
    EXPECT_EQ(c.code, 0) << c.err;
    const ir::Array y = format::load_npy(folder_ / "results/y.npy");
    EXPECT_EQ(y.dims(), size);
    EXPECT_EQ(y.at(0), 8) << "four taps of two channels in the corner";
  }
  const ToolCall bench = call_tool("bench " + in_quotes(model) + " --dims x=1,16,24,2 --seconds 0.01 --json");
  EXPECT_EQ(bench.code, 0) << bench.err;
  const ToolCall inspect = call_tool("inspect " + in_quotes(model) + " --dims x=1,16,24,2 --json");
  EXPECT_EQ(inspect.json()["outputs"]["y"], "f32[1,16,24,2]");
}

TEST_F(CommandLine, RunTakesItsInputsByTheModelsNames) {
  const std::filesystem::path odd = folder_ / "odd.onnx", none = folder_ / "none.onnx";
  const ir::Value x = ir::new_input("a=b", {Dtype::f32, {5, 64}});
  const ir::Value one = ir::constant(Tensor::ones({2}).array());
  const auto outputs = [](const ir::Value& v) {
    return std::vector<ir::Output>{{"a/b", op::relu(v)}, {"a_b", op::exp(v)}};
  };
  format::save_onnx(odd, {.name = "odd", .inputs = {x}, .outputs = outputs(x), .state = {}, .info = {}});
  format::save_onnx(none, {.name = "none", .inputs = {}, .outputs = outputs(one), .state = {}, .info = {}});
  const std::string to = " --output " + in_quotes(folder_ / "results");
  ToolCall c = call_tool("run --input 'a=b'=" + in_quotes(x_) + " " + in_quotes(odd) + to + " --json");
  EXPECT_EQ(c.code, 0) << c.err;
  EXPECT_EQ(c.json()["outputs"][0]["file"], (folder_ / "results/a_b.npy").string());
  EXPECT_EQ(c.json()["outputs"][1]["file"], (folder_ / "results/a_b_2.npy").string());
  EXPECT_EQ(call_tool("run " + in_quotes(none) + to).code, 0);
  EXPECT_EQ(format::load_npy(folder_ / "results/a_b.npy").at(1), 1);
  expect_error("run " + in_quotes(odd) + to + " --input 'a=b='", usage, {"names no file"});
  expect_error(run_arguments("--device null --input x=" + in_quotes(x_)), usage,
               {"--device", "computes nothing"});
}

TEST_F(CommandLine, ACacheOfKernelsThatIsNotUsedIsSaidOnce) {
  std::filesystem::create_directory(folder_ / "open");
  std::filesystem::permissions(folder_ / "open", std::filesystem::perms::all);
  for (const char* name : {"open", "x.npy"}) {
    const ToolCall c =
        call_tool("devices --json", "export ESPALIER_CACHE_DIR=" + in_quotes(folder_ / name) + ";");
    EXPECT_EQ(c.code, 0);
    EXPECT_EQ(c.json()["kernel_cache"]["folder"], "");
    EXPECT_THAT(c.json()["kernel_cache"]["refused"], HasSubstr(name));
    EXPECT_THAT(c.err, AllOf(HasSubstr("the cache of kernels is not used"), HasSubstr(name)));
    EXPECT_EQ(std::count(c.err.begin(), c.err.end(), '\n'), 1);
  }
  const ToolCall off = call_tool("devices --json", "export ESPALIER_CACHE_DIR=off;");
  EXPECT_EQ(off.json()["kernel_cache"]["refused"], "");
  EXPECT_EQ(off.err, "");
}

/// A training of about a dozen short epochs with a checkpoint after each.
class TrainProcess {
 public:
  explicit TrainProcess(const std::filesystem::path& folder) : folder_(folder) {}
  std::vector<std::string> words() const {
    return {"train",
            "--net",
            "mlp",
            "--data",
            "fake",
            "--fake-size",
            "128",
            "--batch",
            "32",
            "--epochs",
            "12",
            "--checkpoint",
            (folder_ / "c").string(),
            "-o",
            (folder_ / "m.onnx").string()};
  }
  ToolCall to_the_end() const {
    std::string line;
    for (const std::string& w : words()) line += in_quotes(w) + " ";
    return call_tool(line);
  }
  /// Start it, send `signal` once there is a checkpoint, and wait: the exit code, 128 + signal where one ended it.
  int signalled(int signal) const {
    std::vector<std::string> all = words();
    all.insert(all.begin(), ESPALIER_TOOL);
    std::vector<char*> argv;
    for (std::string& w : all) argv.push_back(w.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    pid_t child = 0;
    EXPECT_EQ(::posix_spawn(&child, argv[0], &actions, nullptr, argv.data(), environ), 0);
    ::posix_spawn_file_actions_destroy(&actions);
    int status = 0;
    while (!std::filesystem::exists(folder_ / "c") && ::waitpid(child, &status, WNOHANG) == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ::kill(child, signal);
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::string model() const { return read_file(folder_ / "m.onnx"); }
  bool has_model() const { return std::filesystem::exists(folder_ / "m.onnx"); }

 private:
  std::filesystem::path folder_;
};

TEST(CommandLineTraining, InterruptedOrKilledItGoesOnToTheSameBits) {
  const TemporaryFolder undisturbed;
  const TrainProcess whole(undisturbed.path());
  const ToolCall end = whole.to_the_end();
  ASSERT_EQ(end.code, 0) << end.err;
  for (const auto& [signal, code] : std::vector<std::pair<int, int>>{
           {SIGINT, interrupted}, {SIGTERM, interrupted}, {SIGKILL, 128 + SIGKILL}}) {
    const TemporaryFolder folder;
    const TrainProcess run(folder.path());
    EXPECT_EQ(run.signalled(signal), code);
    EXPECT_FALSE(run.has_model()) << "it had ended before the signal";
    const ToolCall rest = run.to_the_end();
    EXPECT_EQ(rest.code, 0) << rest.err;
    EXPECT_TRUE(run.model() == whole.model()) << "other bits after signal " << signal;
  }
}

}  // namespace
}  // namespace espalier::test
