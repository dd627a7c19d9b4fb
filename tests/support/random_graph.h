#pragma once
// Random valid graphs, made of samples of the op table. Every value is computed by the reference while the graph grows, so
// the outputs' right values come with it, and a node that would make comparisons meaningless is not taken.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "op/elementwise.h"
#include "op/movement.h"
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
      taken += try_op();
    for (size_t i = 0; i < values_.size(); ++i) {
      if (values_[i].is_input || (values_[i].used && !op::draw_chance(rng_, 0.1))) continue;
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
    bool is_input;
    bool used = false;
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
    for (size_t i = 0; i < results.size(); ++i) values_.push_back({results[i], std::move(out[i]), false});
    return true;
  }

  /// A value for operand i of `op` that has the sample's type: a known one, a known one made to fit, or a new input.
  Known operand(const ir::OpDef& op, const ir::Array& sample, size_t i, size_t& reused) {
    const bool may_jump = options_.stable && jumps(op) && is_float(sample.dtype());
    const bool position = op.kind == ir::Kind::indexed && i == 1;
    std::vector<size_t> same, others;
    for (size_t k = 0; k < values_.size(); ++k) {
      if (may_jump && !values_[k].is_input) continue;
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
    ir::Value v = ir::new_input("x" + std::to_string(names_++), sample.type());
    return {v, sample, true};
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
    return {v, array, false};
  }

  void keep(const Known& k, size_t reused) {
    if (reused != none) {
      values_[reused].used = true;
    } else if (k.is_input) {
      made_.graph.inputs.push_back(k.value);
      made_.inputs.push_back(k.array);
      values_.push_back(k);
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
  RandomGraph made_;
  int names_ = 0;
};

}  // namespace detail

/// A random graph; equal generators give equal graphs (up to the identity of inputs).
inline RandomGraph random_graph(ir::SampleRng& rng, const RandomGraphOptions& options = {}) {
  return detail::GraphGrower(rng, options).grow();
}

}  // namespace espalier::test
