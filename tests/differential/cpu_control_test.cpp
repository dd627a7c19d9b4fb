// Control flow on the CPU: bodies are programs inside a step. Values, gradients, nesting, memory, threads, against the reference.
#include "base/threads.h"
#include "grad/grad.h"
#include "op/activation.h"
#include "op/contraction.h"
#include "op/control.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "support/cpu_run.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

using ir::Array;
using ir::Dtype;
using ir::Graph;
using ir::Type;
using ir::Value;
using Values = std::vector<Value>;

/// A graph under construction and the numbers it is run on.
struct Case {
  std::vector<Value> inputs;
  std::vector<Array> data;
  ir::SampleRng rng{17};

  Value in(std::vector<int64_t> dims, Dtype dtype = Dtype::f32, double low = -1, double high = 1) {
    data.push_back(op::draw_array(rng, dtype, std::move(dims), low, high));
    inputs.push_back(ir::new_input("x" + std::to_string(inputs.size()), data.back().type()));
    return inputs.back();
  }
  Value in(Array array) {
    data.push_back(std::move(array));
    inputs.push_back(ir::new_input("x" + std::to_string(inputs.size()), data.back().type()));
    return inputs.back();
  }
  Graph graph(const Values& outputs) const {
    Graph g{.name = "control",
            .level = ir::Level::tensor,
            .inputs = inputs,
            .outputs = {},
            .state = {},
            .info = {}};
    for (const Value& v : outputs) g.outputs.push_back({"y" + std::to_string(g.outputs.size()), v});
    return g;
  }
  void check(const Values& outputs, double factor = 32) const {
    const Graph g = graph(outputs);
    SCOPED_TRACE(ir::print(g));
    test::expect_close(test::run_on_cpu(g, data), target::reference::evaluate(g, data), factor);
  }
  /// The outputs, and the gradients of the sum of the float ones in every float input.
  Values with_gradients(Values outputs) const {
    Value loss = ir::constant(Dtype::f32, 0);
    for (const Value& v : outputs)
      if (v.dtype() == Dtype::f32) {
        std::vector<int64_t> axes;
        for (int i = 0; i < v.rank(); ++i) axes.push_back(i);
        loss = op::add(loss, op::reduce_sum(op::square(v), axes));
      }
    Values wrt;
    for (const Value& v : inputs)
      if (ir::is_float(v.dtype())) wrt.push_back(v);
    for (Value& g : autodiff::gradient(loss, wrt)) outputs.push_back(std::move(g));
    return outputs;
  }
};

Type row_of(Type t) {
  t.dims.erase(t.dims.begin());
  return t;
}

/// An Elman cell over x [steps, batch, in] and its two layers of state; the hidden state is stacked.
Values recurrent(const Value& h, const Value& x, const Value& w, const Value& u, bool reverse = false) {
  const ir::GraphRef body = op::body_graph(
      "cell", std::vector{h.type(), row_of(x.type()), w.type(), u.type()}, [](const Values& in) {
        const Value next = op::tanh(op::add(op::matmul(in[1], in[2]), op::matmul(in[0], in[3])));
        return Values{next, next};
      });
  return op::scan(
      {.body = body, .carries = 1, .slices = 1, .length = x.dims()[0].value(), .reverse = reverse},
      {h, x, w, u});
}

void steps_of(const run::Program& p, std::vector<const run::Step*>& out) {
  for (const run::Step& s : p.steps()) {
    out.push_back(&s);
    for (const auto& body : s.bodies) steps_of(*body, out);
  }
}

TEST(CpuControl, RecurrentCellsOfOddAndEvenRowSizes) {
  for (const int64_t width : {1, 3, 16, 33})
    for (const bool reverse : {false, true}) {
      Case c;
      const Value h = c.in({2, width}), x = c.in({7, 2, 5}), w = c.in({5, width}),
                  u = c.in({width, width}, Dtype::f32, -0.2, 0.2);
      c.check(c.with_gradients(recurrent(h, x, w, u, reverse)));
    }
}

TEST(CpuControl, NothingInABodyRunsInTheInterpreter) {
  Case c;
  const Value h = c.in({4, 32}), x = c.in({6, 4, 8}), w = c.in({8, 32}), u = c.in({32, 32});
  run::CompileOptions options;
  options.target = &target::cpu::cpu_target();
  const auto program = run::Program::compile(c.graph(c.with_gradients(recurrent(h, x, w, u))), options);
  std::vector<const run::Step*> steps;
  steps_of(*program, steps);
  size_t nested = 0;
  for (const run::Step* s : steps) {
    EXPECT_NE(s->kernel->name(), "reference") << s->op;
    nested += s->bodies.size();
  }
  EXPECT_GE(nested, 2u);
  EXPECT_NE(program->text().find("  program \"cell"), std::string::npos) << program->text();
}

TEST(CpuControl, MemoryOfBodiesIsInThePlan) {
  Case c;
  const Value h = c.in({64, 64}), x = c.in({4, 64, 64});
  const ir::GraphRef body =
      op::body_graph("wide", std::vector{h.type(), row_of(x.type())}, [](const Values& in) {
        const Value products = op::matmul(in[0], in[1]);
        return Values{op::tanh(op::matmul(products, op::matmul(in[1], products)))};
      });
  run::CompileOptions options;
  options.target = &target::cpu::cpu_target();
  const auto program = run::Program::compile(
      c.graph(op::scan({.body = body, .carries = 1, .slices = 1, .length = 4, .reverse = false}, {h, x})),
      options);
  ASSERT_EQ(program->steps().size(), 1u);
  const run::Program& inner = *program->steps()[0].bodies.at(0);
  EXPECT_GE(inner.memory().arena, 2 * 64 * 64 * 4);
  EXPECT_GE(program->memory().arena, inner.memory().arena);
  EXPECT_EQ(inner.state().size(), 1u);
}

TEST(CpuControl, CarriesThatSwapStayOrAreStacked) {
  Case c;
  const Value a = c.in({3, 5}), b = c.in({3, 5}), still = c.in({2}), x = c.in({4, 3, 5});
  const ir::GraphRef body = op::body_graph(
      "swap", std::vector{a.type(), b.type(), still.type(), row_of(x.type())}, [](const Values& in) {
        const Value sum = op::add(in[0], in[3]);
        return Values{in[1], sum, in[2], sum, in[0], in[3], op::mul(sum, in[1]), ir::constant(Dtype::i32, 3)};
      });
  const op::ScanAttrs at{.body = body, .carries = 3, .slices = 1, .length = 4, .reverse = true};
  c.check(c.with_gradients(op::scan(at, {a, b, still, x})));
}

TEST(CpuControl, ACarryMayBeReadElsewhere) {
  Case c;
  const Value a = c.in({8, 8}), x = c.in({3, 8, 8});
  const Value start = op::exp(a);
  const ir::GraphRef body =
      op::body_graph("sum", std::vector{a.type(), row_of(x.type()), a.type()},
                     [](const Values& in) { return Values{op::add(op::mul(in[0], in[2]), in[1])}; });
  const op::ScanAttrs at{.body = body, .carries = 1, .slices = 1, .length = 3, .reverse = false};
  const Value end = op::scan(at, {start, x, start})[0];
  c.check({end, op::scan(at, {end, x, end})[0], op::sub(start, end)});
}

TEST(CpuControl, NoStepsAtAll) {
  Case c;
  const Value h = c.in({2, 3}), x = c.in({0, 2, 4}), w = c.in({4, 3}), u = c.in({3, 3});
  c.check(c.with_gradients(recurrent(h, x, w, u)));
}

TEST(CpuControl, EmptyRows) {
  Case c;
  const Value h = c.in({0, 3}), x = c.in({5, 0, 4}), w = c.in({4, 3}), u = c.in({3, 3});
  c.check(recurrent(h, x, w, u));
}

TEST(CpuControl, AScanInAScan) {
  Case c;
  const Value h = c.in({2, 4}), x = c.in({3, 5, 2, 4}), w = c.in({4, 4}), u = c.in({4, 4});
  const ir::GraphRef body = op::body_graph(
      "outer", std::vector{h.type(), row_of(x.type()), w.type(), u.type()}, [](const Values& in) {
        const Values inner = recurrent(in[0], in[1], in[2], in[3]);
        return Values{op::add(inner[0], in[0]), inner[1]};
      });
  const op::ScanAttrs at{.body = body, .carries = 1, .slices = 1, .length = 3, .reverse = false};
  c.check(c.with_gradients(op::scan(at, {h, x, w, u})), 100);
}

TEST(CpuControl, ACondInAScan) {
  Case c;
  const Value h = c.in({3, 3}), x = c.in({6, 3, 3});
  const std::vector<Type> two{h.type(), h.type()};
  const ir::GraphRef product =
      op::body_graph("product", two, [](const Values& in) { return Values{op::matmul(in[0], in[1])}; });
  const ir::GraphRef sum =
      op::body_graph("sum", two, [](const Values& in) { return Values{op::add(in[0], op::sin(in[1]))}; });
  const ir::GraphRef body = op::body_graph("step", two, [&](const Values& in) {
    const Value positive = op::gt(op::reduce_sum(in[1], {0, 1}), ir::constant(Dtype::f32, 0));
    const Value next = op::cond(positive, product, sum, {in[0], in[1]})[0];
    return Values{next, op::select(op::broadcast_in(positive, {3, 3}, {}), next, in[0])};
  });
  const op::ScanAttrs at{.body = body, .carries = 1, .slices = 1, .length = 6, .reverse = false};
  c.check(c.with_gradients(op::scan(at, {h, x})), 100);
}

TEST(CpuControl, BranchesThatHandOperandsOn) {
  for (const double chosen : {0.0, 1.0}) {
    Case c;
    const Value which = c.in(Array::scalar(Dtype::boolean, chosen)), a = c.in({40, 3}), b = c.in({40, 3});
    const std::vector<Type> two{a.type(), b.type()};
    const ir::GraphRef swapped = op::body_graph("swapped", two, [](const Values& in) {
      return Values{in[1], in[0], in[0]};
    });
    const ir::GraphRef other = op::body_graph("other", two, [](const Values& in) {
      return Values{op::add(in[0], in[1]), in[1], op::relu(in[0])};
    });
    c.check(c.with_gradients(op::cond(which, swapped, other, {op::exp(a), b})));
  }
}

TEST(CpuControl, AWhileLoopInAScan) {
  Case c;
  const Value h = c.in({5}), x = c.in({4, 5}), limits = c.in({4}, Dtype::i32, 0, 3);
  const Type count{Dtype::i32, {}};
  const ir::GraphRef body =
      op::body_graph("step", std::vector{h.type(), row_of(x.type()), count}, [&](const Values& in) {
        const std::vector<Type> types{h.type(), count, h.type(), count};
        const ir::GraphRef again =
            op::body_graph("again", types, [](const Values& v) { return Values{op::lt(v[1], v[3])}; });
        const ir::GraphRef twice = op::body_graph("twice", types, [](const Values& v) {
          return Values{op::add(op::mul(v[0], v[2]), v[2]), op::add(v[1], 1)};
        });
        const Values ended = op::while_loop({.condition = again, .body = twice, .carries = 2},
                                            {in[0], ir::constant(Dtype::i32, 0), in[1], in[2]});
        return Values{ended[0], ended[0], ended[1]};
      });
  c.check(op::scan({.body = body, .carries = 1, .slices = 2, .length = 4, .reverse = false}, {h, x, limits}));
}

TEST(CpuControl, EveryDtype) {
  for (int d = 0; d < ir::dtype_count; ++d) {
    const auto dtype = static_cast<Dtype>(d);
    if (dtype == Dtype::boolean) continue;
    Case c;
    const Value h = c.in({3, 5}, dtype, -2, 2), x = c.in({7, 3, 5}, dtype, -2, 2);
    const ir::GraphRef body =
        op::body_graph("sums", std::vector{h.type(), row_of(x.type())}, [](const Values& in) {
          const Value next = op::add(in[0], in[1]);
          return Values{next, op::mul(next, in[1]), op::reduce_sum(next, {1})};
        });
    c.check(op::scan({.body = body, .carries = 1, .slices = 1, .length = 7, .reverse = false}, {h, x}));
  }
}

TEST(CpuControl, ASymbolicBatchIsBoundInBodies) {
  const ir::Dim batch = ir::Dim::symbol("batch");
  Case c;
  const Value h = ir::new_input("h", {Dtype::f32, {batch, 6}}),
              x = ir::new_input("x", {Dtype::f32, {5, batch, 4}});
  const Value w = ir::new_input("w", {Dtype::f32, {4, 6}}), u = ir::new_input("u", {Dtype::f32, {6, 6}});
  c.inputs = {h, x, w, u};
  const Graph g = c.graph(c.with_gradients(recurrent(h, x, w, u)));
  for (const int64_t n : {1, 3}) {
    c.data.clear();
    for (const std::vector<int64_t>& dims : {std::vector<int64_t>{n, 6}, {5, n, 4}, {4, 6}, {6, 6}})
      c.data.push_back(op::draw_array(c.rng, Dtype::f32, dims, -1, 1));
    run::CompileOptions options;
    options.symbols["batch"] = n;
    test::expect_close(test::run_on_cpu(g, c.data, options), target::reference::evaluate(g, c.data), 32);
  }
}

TEST(CpuControl, TheSameBitsOnAnyNumberOfThreads) {
  Case c;
  const Value h = c.in({64, 96}), x = c.in({5, 64, 80}), w = c.in({80, 96}),
              u = c.in({96, 96}, Dtype::f32, -0.1, 0.1);
  const Graph g = c.graph(c.with_gradients(recurrent(h, x, w, u)));
  set_threads(1);
  const std::vector<Array> alone = test::run_on_cpu(g, c.data);
  for (const int threads : {2, 3}) {
    set_threads(threads);
    const std::vector<Array> together = test::run_on_cpu(g, c.data);
    for (size_t o = 0; o < alone.size(); ++o)
      EXPECT_EQ(alone[o], together[o]) << threads << " threads, output " << o;
  }
  set_threads(available_threads());
}

TEST(CpuControl, MixedPrecisionGoesIntoBodies) {
  Case c;
  const Value h = c.in({4, 32}), x = c.in({6, 4, 16}), w = c.in({16, 32}, Dtype::f32, -0.2, 0.2),
              u = c.in({32, 32}, Dtype::f32, -0.2, 0.2);
  const Graph g = c.graph(c.with_gradients(recurrent(h, x, w, u)));
  run::CompileOptions options;
  options.precision = pass::Precision::bf16;
  const std::vector<Array> low = test::run_on_cpu(g, c.data, options), full = test::run_on_cpu(g, c.data);
  for (size_t o = 0; o < low.size(); ++o) {
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < low[o].size(); ++i) {
      worst = std::max(worst, std::abs(low[o].at(i) - full[o].at(i)));
      largest = std::max(largest, std::abs(full[o].at(i)));
    }
    EXPECT_LE(worst, 0.03 * largest) << "output " << o;
  }
}

}  // namespace
}  // namespace espalier
