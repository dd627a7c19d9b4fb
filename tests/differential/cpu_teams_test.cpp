// Convolutions of odd shapes: right (in f32), and the same bits on any number of threads, that of compiling and that of running.
#include "base/threads.h"
#include "grad/grad.h"
#include "op/activation.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "op/window.h"
#include "support/arrays.h"
#include "support/cpu_run.h"
#include "support/op_samples.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
using ir::Value;
using Ints = std::vector<int64_t>;

struct Pool {
  ~Pool() { set_threads(available_threads()); }
};

/// The outputs of a compiled program.
std::vector<Array> outputs(run::Executor& executor, const std::vector<Array>& inputs) {
  std::vector<Array> out;
  for (size_t i = 0; i < inputs.size(); ++i) executor.bind_input(i, inputs[i].data());
  for (size_t o = 0; o < executor.program().outputs().size(); ++o) {
    const ir::Type& t = executor.program().outputs()[o].type;
    out.emplace_back(t.dtype, ir::static_dims(t.dims));
    executor.bind_output(o, out.back().write());
  }
  executor.poison();
  executor.run();
  return out;
}

/// Compiled and run on 1, 2, 5 and 16 threads, and compiled for one and run on all. The names of the kernels.
std::string check(const ir::Graph& g, const std::vector<Array>& inputs, pass::Precision precision) {
  const Pool pool;
  run::CompileOptions options;
  options.target = &target::cpu::cpu_target();
  options.precision = precision;
  const auto compiled = [&](int threads) {
    set_threads(threads);
    return run::Executor(run::Program::compile(g, options));
  };
  run::Executor first = compiled(2);
  const std::vector<Array> want = outputs(first, inputs);
  std::string kernels;
  for (const auto& step : first.program().steps()) kernels += std::string(step.kernel->name()) + "; ";
  SCOPED_TRACE(kernels + "\n" + ir::print(g));
  if (precision == pass::Precision::f32)
    test::expect_close(want, target::reference::evaluate(g, inputs), 3000);
  for (const int threads : {1, 5, 16}) {
    set_threads(threads);
    EXPECT_EQ(outputs(first, inputs), want) << "run on " << threads << " threads";
    run::Executor other = compiled(threads);
    EXPECT_EQ(outputs(other, inputs), want) << "compiled for " << threads << " threads";
  }
  return kernels;
}

struct Shape {
  int64_t batch, channels, features, groups;
  Ints in, kernel, stride, dilation, low, high;
};

Shape random_shape(ir::SampleRng& rng) {
  constexpr int64_t channels[] = {1, 2, 3, 16, 17, 32, 64};
  const auto axes = static_cast<size_t>(op::draw(rng, 1, 3));
  Shape s;
  s.batch = op::draw(rng, 1, 5);
  s.groups = op::draw_chance(rng, 0.3) ? 2 : 1;
  s.channels = channels[op::draw(rng, 0, 6)] * s.groups;
  s.features = channels[op::draw(rng, 0, 6)] * s.groups;
  for (size_t d = 0; d < axes; ++d) {
    s.kernel.push_back(op::draw(rng, 1, 4));
    s.stride.push_back(op::draw(rng, 1, 2));
    s.dilation.push_back(axes == 1 ? op::draw(rng, 1, 4) : op::draw(rng, 1, 2));
    s.low.push_back(op::draw(rng, 0, 4));
    s.high.push_back(op::draw_chance(rng, 0.5) ? s.low.back() : op::draw(rng, 0, 3));
    const int64_t window = s.dilation.back() * (s.kernel.back() - 1) + 1;
    s.in.push_back(window + op::draw(rng, 0, axes == 3 ? 5 : axes == 2 ? 16 : 120));
  }
  return s;
}

ir::Graph convolution(const Shape& s, ir::SampleRng& rng, std::vector<Array>& inputs) {
  op::ConvAttrs a = op::plain_conv(static_cast<int>(s.in.size()), Dtype::f32);
  a.groups = s.groups;
  a.stride = s.stride;
  a.dilation = s.dilation;
  a.pad_low = s.low;
  a.pad_high = s.high;
  Ints x{s.batch}, w{s.features};
  x.insert(x.end(), s.in.begin(), s.in.end());
  x.push_back(s.channels);
  w.insert(w.end(), s.kernel.begin(), s.kernel.end());
  w.push_back(s.channels / s.groups);
  for (const Ints& dims : {x, w, Ints{s.features}, Ints{s.features}})
    inputs.push_back(op::draw_array(rng, Dtype::f32, dims, -1, 1));
  ir::Graph g{.name = "conv", .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  for (const Array& i : inputs)
    g.inputs.push_back(ir::new_input("x" + std::to_string(g.inputs.size()), i.type()));
  const bool constant = op::draw_chance(rng, 0.5);
  const Value c = op::conv(g.inputs[0], constant ? ir::constant(inputs[1]) : g.inputs[1], a);
  const auto per_channel = [&](size_t i) { return op::broadcast_in(g.inputs[i], c.dims(), {c.rank() - 1}); };
  const int64_t epilogue = op::draw(rng, 0, 4);
  const Value y = epilogue == 0   ? c
                  : epilogue == 1 ? op::relu(op::add(c, per_channel(2)))
                  : epilogue == 2 ? op::mul(c, per_channel(2))
                  : epilogue == 3 ? op::add(op::mul(c, per_channel(2)), per_channel(3))
                                  : op::mul(op::relu(op::add(c, per_channel(2))), per_channel(3));
  op::ConvAttrs data = a, weights = a;
  data.spatial = s.in;
  weights.spatial = s.kernel;
  g.outputs = {{"y", y},
               {"dx", op::conv_data_grad(c, g.inputs[1], data)},
               {"dw", op::conv_weight_grad(g.inputs[0], c, weights)}};
  return g;
}

TEST(CpuTeams, RandomConvolutionsAreRightAndTheSameOnAnyTeam) {
  ir::SampleRng rng(21);
  for (int i = 0; i < 80 && !::testing::Test::HasFailure(); ++i) {
    std::vector<Array> inputs;
    const ir::Graph g = convolution(random_shape(rng), rng, inputs);
    check(g, inputs, i % 4 == 3 ? pass::Precision::bf16 : pass::Precision::f32);
  }
}

/// Few channels, and a batch that fills vectors: convolution, pooling, concatenation, crop and convolution, with the gradients by all.
ir::Graph few_channels(ir::SampleRng& rng, std::vector<Array>& inputs) {
  const auto axes = static_cast<size_t>(op::draw(rng, 1, 2));
  const int64_t channels = op::draw(rng, 1, 15), middle = op::draw(rng, 1, 7),
                features = op::draw(rng, 1, 32);
  const auto dims = [&](int64_t first, int64_t extent, int64_t last) {
    Ints d(axes, extent);
    d.insert(d.begin(), first);
    d.push_back(last);
    return d;
  };
  const int64_t pad = op::draw(rng, 0, 2);
  inputs = {
      op::draw_array(rng, Dtype::f32, dims(16 * op::draw(rng, 1, 3), op::draw(rng, 9, 14), channels), -1, 1),
      op::draw_array(rng, Dtype::f32, dims(middle, op::draw(rng, 1, 5), channels), -1, 1),
      op::draw_array(rng, Dtype::f32, {middle}, -1, 1),
      op::draw_array(rng, Dtype::f32, dims(features, 3, 2 * middle), -1, 1)};
  ir::Graph g{.name = "few", .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  for (const Array& i : inputs)
    g.inputs.push_back(ir::new_input("x" + std::to_string(g.inputs.size()), i.type()));
  op::ConvAttrs a = op::plain_conv(static_cast<int>(axes), Dtype::f32);
  a.pad_low = a.pad_high = Ints(axes, pad);
  Value h = op::conv(g.inputs[0], g.inputs[1], a);
  h = op::relu(op::add(h, op::broadcast_in(g.inputs[2], h.dims(), {h.rank() - 1})));
  h = op::max_pool(h, {Ints(axes, 2), Ints(axes, 1), Ints(axes, 0), Ints(axes, 0), false, {}})[0];
  h = op::concat({h, op::tanh(h)}, h.rank() - 1);
  const Value y = op::conv(h, g.inputs[3], op::plain_conv(static_cast<int>(axes), Dtype::f32));
  Ints all;
  for (int64_t d = 0; d < y.rank(); ++d) all.push_back(d);
  const Value loss = op::reduce_mean(op::square(y), all);
  g.outputs = {{"y", y}, {"loss", loss}};
  const std::vector<Value> gradients = autodiff::gradient(loss, g.inputs);
  for (size_t i = 0; i < gradients.size(); ++i) g.outputs.push_back({"d" + std::to_string(i), gradients[i]});
  return g;
}

TEST(CpuTeams, FewChannelsWithTheBatchAcrossLanesAreRightAndTheSameOnAnyTeam) {
  ir::SampleRng rng(23);
  for (int i = 0; i < 25 && !::testing::Test::HasFailure(); ++i) {
    std::vector<Array> inputs;
    const ir::Graph g = few_channels(rng, inputs);
    EXPECT_NE(check(g, inputs, pass::Precision::f32).find("batch conv"), std::string::npos) << ir::print(g);
  }
}

TEST(CpuTeams, ACausalConvolutionAndTheFirstOfResNetAreTheSameOnAnyTeam) {
  ir::SampleRng rng(22);
  for (const int64_t batch : {1, 4})
    for (const pass::Precision precision : {pass::Precision::f32, pass::Precision::bf16})
      for (const Shape& shape : {Shape{batch, 32, 32, 1, {128}, {3}, {1}, {4}, {8}, {0}},
                                 Shape{batch, 3, 64, 1, {64, 64}, {7, 7}, {2, 2}, {1, 1}, {3, 3}, {3, 3}}}) {
        std::vector<Array> inputs;
        check(convolution(shape, rng, inputs), inputs, precision);
      }
}

}  // namespace
}  // namespace espalier
