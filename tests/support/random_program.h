#pragma once
// Random graphs with state, views, shared readers, constants and outputs that are inputs: what plans have to get right.
#include <random>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"

namespace espalier::test {

struct RandomProgram {
  int inputs = 3, states = 3, nodes = 30, outputs = 3;
  bool odd_outputs = true;  ///< inputs, constants, states and doubles among the outputs
};

inline ir::Value random_node(std::mt19937_64& rng, const std::vector<ir::Value>& values) {
  const auto pick = [&] { return values[rng() % values.size()]; };
  const ir::Value a = pick();
  switch (rng() % 8) {
    case 0: return op::neg(a);
    case 1: return op::tanh(a);
    case 2: return op::relu(a);
    case 3: {  // a view
      const int64_t n = a.type().elements();
      if (a.rank() == 1 && n % 4 == 0) return op::reshape(a, {n / 4, 4});
      return op::reshape(a, {n});
    }
    case 4: {
      const ir::Value all = op::reduce_sum(a, op::all_axes(a));
      return op::sub(pick(), 0.125) == a ? a : op::broadcast_in(all, a.dims(), {});
    }
    default: {
      ir::Value b = pick();
      for (int tries = 0; tries < 8 && b.type() != a.type(); ++tries) b = pick();
      if (b.type() != a.type()) {
        const ir::Value all = op::reduce_sum(b, op::all_axes(b));
        b = op::broadcast_in(all, a.dims(), {});
      }
      return rng() % 2 ? op::add(a, b) : op::sub(op::mul(a, 0.5), b);
    }
  }
}

inline ir::Graph random_program(std::mt19937_64& rng, const RandomProgram& shape = {}) {
  const std::vector<ir::Dims> dims{{16}, {4, 4}, {40}, {64}, {3, 5}, {0}};
  const auto any_dims = [&] { return dims[rng() % (rng() % 6 == 0 ? dims.size() : dims.size() - 1)]; };
  ir::Graph g{
      .name = "random", .level = ir::Level::tensor, .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  std::vector<ir::Value> values;
  for (int i = 0; i < shape.inputs + shape.states; ++i) {
    const std::string name = (i < shape.inputs ? "x" : "s") + std::to_string(i);
    g.inputs.push_back(ir::new_input(name, {ir::Dtype::f32, any_dims()}));
    values.push_back(g.inputs.back());
  }
  ir::Array ramp(ir::Dtype::f32, {16});
  for (int64_t i = 0; i < ramp.size(); ++i) ramp.set(i, 0.25 * static_cast<double>(i));
  values.push_back(ir::constant(ramp));
  for (int i = 0; i < shape.nodes; ++i) values.push_back(random_node(rng, values));
  for (int s = 0; s < shape.states; ++s) {
    const ir::Value old = g.inputs[static_cast<size_t>(shape.inputs + s)];
    std::vector<ir::Value> fitting;
    for (const ir::Value& v : values)
      if (v.type() == old.type() && (shape.odd_outputs || (!ir::is_input(v) && !ir::constant_value(v))))
        fitting.push_back(v);
    ir::Value made = fitting.empty()
                         ? op::neg(old)
                         : fitting[fitting.size() - 1 - rng() % std::min<size_t>(fitting.size(), 6)];
    if (rng() % 2) made = op::sub(old, op::mul(made, 0.1));
    values.push_back(made);
    const std::string out = "new_s" + std::to_string(s);
    g.outputs.push_back({out, made});
    g.state.push_back({g.input_name(static_cast<size_t>(shape.inputs + s)), out});
  }
  for (int o = 0; o < shape.outputs; ++o) {
    const size_t back = shape.odd_outputs ? rng() % values.size() : rng() % 4;
    g.outputs.push_back({"y" + std::to_string(o), values[values.size() - 1 - back]});
  }
  return g;
}

}  // namespace espalier::test
