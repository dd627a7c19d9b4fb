// Emitted loops on one thread: bytes per second, each operand and result counted once, and the time of small calls.
// Usage: kernels [PART OF A NAME]. Medians over short rounds of random data; CPU time, so that neighbours disturb less.
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>

#include "kernel/lower.h"
#include "op/activation.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/norm.h"
#include "op/window.h"
#include "target/cpu/compile.h"

namespace {

using namespace espalier;
using ir::Dtype;
using ir::Value;
using Ints = std::vector<int64_t>;

double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Body {
  std::vector<Value> inputs, outputs;
  Value in(Ints dims, Dtype dtype = Dtype::f32) {
    inputs.push_back(ir::new_input(fmt::format("x{}", inputs.size()), {dtype, ir::to_dims(dims)}));
    return inputs.back();
  }
};

/// Random bytes that are small numbers in `b`'s dtype.
std::vector<std::byte> random_elements(const kernel::Buffer& b, std::mt19937& rng) {
  std::vector<std::byte> bytes(static_cast<size_t>(b.elements * ir::dtype_size(b.dtype)) + 64);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (int64_t i = 0; i < b.elements; ++i) {
    const float v = uniform(rng);
    const uint16_t half = bf16_bits(v);
    if (b.dtype == Dtype::f32) std::memcpy(bytes.data() + 4 * i, &v, 4);
    if (b.dtype == Dtype::bf16) std::memcpy(bytes.data() + 2 * i, &half, 2);
  }
  return bytes;
}

void measure(const char* name, const Body& body) {
  ir::Graph graph;
  graph.inputs = body.inputs;
  for (size_t i = 0; i < body.outputs.size(); ++i)
    graph.outputs.push_back({fmt::format("y{}", i), body.outputs[i]});
  const double start = cpu_seconds();
  const auto result = kernel::lower(graph);
  if (const auto* refusal = std::get_if<kernel::Refusal>(&result))
    return fmt::print("{:26} refused: {}\n", name, refusal->reason);
  const auto& lowered = std::get<kernel::Lowered>(result);
  std::vector<target::cpu::CompiledKernel> kernels;
  for (const kernel::LoopNest& nest : lowered.nests) kernels.push_back(target::cpu::compile(nest));
  const double ready = cpu_seconds();

  std::mt19937 rng(1);
  std::vector<std::vector<std::byte>> memory;
  std::vector<void*> buffers;
  double bytes = 0;
  for (const kernel::Buffer& b : lowered.buffers) {
    memory.push_back(random_elements(b, rng));
    buffers.push_back(memory.back().data());
    if (b.role != kernel::Role::scratch) bytes += static_cast<double>(b.elements * ir::dtype_size(b.dtype));
  }
  const auto run = [&] {
    for (const auto& k : kernels)
      for (int64_t chunk = 0; chunk < k.chunks; ++chunk) k.fn(buffers.data(), chunk);
  };
  run();
  const double before = cpu_seconds();
  run();
  const auto repeats = static_cast<int>(std::clamp(0.004 / std::max(1e-8, cpu_seconds() - before), 1.0, 1e5));
  std::vector<double> rounds;
  for (int round = 0; round < 9; ++round) {
    const double t = cpu_seconds();
    for (int i = 0; i < repeats; ++i) run();
    rounds.push_back((cpu_seconds() - t) / repeats);
  }
  std::nth_element(rounds.begin(), rounds.begin() + 4, rounds.end());
  fmt::print("{:26} {:10.2f} us {:7.1f} GB/s  {} nests, ready in {:.1f} ms\n", name, rounds[4] * 1e6,
             bytes / rounds[4] * 1e-9, kernels.size(), (ready - start) * 1e3);
}

struct Case {
  const char* name;
  void (*build)(Body&);
};

const Case cases[] = {
    {"gelu 131072", [](Body& b) { b.outputs = {op::gelu(b.in({131072}))}; }},
    {"add relu 6.4M",
     [](Body& b) {
       b.outputs = {op::relu(op::add(b.in({16, 56, 56, 128}), b.in({16, 56, 56, 128})))};
     }},
    {"softmax 256x768",
     [](Body& b) {
       b.outputs = {op::softmax(b.in({256, 768}), 1)};
     }},
    {"layer norm 256x768",
     [](Body& b) {
       b.outputs = {op::layer_norm(b.in({256, 768}), b.in({768}), b.in({768}), 1e-5)};
     }},
    {"batch norm 16x56x56x64",
     [](Body& b) {
       b.outputs = op::batch_norm_train(b.in({16, 56, 56, 64}), b.in({64}), b.in({64}), 1e-5);
     }},
    {"max pool 16x112x112x64",
     [](Body& b) {
       b.outputs = op::max_pool(b.in({16, 112, 112, 64}), {{3, 3}, {2, 2}, {1, 1}, {1, 1}, false, {}});
     }},
    {"concat 16x64x64x(64+64)",
     [](Body& b) {
       b.outputs = {op::concat({b.in({16, 64, 64, 64}), b.in({16, 64, 64, 64})}, 3)};
     }},
    {"NCHW to NHWC 16x3x224x224",
     [](Body& b) {
       b.outputs = {op::transpose(b.in({16, 3, 224, 224}), {0, 2, 3, 1})};
     }},
    {"sum 6.4M",
     [](Body& b) {
       b.outputs = {op::reduce_sum(b.in({16, 56, 56, 128}), {0, 1, 2, 3})};
     }},
    {"linear 1x30x128",
     [](Body& b) {
       b.outputs = {op::relu(op::matmul(b.in({1, 30}), b.in({30, 128})))};
     }},
    {"linear 32x10x1",
     [](Body& b) {
       b.outputs = {op::matmul(b.in({32, 10}), b.in({10, 1}))};
     }},
};

}  // namespace

int main(int argc, char** argv) {
  fmt::print("{}, {}\n", target::cpu::cpu_name(), target::cpu::cpu_features().text());
  for (const Case& c : cases) {
    if (argc > 1 && !std::strstr(c.name, argv[1])) continue;
    Body body;
    c.build(body);
    measure(c.name, body);
  }
}
