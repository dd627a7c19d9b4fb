// A program of someone else: it sees the installed headers and the shared library only. It defines an op of its own, trains
// a layer and catches an error.
#include <base/error.h>
#include <nn/layers.h>
#include <nn/losses.h>
#include <nn/optim.h>
#include <op/table.h>
#include <tensor/compile.h>

#include <cmath>
#include <cstdio>

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

}  // namespace

int main() { return own_op() && training() && error() ? 0 : 1; }
