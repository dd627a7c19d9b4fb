// TF32 by permission, from compile(), the Trainer and the command line to the records of a program on a simulated GPU, and the numbers there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "format/numpy.h"
#include "op/control.h"
#include "op/elementwise.h"
#include "run/program_cache.h"
#include "support/errors.h"
#include "support/network_graphs.h"
#include "support/products.h"
#include "support/recorded_device.h"
#include "support/sim_plugin.h"
#include "support/small_training.h"
#include "support/tool.h"
#include "tensor/compile.h"

namespace espalier::test {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using testing::Not;

const target::Target& planner() { return target::cuda::cuda_target(90); }

std::shared_ptr<const run::Program> planned(const ir::Graph& g, bool allow_tf32,
                                            pass::Precision precision = pass::Precision::f32) {
  run::CompileOptions options;
  options.target = &planner();
  options.precision = precision;
  options.allow_tf32 = allow_tf32;
  return run::Program::compile(g, options);
}

/// Of every product and convolution of f32, bodies included: may it round?
void gather(const run::Program& p, std::vector<bool>& out) {
  for (const run::Step& s : p.steps()) {
    for (const target::CallRecord& call : s.kernel->calls()) {
      if (const auto* gemm = std::get_if<target::GemmCall>(&call.work);
          gemm && gemm->a.dtype == ir::Dtype::f32)
        out.push_back(gemm->tf32);
      if (const auto* conv = std::get_if<target::ConvCall>(&call.work);
          conv && conv->x.dtype == ir::Dtype::f32)
        out.push_back(conv->tf32);
    }
    for (const auto& body : s.bodies) gather(*body, out);
  }
}
std::vector<bool> permissions(const run::Program& p) {
  std::vector<bool> out;
  gather(p, out);
  EXPECT_FALSE(out.empty()) << p.text();
  return out;
}

/// To the nearest number of 11 bits, which is TF32's for numbers of ordinary size.
double to_tf32(double x) {
  int exponent = 0;
  const double m = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(m, 11)), exponent - 11);
}

/// How far `got` is from the product of a [m, k] and b [k, n], which are rounded before or not.
double distance(const Array& got, const Array& a, const Array& b, bool rounded) {
  const int64_t m = a.dims()[0], k = a.dims()[1], n = b.dims()[1];
  const auto number = [&](const Array& x, int64_t i) { return rounded ? to_tf32(x.at(i)) : x.at(i); };
  double largest = 0;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t s = 0; s < k; ++s) sum += number(a, i * k + s) * number(b, s * n + j);
      largest = std::max(largest, std::fabs(got.at(i * n + j) - sum));
    }
  return largest;
}

class Tf32 : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(use_sim_gpu()); }
};

// ---- programs ------------------------------------------------------------------------------------------------------

TEST_F(Tf32, ProductsRoundTheirOperandsWhereItIsAllowed) {
  const Array a = Tensor::randn({6, 64}, 1).array(), b = Tensor::randn({64, 10}, 2).array();
  const std::vector<ir::Type> types{a.type(), b.type()};
  const auto on = [&](Device device, bool allow) {
    Compiled f =
        compile([](const std::vector<Tensor>& in) { return std::vector<Tensor>{matmul(in[0], in[1])}; },
                {.device = device, .allow_tf32 = allow});
    const Array y = f({Tensor(a), Tensor(b)})[0].array();
    return std::pair(y, f.step(types).program().text());
  };
  const double close = 1e-5, far = 1e-4;  // of sums of 64 in f32, and of operands that lose 13 bits
  const auto [fast, fast_text] = on(Device::cuda(), true);
  EXPECT_THAT(fast_text, HasSubstr("in tf32 :"));
  EXPECT_LT(distance(fast, a, b, true), close);
  EXPECT_GT(distance(fast, a, b, false), far);
  const auto [full, full_text] = on(Device::cuda(), false);
  EXPECT_THAT(full_text, Not(HasSubstr("tf32")));
  EXPECT_LT(distance(full, a, b, false), close);
  EXPECT_GT(distance(full, a, b, true), far);
  const auto [host, host_text] = on(Device::cpu(), true);
  EXPECT_EQ(host_text, on(Device::cpu(), false).second);
  EXPECT_LT(distance(host, a, b, false), close);
}

TEST_F(Tf32, ConvolutionsMayRoundWhereItIsAllowed) {
  nn::Init init(1);
  const nn::Conv2d layer(8, 16, 3, {}, init);
  const std::vector<ir::Type> types{{Dtype::f32, {2, 9, 9, 8}}};
  for (const bool allow : {true, false}) {
    Compiled f = compile([&](const std::vector<Tensor>& in) { return std::vector<Tensor>{layer(in[0])}; },
                         {.device = Device::cuda(), .allow_tf32 = allow});
    const run::Program& p = f.step(types).program();
    EXPECT_THAT(permissions(p), Each(allow)) << p.text();
    EXPECT_EQ(p.text().find(" tf32") != std::string::npos, allow) << p.text();
  }
}

/// Every product and convolution of training and inference, of f32 alone.
TEST(Tf32Programs, NetworksInF32AndNoOthersHeavy) {
  for (const NetworkGraph& n : network_graphs(small_networks(), Optimisation::momentum)) {
    SCOPED_TRACE(n.name);
    EXPECT_THAT(permissions(*planned(n.graph, true)), Each(true));
    EXPECT_THAT(permissions(*planned(n.graph, false)), Each(false));
    for (const auto low : {pass::Precision::bf16, pass::Precision::f16}) {
      const auto allowed = planned(n.graph, true, low), plain = planned(n.graph, false, low);
      std::vector<bool> of_f32;
      gather(*plain, of_f32);
      if (low == pass::Precision::bf16) EXPECT_THAT(of_f32, testing::IsEmpty());
      EXPECT_EQ(allowed->text(), plain->text());
      EXPECT_EQ(allowed->identity(), plain->identity());
    }
  }
}

TEST(Tf32Programs, OtherDtypesAreAsWithoutIt) {
  for (const Dtype dtype : {Dtype::f64, Dtype::bf16, Dtype::f16, Dtype::f32}) {
    const Value x = ir::new_input("x", {dtype, {2, 6, 6, 4}}), w = ir::new_input("w", {dtype, {4, 3, 3, 4}}),
                v = ir::new_input("v", {dtype, {4, 5}});
    op::ConvAttrs at = op::plain_conv(2, dtype);
    at.pad_low = at.pad_high = {1, 1};
    const ir::Graph g = graph_of({x, w, v}, {product(op::conv(x, w, at), v, dtype)});
    const auto allowed = planned(g, true), plain = planned(g, false);
    EXPECT_EQ(allowed->text() == plain->text(), dtype != Dtype::f32) << allowed->text();
    EXPECT_EQ(allowed->identity() == plain->identity(), dtype != Dtype::f32);
  }
}

TEST(Tf32Programs, BodiesOfControlFlowToo) {
  const Value h = ir::new_input("h", {Dtype::f32, {4, 16}}), w = ir::new_input("w", {Dtype::f32, {16, 16}}),
              more = ir::new_input("more", {Dtype::boolean, {}});
  const ir::GraphRef turn = op::body_graph("turn", std::vector{h.type(), w.type()}, [](const auto& in) {
    return std::vector<Value>{op::tanh(product(in[0], in[1], Dtype::f32))};
  });
  const ir::GraphRef all = op::body_graph("all", std::vector{h.type(), w.type()}, [&](const auto& in) {
    return op::scan({.body = turn, .carries = 1, .slices = 0, .length = 3, .reverse = false}, {in[0], in[1]});
  });
  const ir::GraphRef none = op::body_graph("none", std::vector{h.type(), w.type()},
                                           [](const auto& in) { return std::vector<Value>{op::neg(in[0])}; });
  const ir::Graph g = graph_of({h, w, more}, op::cond(more, all, none, {h, w}));
  const auto allowed = planned(g, true), plain = planned(g, false);
  EXPECT_THAT(permissions(*allowed), Each(true));
  EXPECT_THAT(permissions(*plain), Each(false));
  EXPECT_THAT(allowed->text(), HasSubstr("in tf32 :"));
  EXPECT_NE(allowed->identity(), plain->identity());
}

TEST(Tf32Programs, NeverShareACachedProgram) {
  const Value x = ir::new_input("x", {Dtype::f32, {4, 8}}), w = ir::new_input("w", {Dtype::f32, {8, 4}});
  const ir::Graph g = graph_of({x, w}, {product(x, w, Dtype::f32)});
  run::CompileOptions plain, allowed;
  plain.target = allowed.target = &planner();
  allowed.allow_tf32 = true;
  EXPECT_NE(plain.key(), allowed.key());
  run::ProgramCache cache;
  const auto first = cache.get(g, allowed);
  EXPECT_EQ(cache.get(g, allowed), first);
  const auto second = cache.get(g, plain);
  EXPECT_NE(second, first);
  EXPECT_EQ(cache.size(), 2u);
  EXPECT_NE(second->identity(), first->identity());
  EXPECT_THAT(permissions(*second), Each(false));
}

TEST_F(Tf32, WhatIsExactForbidsIt) {
  for (const Device& device : {Device::cpu(), Device::cuda()}) {
    Compiled both = compile([](const std::vector<Tensor>& in) { return std::vector<Tensor>{in[0] + in[0]}; },
                            {.device = device, .exact = true, .allow_tf32 = true, .name = "twice"});
    EXPECT_THAT(error_of([&] { both({Tensor::randn({2}, 1)}); }),
                AllOf(HasSubstr("program twice: allow_tf32"), HasSubstr("exact")));
  }
  const Value x = ir::new_input("x", {Dtype::f32, {4}});
  run::CompileOptions both;
  both.exact = both.allow_tf32 = true;
  EXPECT_THAT(error_of([&] { run::Program::compile_fused(graph_of({x}, {op::neg(x)}), both); }),
              HasSubstr("allow_tf32"));
}

/// A device whose cuBLASLt has nothing in TF32.
class WithoutTf32 final : public test::RecordedDevice {
 public:
  using RecordedDevice::RecordedDevice;
  target::LibraryAnswer ask(const target::CallRecord::Work& work) override {
    const auto* gemm = std::get_if<target::GemmCall>(&work);
    if (gemm && gemm->tf32) return {.refusal = "no TF32"};
    return RecordedDevice::ask(work);
  }
};

/// What the library does not do in TF32 it does in f32, alone and with what goes along.
TEST(Tf32Programs, APermissionIsNoDemand) {
  const Value x = ir::new_input("x", {Dtype::f32, {32, 8}}), w = ir::new_input("w", {Dtype::f32, {8, 32}});
  const auto planner = target::cuda::cuda_target(
      std::make_shared<WithoutTf32>(std::shared_ptr<target::Device>(target::cuda::sim::make_sim_device())));
  run::CompileOptions options;
  options.target = planner.get();
  options.allow_tf32 = true;
  for (const Value& y : {product(x, w, Dtype::f32), op::relu(product(x, w, Dtype::f32))})
    EXPECT_EQ(permissions(*run::Program::compile(graph_of({x, w}, {y}), options)), std::vector<bool>{false});
}

// ---- training ------------------------------------------------------------------------------------------------------

TEST_F(Tf32, TheTrainerPassesItOn) {
  for (const bool allow : {true, false}) {
    SmallTraining run({.allow_tf32 = allow, .device = Device::cuda()});
    EXPECT_THAT(permissions(run.trainer().step().program()), Each(allow));
    EXPECT_EQ(run.fit(), train::Ending::finished);
  }
}

/// As one of another precision is.
TEST_F(Tf32, ACheckpointMadeOtherwiseIsRefused) {
  const TemporaryFolder folder;
  const auto train = [&](bool allow, const char* file, int64_t steps, std::string precision = "f32") {
    SmallTraining run({.steps = steps,
                       .precision = std::move(precision),
                       .allow_tf32 = allow,
                       .device = Device::cuda(),
                       .checkpoint = folder / file});
    run.fit();
  };
  for (const bool allow : {true, false}) {
    const char* const file = allow ? "allowed" : "plain";
    train(allow, file, 3);
    EXPECT_EQ(error_of([&] { train(allow, file, 5); }), "no error");
    EXPECT_THAT(error_of([&] { train(!allow, file, 7); }),
                AllOf(HasSubstr(file), HasSubstr("was made in another precision"),
                      HasSubstr(allow ? "f32 with TF32 allowed" : "f32")));
    EXPECT_THAT(error_of([&] { train(allow, file, 7, "bf16"); }), HasSubstr("was made in another precision"));
  }
}

// ---- the command line ----------------------------------------------------------------------------------------------

class Tf32Tool : public Tf32 {
 protected:
  std::string file(const std::string& name) const { return "'" + (folder_ / name).string() + "'"; }
  static ToolCall call(const std::string& arguments) {
    ToolCall c = call_tool(arguments, on_sim_gpu());
    EXPECT_EQ(c.code, 0) << arguments << "\n" << c.err;
    return c;
  }
  void train(const std::string& name, const std::string& more) const {
    call("train --net mlp --data fake --fake-size 32 --batch 16 --seed 3 --log " + file(name + ".csv") +
         " -o " + file(name + ".onnx") + " " + more);
  }
  std::string log(const std::string& name) const {  // without its times
    std::istringstream lines(read_file(folder_ / (name + ".csv")));
    std::string all;
    for (std::string line; std::getline(lines, line);) all += line.substr(line.rfind(',')) + "\n";
    return all;
  }
  const TemporaryFolder folder_;
};

TEST_F(Tf32Tool, ProfileTuneAndBenchTakeIt) {
  const std::string net = " --net mlp-fraud --batch 4 --train --device cuda --json";
  for (const bool allow : {true, false}) {
    const std::string flag = allow ? " --tf32" : "";
    const nlohmann::json profile = call("profile --runs 1" + net + flag).json();
    EXPECT_EQ(profile["tf32"], allow);
    EXPECT_EQ(profile.dump().find("in tf32") != std::string::npos, allow) << profile;
    EXPECT_EQ(profile.dump().find("in f32") != std::string::npos, !allow) << profile;
    const nlohmann::json tuned = call("tune --runs 1 --top 1 -o " + file("choices") + net + flag).json();
    ASSERT_FALSE(tuned["records"].empty());
    for (const nlohmann::json& r : tuned["records"])
      EXPECT_THAT(r["record"].get<std::string>(), HasSubstr(allow ? ", in tf32" : ", in f32"));
    EXPECT_EQ(call("bench --seconds 0.01" + net + flag).json()["tf32"], allow);
  }
  EXPECT_THAT(call("bench --net mlp-fraud --seconds 0.01 --device cuda --tf32").out,
              HasSubstr(", f32 with TF32 allowed, "));
}

TEST_F(Tf32Tool, TrainAndRunTakeIt) {
  train("plain", "--device cuda");
  train("again", "--device cuda");
  train("allowed", "--device cuda --tf32");
  EXPECT_EQ(log("plain"), log("again"));
  EXPECT_NE(log("plain"), log("allowed"));
  train("host", "");
  train("host_allowed", "--tf32");
  EXPECT_EQ(log("host"), log("host_allowed"));

  format::save_npy(folder_ / "x.npy", Tensor::randn({3, 784}, 4).array());
  const auto result = [&](const std::string& name, const std::string& more) {
    const ToolCall c = call("run " + file("plain.onnx") + " --input x=" + file("x.npy") + " --output " +
                            file(name) + " --device cuda --json " + more);
    EXPECT_EQ(c.json()["tf32"], more == "--tf32");
    return read_file(folder_ / name / "y.npy");
  };
  const std::string plain = result("y", "");
  EXPECT_EQ(result("y_again", ""), plain);
  EXPECT_NE(result("y_allowed", "--tf32"), plain);
}

TEST_F(Tf32Tool, PlansOfModelsTakeIt) {
  train("m", "");
  for (const bool allow : {true, false}) {
    const std::string model = file("m.onnx") + " --device cuda" + (allow ? " --tf32" : "");
    const std::string plan = call("inspect --plan " + model).out;
    EXPECT_EQ(plan.find("in tf32") != std::string::npos, allow) << plan;
    EXPECT_EQ(plan.starts_with("# precision f32 with TF32 allowed\n"), allow) << plan;
    EXPECT_EQ(call("inspect --json --plan " + model).json()["tf32"], allow);
    call("optimise " + model + " -o " + file("o.onnx"));
  }
}

TEST_F(Tf32Tool, EveryCommandThatPlansShowsItAndExactExcludesIt) {
  for (const std::string command :
       {"train", "run", "bench", "profile", "tune", "compile", "inspect", "optimise"})
    EXPECT_THAT(call_tool(command + " --help").out, HasSubstr("--tf32")) << command;
  for (const std::string command : {"run m.onnx --output o", "bench --net linear", "profile --net linear",
                                    "tune --net linear", "compile --net linear -o o", "inspect m.onnx"}) {
    const ToolCall both = call_tool(command + " --exact --tf32");
    EXPECT_EQ(both.code, 2) << command;
    EXPECT_THAT(both.err, HasSubstr("--exact excludes --tf32")) << command;
  }
}

TEST_F(Tf32Tool, GpuCheckTimesItHeavy) {
  const std::string program = (std::filesystem::path(ESPALIER_TOOL).parent_path() / "gpu_check").string();
  const Outcome o = run_command(on_sim_gpu() + " exec '" + program +
                                "' --part 3 --small --only tf32 --out '" + folder_.path().string() + "'");
  EXPECT_EQ(o.code, 0) << o.output;
  const nlohmann::json speed = nlohmann::json::parse(read_file(folder_ / "speed.json"));
  ASSERT_EQ(speed["steps"].size(), 1u) << o.output;
  EXPECT_EQ(speed["steps"][0]["precision"], "tf32");
}

}  // namespace
}  // namespace espalier::test
