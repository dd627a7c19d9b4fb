#pragma once
// Random convolutional networks, some of whose weights stand in several layers: what the passes for convolutions, norms and precision have to work on, which random graphs
// rarely hold. Small pictures; channels that blocks divide and channels that they do not.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "grad/grad.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/norm.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "op/window.h"
#include "support/arrays.h"

namespace espalier::test {

struct RandomNetworkOptions {
  int layers = 7;
  bool frozen =
      true;  ///< parameters are constants (inference); else inputs, and their gradients are outputs too
  /// Gradients through max_pool too. Where a maximum lies may jump with a rounding, so only for passes that change none.
  bool max_pool_gradients = false;
};

struct RandomNetwork {
  ir::Graph graph;
  std::vector<ir::Array> inputs;
};

namespace detail {

class NetworkGrower {
 public:
  NetworkGrower(ir::SampleRng& rng, const RandomNetworkOptions& options) : rng_(rng), options_(options) {}

  RandomNetwork grow() {
    made_.graph.name = "network";
    const int64_t side = op::draw(rng_, 4, 7);
    ir::Value x = input("x", {op::draw(rng_, 1, 3), side, side, channels()}, -1, 1);
    for (int i = 0; i < options_.layers; ++i) {
      const ir::Value before = x;
      x = layer(x);
      if (before.type() == x.type() && op::draw_chance(rng_, 0.3)) x = op::add(x, before);
    }
    const ir::Value mean = op::mul(op::reduce_sum(x, {1, 2}), 1.0 / static_cast<double>(side * side));
    const ir::Value y = op::matmul(mean, parameter({mean.dims()[1].value(), 3}, 0.5));
    made_.graph.outputs.push_back({"y", y});
    if (!options_.frozen) add_gradients(op::reduce_sum(op::square(y), {0, 1}));
    ir::verify(made_.graph);
    return std::move(made_);
  }

 private:
  int64_t channels() {
    constexpr int64_t choices[] = {3, 4, 5, 8, 16};
    return choices[op::draw(rng_, 0, 4)];
  }
  ir::Value input(const std::string& name, std::vector<int64_t> dims, double low, double high) {
    ir::Array a = op::draw_array(rng_, ir::Dtype::f32, std::move(dims), low, high);
    made_.graph.inputs.push_back(ir::new_input(name, a.type()));
    made_.inputs.push_back(std::move(a));
    return made_.graph.inputs.back();
  }
  ir::Value parameter(const std::vector<int64_t>& dims, double size, double centre = 0) {
    ir::Value& known = known_[{dims, centre}];
    if (known && op::draw_chance(rng_, 0.4)) return known;
    if (options_.frozen)
      return known = ir::constant(op::draw_array(rng_, ir::Dtype::f32, dims, centre - size, centre + size));
    parameters_.push_back(
        input("p" + std::to_string(parameters_.size()), dims, centre - size, centre + size));
    return known = parameters_.back();
  }

  ir::Value layer(const ir::Value& x) {
    const int64_t c = x.dims()[3].value();
    switch (op::draw(rng_, 0, 6)) {
      case 0: return op::relu(x);
      case 1: return op::add(x, op::broadcast_in(parameter({c}, 0.5), x.dims(), {3}));
      case 2: return norm(x, c);
      case 3: return pool(x);
      default: return convolution(x, c);
    }
  }
  ir::Value norm(const ir::Value& x, int64_t c) {
    const ir::Value scale = parameter({c}, 0.25, 1), bias = parameter({c}, 0.25);
    if (!options_.frozen) return op::batch_norm_train(x, scale, bias, 1e-2)[0];
    return op::batch_norm(x, scale, bias, parameter({c}, 0.25), parameter({c}, 0.25, 1), 1e-5);
  }
  ir::Value pool(const ir::Value& x) {
    if (x.dims()[1].value() < 2) return x;
    op::PoolAttrs a{.window = {2, 2}, .stride = {1, 1}, .pad_low = {0, 0}, .pad_high = {0, 0}};
    const bool may_choose = options_.frozen || options_.max_pool_gradients;
    if (!may_choose || op::draw_chance(rng_, 0.5)) return op::avg_pool(x, a);
    return op::max_pool(op::draw_chance(rng_, 0.7) ? op::relu(x) : x, a)[0];
  }
  ir::Value convolution(const ir::Value& x, int64_t c) {
    const int64_t k = op::draw_chance(rng_, 0.5) ? 3 : 1;
    op::ConvAttrs a = op::plain_conv(2, ir::Dtype::f32);
    a.pad_low = a.pad_high = {k / 2, k / 2};
    a.groups = op::draw_chance(rng_, 0.15) ? c : 1;
    const int64_t out = a.groups > 1 ? c : channels(), in = c / a.groups;
    const double size = 2 / std::sqrt(static_cast<double>(k * k * in));
    ir::Value y = op::conv(x, parameter({out, k, k, in}, size), a);
    if (op::draw_chance(rng_, 0.5)) y = op::add(y, op::broadcast_in(parameter({out}, 0.5), y.dims(), {3}));
    if (op::draw_chance(rng_, 0.3)) y = norm(y, out);
    return op::draw_chance(rng_, 0.5) ? op::relu(y) : y;
  }

  void add_gradients(const ir::Value& loss) {
    const std::vector<ir::Value> gradients = autodiff::gradient(loss, parameters_);
    for (size_t i = 0; i < gradients.size(); ++i)
      made_.graph.outputs.push_back({"d" + std::to_string(i), gradients[i]});
  }

  ir::SampleRng& rng_;
  RandomNetworkOptions options_;
  RandomNetwork made_;
  std::vector<ir::Value> parameters_;
  std::map<std::pair<std::vector<int64_t>, double>, ir::Value> known_;  // by dims and centre
};

}  // namespace detail

/// A random network; equal generators give equal networks (up to the identity of inputs).
inline RandomNetwork random_network(ir::SampleRng& rng, const RandomNetworkOptions& options = {}) {
  return detail::NetworkGrower(rng, options).grow();
}

inline double largest(const ir::Array& a) {
  double size = 0;
  for (int64_t i = 0; i < a.size(); ++i) size = std::max(size, std::fabs(a.at(i)));
  return size;
}

/// |got - want| is within `tolerance` of the output's largest |want|, and a tenth of the network's largest: a gradient that
/// should be zero (of a bias before a norm) is a rounding of the others.
inline void expect_near(const std::vector<ir::Array>& got, const std::vector<ir::Array>& want,
                        double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  double all = 0;
  for (const ir::Array& a : want) all = std::max(all, largest(a));
  for (size_t o = 0; o < got.size(); ++o) {
    double off = 0;
    for (int64_t i = 0; i < want[o].size(); ++i) {
      const double d = std::fabs(got[o].at(i) - want[o].at(i));
      off = d <= off || std::isnan(off) ? off : d;
    }
    EXPECT_LE(off, tolerance * (largest(want[o]) + 0.1 * all)) << "output " << o;
  }
}

/// The graph with some of its float inputs as constants, which are taken from `inputs`.
inline ir::Graph with_some_frozen(const ir::Graph& graph, std::vector<ir::Array>& inputs,
                                  ir::SampleRng& rng) {
  ir::Graph out{.name = graph.name, .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  std::vector<ir::Value> values;
  std::vector<ir::Array> left;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool freeze = op::draw_chance(rng, 0.5);
    values.push_back(freeze ? ir::constant(inputs[i]) : graph.inputs[i]);
    if (freeze) continue;
    out.inputs.push_back(graph.inputs[i]);
    left.push_back(inputs[i]);
  }
  const std::vector<ir::Value> results = ir::inline_graph(graph, values);
  for (size_t i = 0; i < results.size(); ++i) out.outputs.push_back({graph.outputs[i].name, results[i]});
  inputs = std::move(left);
  return out;
}

}  // namespace espalier::test
