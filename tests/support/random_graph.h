#pragma once
// Random valid graphs, made of samples of the op table, and of squares, where axes are easily taken for one another. Some leaves
// are constants, which several ops share; integers hold extremes too. Every value is computed by the reference while the graph grows, so
// the outputs' right values come with it, and a node that would make comparisons meaningless is not taken.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "op/sampling.h"
#include "support/op_samples.h"
#include "target/reference/interpreter.h"

namespace espalier::test {

struct RandomGraphOptions {
  int nodes = 10;  ///< ops taken from the table (others fit their operands together)
  ir::DtypeSet dtypes = ir::dtype_set(ir::Dtype::f32);  ///< of the principal operands
  /// Only values that another order of rounding cannot upset: finite, below 1e3, and no op with jumps (floor, comparisons,
  /// casts to integers, argmax, ...) on computed floats. For differential tests. Off: anything goes.
  bool stable = true;
  int64_t largest = 4096;                     ///< elements of a value
  std::function<bool(const ir::OpDef&)> use;  ///< which ops may occur; empty = all but control flow
};

struct RandomGraph {
  ir::Graph graph;                ///< verified, tensor level, static
  std::vector<ir::Array> inputs;  ///< one set of operands
  std::vector<ir::Array> want;    ///< the outputs' values for them, by the reference
};

namespace detail {

class GraphGrower {
 public:
  GraphGrower(ir::SampleRng& rng, RandomGraphOptions options) : rng_(rng), options_(std::move(options)) {
    for (const ir::OpDef* op : sampled_ops()) {
      const bool wanted = options_.use ? options_.use(*op) : op->kind != ir::Kind::control;
      if (wanted && (op->dtypes.bits & options_.dtypes.bits)) ops_.push_back(op);
    }
    ESPALIER_CHECK(!ops_.empty(), "no op fits the options of a random graph");
    made_.graph.name = "random";
  }

  RandomGraph grow() {
    for (int taken = 0, tries = 0; taken < options_.nodes && tries < 60 * options_.nodes; ++tries)
      taken += !options_.use && op::draw_chance(rng_, 0.15) ? try_square() : try_op();
    for (size_t i = 0; i < values_.size(); ++i) {
      if (values_[i].is_leaf() || (values_[i].used && !op::draw_chance(rng_, 0.1))) continue;
      made_.graph.outputs.push_back({"y" + std::to_string(made_.want.size()), values_[i].value});
      made_.want.push_back(values_[i].array);
    }
    verify(made_.graph);
    return std::move(made_);
  }

 private:
  struct Known {
    ir::Value value;
    ir::Array array;
    bool used = false;
    bool is_leaf() const { return ir::is_input(value) || ir::constant_value(value); }
  };

  bool try_op() {
    const ir::OpDef& op = *ops_[pick(ops_.size())];
    const std::vector<ir::Dtype> dtypes =
        dtypes_of({static_cast<uint16_t>(op.dtypes.bits & options_.dtypes.bits)});
    const ir::Sample s = op.sample(rng_, dtypes[pick(dtypes.size())]);
    std::vector<Known> operands;
    std::vector<size_t> reused(s.inputs.size(), none);
    for (size_t i = 0; i < s.inputs.size(); ++i) operands.push_back(operand(op, s.inputs[i], i, reused[i]));
    std::vector<ir::Value> in;
    std::vector<ir::Array> arrays;
    for (const Known& k : operands) {
      in.push_back(k.value);
      arrays.push_back(k.array);
    }
    const std::vector<ir::Value> results = make_all(op, in, s.attrs);
    for (const ir::Value& r : results)
      if (r.type().elements() > options_.largest) return false;
    std::vector<ir::Array> out = target::reference::evaluate_node(results[0].node(), arrays);
    if (options_.stable && !std::all_of(out.begin(), out.end(), is_tame)) return false;
    for (size_t i = 0; i < operands.size(); ++i) keep(operands[i], reused[i]);
    for (size_t i = 0; i < results.size(); ++i) values_.push_back({results[i], std::move(out[i])});
    return true;
  }

  /// Some ops over an [n, n] value whose axes a wrong rule would confuse.
  bool try_square() {
    const uint16_t floats = ir::float_types.bits & options_.dtypes.bits;
    if (!floats) return false;
    const std::vector<ir::Dtype> dtypes = dtypes_of({floats});
    const ir::Dtype dtype = dtypes[pick(dtypes.size())];
    const int64_t n = std::array<int64_t, 4>{4, 5, 16, 17}[pick(4)];
    const ir::Array sample = op::draw_array(rng_, dtype, {n, n}, -1, 1);
    size_t reused = none;
    const Known a = operand(op::add_op, sample, 0, reused);
    const Known shared = constant_of({dtype, {n, n}}), row = constant_of({dtype, {n}});
    std::vector<ir::Value> made;
    const auto spread = [&](const ir::Value& v, int64_t axis) {
      return op::broadcast_in(v, a.value.dims(), {axis});
    };
    const int64_t axis = op::draw(rng_, 0, 1);
    switch (op::draw(rng_, 0, 3)) {
      case 0:
        made = {op::transpose(a.value, {1, 0}), op::add(a.value, op::transpose(a.value, {1, 0}))};
        break;
      case 1: {
        const ir::Value s = op::mul(op::reduce_sum(a.value, {axis}), 1.0 / static_cast<double>(n));
        made = {s, op::sub(spread(s, 0), spread(s, 1))};
        break;
      }
      case 2: {
        const op::DotAttrs at{
            .batch_a = {}, .batch_b = {}, .contract_a = {1}, .contract_b = {axis}, .out = dtype};
        made = {op::mul(op::dot(a.value, shared.value, at), 1.0 / static_cast<double>(n))};
        break;
      }
      default: made = {op::mul(a.value, spread(row.value, axis)), op::add(a.value, shared.value)};
    }
    std::vector<Known> results;
    for (const ir::Value& v : made) {
      results.push_back({v, array_of(v, a)});
      if (options_.stable && !is_tame(results.back().array)) return false;
    }
    keep(a, reused);
    for (Known& k : results) values_.push_back(std::move(k));
    return true;
  }

  /// The value of `v`, which is made of `known` and constants.
  static ir::Array array_of(const ir::Value& v, const Known& known) {
    if (v == known.value) return known.array;
    if (const ir::Array* a = ir::constant_value(v)) return *a;
    std::vector<ir::Array> operands;
    for (const ir::Value& in : v->inputs()) operands.push_back(array_of(in, known));
    return target::reference::evaluate_node(v.node(), operands)[static_cast<size_t>(v.result())];
  }

  /// The graph's one constant of that type.
  const Known& constant_of(const ir::Type& type) {
    for (const Known& k : constants_)
      if (k.value.type() == type) return k;
    const ir::Array a = op::draw_array(rng_, type.dtype, ir::static_dims(type.dims), -1, 1);
    return constants_.emplace_back(Known{ir::constant(a), a});
  }

  /// A value for operand i of `op` that has the sample's type: a known one, a known one made to fit, or a new input.
  Known operand(const ir::OpDef& op, const ir::Array& sample, size_t i, size_t& reused) {
    const bool may_jump = options_.stable && jumps(op) && is_float(sample.dtype());
    const bool position = op.kind == ir::Kind::indexed && i == 1;
    std::vector<size_t> same, others;
    for (size_t k = 0; k < values_.size(); ++k) {
      if (may_jump && !values_[k].is_leaf()) continue;
      if (values_[k].value.type() == sample.type()) same.push_back(k);
      else if (values_[k].array.size() > 0 && is_float(values_[k].array.dtype()) && is_float(sample.dtype()))
        others.push_back(k);
    }
    if (!position && is_float(sample.dtype()) && in_domain(op) && op::draw_chance(rng_, 0.85)) {
      if (!same.empty()) return values_[reused = same[pick(same.size())]];
      if (!others.empty() && !may_jump && op::draw_chance(rng_, 0.6)) {
        reused = others[pick(others.size())];
        return fitted(values_[reused], sample.type());
      }
    }
    const ir::Array a = position ? sample : with_extremes(sample);
    if (!position && op::draw_chance(rng_, 0.1)) return {ir::constant(a), a};
    return {ir::new_input("x" + std::to_string(names_++), a.type()), a};
  }

  /// Now and then, some elements of 64-bit integers are numbers that a double or a shorter integer has not.
  ir::Array with_extremes(const ir::Array& sample) {
    if (sample.dtype() != ir::Dtype::i64 || sample.size() == 0 || !op::draw_chance(rng_, 0.3)) return sample;
    ir::Array a = sample.copied();
    constexpr int64_t least = std::numeric_limits<int64_t>::min(), most = std::numeric_limits<int64_t>::max();
    constexpr std::array<int64_t, 5> extremes{least, most, least + 1, (int64_t{1} << 53) + 1,
                                              int64_t{1} << 31};
    for (int i = 0; i < 3; ++i) a.write<int64_t>()[pick(static_cast<size_t>(a.size()))] = extremes[pick(5)];
    return a;
  }

  /// `from` as another type: cast, flattened, cut or padded, reshaped.
  Known fitted(const Known& from, const ir::Type& type) {
    const int64_t n = type.elements(), have = from.array.size();
    ir::Value v = op::reshape(op::cast(from.value, type.dtype), {have});
    if (have > n) v = op::slice_axis(v, 0, 0, n);
    if (have < n) v = op::pad(v, ir::constant(type.dtype, 0.5), {0}, {n - have});
    v = op::reshape(v, type.dims);
    const ir::Array cast = from.array.cast(type.dtype);
    ir::Array array(type.dtype, ir::static_dims(type.dims));
    for (int64_t i = 0; i < n; ++i) array.set(i, i < have ? cast.at(i) : 0.5);
    return {v, array};
  }

  void keep(const Known& k, size_t reused) {
    if (reused != none) {
      values_[reused].used = true;
    } else if (k.is_leaf()) {
      values_.push_back(k);
      if (!ir::is_input(k.value)) return;
      made_.graph.inputs.push_back(k.value);
      made_.inputs.push_back(k.array);
    }
  }

  size_t pick(size_t n) { return static_cast<size_t>(op::draw(rng_, 0, static_cast<int64_t>(n) - 1)); }

  /// Ops whose domain is only part of the reals take fresh samples.
  static bool in_domain(const ir::OpDef& op) {
    for (const std::string_view name :
         {"log", "log1p", "sqrt", "rsqrt", "reciprocal", "div", "rem", "pow", "tan", "atan2", "batch_norm",
          "batch_norm_grad", "bce_with_logits", "max_pool_grad"})
      if (op.name == name) return false;
    return true;
  }

  /// Ops whose result may jump where an operand moves by a rounding.
  static bool jumps(const ir::OpDef& op) {
    for (const std::string_view name :
         {"sign", "floor", "ceil", "round", "trunc", "rem", "eq", "ne", "lt", "le", "gt", "ge", "is_nan",
          "argmax", "argmin", "max_pool", "cast", "dropout"})
      if (op.name == name) return true;
    return false;
  }

  static bool is_tame(const ir::Array& a) {
    if (!is_float(a.dtype())) return true;
    for (int64_t i = 0; i < a.size(); ++i)
      if (!(std::fabs(a.at(i)) < 1e3)) return false;
    return true;
  }

  static constexpr size_t none = static_cast<size_t>(-1);
  ir::SampleRng& rng_;
  RandomGraphOptions options_;
  std::vector<const ir::OpDef*> ops_;
  std::vector<Known> values_;
  std::deque<Known> constants_;
  RandomGraph made_;
  int names_ = 0;
};

}  // namespace detail

/// A random graph; equal generators give equal graphs (up to the identity of inputs).
inline RandomGraph random_graph(ir::SampleRng& rng, const RandomGraphOptions& options = {}) {
  return detail::GraphGrower(rng, options).grow();
}

/// `check(graph)` for random graphs of growing size, of f32 and now and then of f64, until one fails.
template <class Check>
void for_random_graphs(uint64_t count, const Check& check) {
  for (uint64_t seed = 0; seed < count && !testing::Test::HasFailure(); ++seed) {
    ir::SampleRng rng(seed);
    RandomGraphOptions options;
    options.nodes = 4 + static_cast<int>(seed % 12);
    options.dtypes = ir::dtype_set(seed % 3 == 2 ? ir::Dtype::f64 : ir::Dtype::f32);
    SCOPED_TRACE("seed " + std::to_string(seed));
    check(random_graph(rng, options));
  }
}

}  // namespace espalier::test
