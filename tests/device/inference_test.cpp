// Frozen networks on a simulated GPU beside the reference and the CPU: weights are constants, batch norms are folded into them, and biases,
// residuals and relus go along with convolutions and products.
#include <gtest/gtest.h>

#include "op/sampling.h"
#include "run/device_executor.h"
#include "support/cpu_run.h"
#include "support/sim_plugin.h"
#include "support/training_steps.h"
#include "target/conv_call.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/sim/sim_driver.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using target::ConvStep;
using target::cuda::sim::SimOptions;
using test::NetworkSizes;

const NetworkSizes sizes{.mlp = {20, 32, 32, 5},
                         .mlp_batch = 16,
                         .resnet = {.classes = 10, .width = 8, .small_input = true},
                         .resnet_batch = 2,
                         .resnet_side = 32,
                         .unet_width = 8,
                         .unet_batch = 2,
                         .unet_side = 32};

/// As after training: statistics, scales and biases are not what they begin with, so that what is folded matters.
template <class Net>
void make_trained(Net& net) {
  ir::SampleRng rng(7);
  for (const Parameter& p : parameters_of(net)) {
    if (p.dims().size() != 1) continue;
    const bool is_scale = p.name().ends_with("running_var") || p.name().ends_with("weight");
    const Array a =
        op::draw_array(rng, p.type().dtype, p.dims(), is_scale ? 0.5 : -0.5, is_scale ? 1.5 : 0.5);
    std::memcpy(p.write(), a.data(), static_cast<size_t>(a.bytes()));
  }
}

struct Frozen {
  ir::Graph graph;
  Array x, want;  ///< what goes in, and what the reference makes of it
};

/// Each is made once.
const Frozen& frozen(const std::string& network) {
  static std::map<std::string, Frozen> all;
  if (!all.contains(network))
    test::each_network(sizes, [&](const std::string& name, auto& net, const ir::Type& x, const ir::Type&,
                                  const auto&, const auto& forward) {
      if (name != network) return;
      make_trained(net);
      Frozen& f = all[name] = {test::inference_graph(x, forward), test::data_of(x, 0), {}};
      f.want = target::reference::evaluate(f.graph, std::span(&f.x, 1)).at(0);
    });
  return all.at(network);
}

/// What goes along with the library's convolutions and products.
struct Epilogues {
  int convs = 0, channels = 0, residuals = 0, relus = 0;
  int products = 0, biases = 0, relu_biases = 0;
  bool operator==(const Epilogues&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Epilogues& e) {
  return out << e.convs << " convolutions with " << e.channels << " vectors, " << e.residuals
             << " residuals, " << e.relus << " relus; " << e.products << " products, " << e.biases
             << " with a bias, " << e.relu_biases << " with a bias and a relu";
}

Epilogues epilogues_of(const run::DeviceProgram& p) {
  Epilogues out;
  for (const target::CallRecord& call : p.calls()) {
    if (const auto* conv = std::get_if<target::ConvCall>(&call.work)) {
      ++out.convs;
      for (int i = 0; i < conv->step_count; ++i) {
        const ConvStep s = conv->steps[static_cast<size_t>(i)];
        out.channels += s == ConvStep::add_channel;
        out.residuals += s == ConvStep::add_residual;
        out.relus += s == ConvStep::relu;
      }
    } else if (const auto* product = std::get_if<target::GemmCall>(&call.work)) {
      ++out.products;
      out.biases += product->epilogue == target::GemmEpilogue::bias;
      out.relu_biases += product->epilogue == target::GemmEpilogue::relu_bias;
    }
  }
  return out;
}

/// The result of the third run: the first one's records are launched one by one, the others' as one, over poisoned memory.
Array inferred(const Frozen& f, pass::Precision precision, const Epilogues& epilogues,
               const SimOptions& gpu = {}) {
  const std::shared_ptr<target::Device> device = target::cuda::sim::make_sim_device(gpu);
  const auto planner = target::cuda::cuda_target(device);
  const auto program = std::make_shared<run::DeviceProgram>(
      run::Program::compile(f.graph, {.target = planner.get(), .precision = precision}), device);
  EXPECT_EQ(epilogues_of(*program), epilogues) << program->program().text();
  run::DeviceExecutor e(program);
  std::vector<Array> results;
  for (int run = 0; run < 3; ++run) {
    e.poison();
    std::memcpy(e.input(0), f.x.data(), static_cast<size_t>(f.x.bytes()));
    const void* y = e.output(e.run(), 0);
    std::memcpy(results.emplace_back(f.want.dtype(), f.want.dims()).write(), y,
                static_cast<size_t>(f.want.bytes()));
    EXPECT_EQ(results.back(), results.front()) << "run " << run;
  }
  EXPECT_EQ(e.replays(), 2) << e.why_no_graphs() << e.failed_capture();
  return results.back();
}

/// Of any element, beside the largest one.
double largest_error(const Array& got, const Array& want) {
  double largest = 0, off = 0;
  EXPECT_EQ(got.type(), want.type());
  for (int64_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::fabs(want.at(i)));
    off = std::max(off, std::isnan(got.at(i)) ? 1e30 : std::fabs(got.at(i) - want.at(i)));
  }
  return off / largest;
}

/// On the host, by kernels that round as the graph says.
Array on_cpu(const Frozen& f, pass::Precision precision) {
  run::CompileOptions options;
  options.precision = precision;
  options.exact = precision == pass::Precision::f32;
  return test::run_on_cpu(f.graph, std::span(&f.x, 1), options).at(0);
}

/// f32 within roundings of the reference and of the CPU.
void expect_inference(const std::string& network, const Epilogues& epilogues, const SimOptions& gpu = {}) {
  const Frozen& f = frozen(network);
  const Array got = inferred(f, pass::Precision::f32, epilogues, gpu);
  EXPECT_LE(largest_error(got, f.want), 2e-6);
  EXPECT_LE(largest_error(got, on_cpu(f, pass::Precision::f32)), 2e-6);
}

/// bf16 keeps 8 bits of each value between two layers: about as near to f32 as the CPU in bf16 comes, and to that.
void expect_bf16_inference(const std::string& network, const Epilogues& epilogues,
                           const SimOptions& gpu = {}) {
  constexpr double most = 0x1p-7;
  const Frozen& f = frozen(network);
  const Array got = inferred(f, pass::Precision::bf16, epilogues, gpu),
              cpu = on_cpu(f, pass::Precision::bf16);
  EXPECT_LE(largest_error(got, f.want), most);
  EXPECT_LE(largest_error(got, cpu), most);
  EXPECT_GT(largest_error(got, f.want), 1e-4) << "nothing is rounded to bf16";
}

constexpr Epilogues of_mlp{.products = 3, .biases = 1, .relu_biases = 2},
    of_resnet{.convs = 20, .channels = 20, .residuals = 8, .relus = 17, .products = 1, .biases = 1},
    of_unet{.convs = 36, .channels = 36, .residuals = 8, .relus = 27};

TEST(DeviceInference, OfAnMlpIsTheReferences) { expect_inference("mlp", of_mlp); }
TEST(DeviceInference, OfAResNetIsTheReferencesHeavy) { expect_inference("resnet18", of_resnet); }
TEST(DeviceInference, OfAUNetIsTheReferencesHeavy) { expect_inference("unet", of_unet); }

TEST(DeviceInference, OfAnMlpInBf16IsTheCpus) { expect_bf16_inference("mlp", of_mlp); }
TEST(DeviceInference, OfAResNetInBf16IsTheCpusHeavy) { expect_bf16_inference("resnet18", of_resnet); }
TEST(DeviceInference, OfAUNetInBf16IsTheCpusHeavy) { expect_bf16_inference("unet", of_unet); }

/// By kernels of our own alone.
SimOptions without_libraries() {
  SimOptions options;
  options.lt_missing = options.dnn_missing = "it is not installed";
  return options;
}

TEST(DeviceInference, WithoutLibrariesIsTheReferencesHeavy) {
  for (const char* network : {"mlp", "resnet18", "unet"}) {
    SCOPED_TRACE(network);
    expect_inference(network, {}, without_libraries());
    expect_bf16_inference(network, {}, without_libraries());
  }
}

TEST(DeviceInference, AWrongElementOfALibrarysResultIsSeen) {
  const Frozen& f = frozen("mlp");
  SimOptions gpu;
  gpu.ways.wrong = 0;
  EXPECT_FALSE(largest_error(inferred(f, pass::Precision::f32, of_mlp, gpu), f.want) <= 2e-6);
}

/// compile() of a layer with everything by default gives the bits of the program above.
TEST(DeviceInference, CompiledForCudaIsTheSameBits) {
  ASSERT_TRUE(test::use_sim_gpu());
  test::each_network(sizes, [&](const std::string& name, auto& net, const ir::Type& x, const ir::Type&,
                                const auto&, const auto& forward) {
    if (name != "resnet18") return;
    make_trained(net);
    Compiled step = compile(
        [&](const std::vector<Tensor>& in) { return std::vector<Tensor>{forward(in[0], nn::Mode::eval)}; },
        {.device = Device::cuda(), .freeze = true});
    Step& s = step.step(std::vector<ir::Type>{x});
    s.set_input(0, frozen(name).x);
    s.run();
    EXPECT_EQ(s.result(0), inferred(frozen(name), pass::Precision::f32, of_resnet));
  });
}

}  // namespace
}  // namespace espalier
