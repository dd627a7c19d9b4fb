// A program of someone else: it sees the installed headers and the shared library only. It defines an op of its own, trains
// a layer, catches an error, and builds a loop from the installed ops.
#include <base/error.h>
#include <base/threads.h>
#include <nn/layers.h>
#include <nn/losses.h>
#include <nn/optim.h>
#include <op/control.h>
#include <op/elementwise.h>
#include <op/table.h>
#include <tensor/compile.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

using namespace espalier;

namespace {

constinit const ir::OpDef twice_op{
    .name = "user_twice",
    .doc = "Two times x.",
    .kind = ir::Kind::elementwise,
    .arity = {1, 1},
    .dtypes = ir::float_types,
    .attrs = ir::attr_type<ir::NoAttrs>(),
    .infer = [](const ir::InferCtx& c) -> std::vector<ir::Type> { return {c.in[0]}; },
    .grad = ir::not_differentiable,
    .expand = nullptr,
    .scalar = ir::body<1, [](auto x) { return x + x; }>(),
    .eval = nullptr,
    .sample = nullptr,
};

bool own_op() {
  op::register_op(twice_op);
  const Tensor x = Tensor::of({1, -2, 3});
  const Tensor y = Tensor::from(ir::make(twice_op, {x.value()}), {x});
  return y.to_vector<float>() == std::vector<float>{2, -4, 6};
}

bool training() {
  nn::Init init(1);
  nn::Linear layer(4, 1, init);
  nn::Sgd sgd(parameters_of(layer), {.rate = 0.1});
  Compiled step = compile([&](const std::vector<Tensor>& batch) -> std::vector<Tensor> {
    const Tensor loss = nn::mse(layer(batch[0]), batch[1]);
    sgd.minimise(loss);
    return {loss};
  });
  const Tensor x = Tensor::randn({32, 4}, 3), y = x.sum({1}).reshape({32, 1});
  const double first = step({x, y})[0].item();
  double last = first;
  for (int i = 0; i < 50; ++i) last = step({x, y})[0].item();
  std::printf("loss %g, then %g\n", first, last);
  return std::isfinite(last) && last < first / 10;
}

bool error() {
  try {
    matmul(Tensor::ones({2, 3}), Tensor::ones({2, 3}));
  } catch (const UserError& e) {
    std::puts(e.what());
    return true;
  }
  return false;
}

/// Ops that Tensor has no method for are built on its values: here a loop that keeps a running sum.
bool control_flow() {
  const ir::Type number{ir::Dtype::f32, {}};
  const auto body = op::body_graph("sum", std::vector{number, number}, [](const std::vector<ir::Value>& in) {
    const ir::Value sum = op::add(in[0], in[1]);
    return std::vector{sum, sum};
  });
  const Tensor zero = Tensor(0.0), x = Tensor::of({1, 2, 3, 4});
  const std::vector<ir::Value> out =
      op::scan({.body = body, .carries = 1, .slices = 1, .length = 4}, {zero.value(), x.value()});
  const std::vector<float> sums = Tensor::from(out[1], {zero, x}).to_vector<float>();
  return sums == std::vector<float>{1, 3, 6, 10};
}

/// Is a library whose path holds `name` loaded?
bool is_loaded(const std::string& name) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find(name) != std::string::npos) return true;
  return false;
}

}  // namespace

// usage: user [cached]    With "cached" all its kernels must come from the object cache: it may not load LLVM.
int main(int argc, char** argv) {
  set_threads(2);
  if (!own_op() || !training() || !error() || !control_flow()) return 1;
  const bool cached = argc > 1 && std::strcmp(argv[1], "cached") == 0, llvm = is_loaded("libLLVM");
  if (llvm == cached)
    std::printf("LLVM is %s\n", llvm ? "loaded, though all kernels are cached" : "not loaded: who compiled?");
  return llvm == cached ? 1 : 0;
}
