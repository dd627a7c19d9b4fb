#pragma once
// Bodies of loops made at random: elementwise, movement and reduction ops over values of random dims, with inputs.
#include <random>
#include <string>
#include <vector>

#include "op/elementwise.h"
#include "op/movement.h"
#include "op/reduction.h"
#include "op/sampling.h"

namespace espalier::test {

/// A body of random ops over values of random dims.
class RandomBody {
 public:
  static constexpr double scale = 60;  ///< of tolerances: sums of many terms of either sign

  explicit RandomBody(uint64_t seed) {
    rng_.seed(seed);
    for (int i = 0; i < 3; ++i) values_.push_back(in(op::draw_dims(rng_, op::draw(rng_, 1, 4), 9)));
    values_.push_back(in(ir::static_dims(values_[0].dims())));
    for (int i = 0; i < 9; ++i) step();
    for (int i = 0; i < 3; ++i)
      body_.outputs.push_back(
          {"y" + std::to_string(i), values_[values_.size() - 1 - static_cast<size_t>(op::draw(rng_, 0, 4))]});
  }
  const ir::Graph& body() const { return body_; }
  const std::vector<ir::Array>& inputs() const { return data_; }

 private:
  using Value = ir::Value;
  using Ints = std::vector<int64_t>;

  Value in(const Ints& dims) {
    data_.push_back(op::draw_array(rng_, ir::Dtype::f32, dims, -2, 2));
    body_.inputs.push_back(ir::new_input("x" + std::to_string(body_.inputs.size()), data_.back().type()));
    return body_.inputs.back();
  }
  Value pick() {
    return values_[static_cast<size_t>(op::draw(rng_, 0, static_cast<int64_t>(values_.size()) - 1))];
  }
  Value partner(const Value& x) {
    for (int i = 0; i < 6; ++i)
      if (const Value y = pick(); y.type() == x.type()) return y;
    return x;
  }

  void step() {
    using namespace op;  // NOLINT: a body of ops
    const Value x = pick();
    const auto rank = static_cast<int64_t>(x.rank());
    const Ints dims = ir::static_dims(x.dims());
    switch (op::draw(rng_, 0, 11)) {
      case 0: return put(tanh(x));
      case 1: return put(add(x, partner(x)));
      case 2: return put(mul(tanh(x), partner(x)));
      case 3: return put(select(lt(x, partner(x)), x, neg(x)));
      case 4: return put(transpose(x, op::draw_permutation(rng_, rank)));
      case 5: {
        const Ints axes = op::draw_axes(rng_, rank);
        const Value m = op::draw_chance(rng_, 0.5) ? reduce_sum(x, axes) : reduce_mean(x, axes);
        if (op::draw_chance(rng_, 0.3)) put(tanh(m));
        for (int64_t a : axes)
          if (dims[static_cast<size_t>(a)] == 0) return;
        return put(tanh(sub(x, unreduce(m, x, axes))));
      }
      case 6: return rank > 0 ? put(concat({x, neg(x)}, op::draw(rng_, 0, rank - 1))) : put(neg(x));
      case 7: return put(reshape(x, {static_cast<int64_t>(ir::count(std::span<const int64_t>(dims)))}));
      case 8: {
        Ints low, high;
        for (int64_t i = 0; i < rank; ++i)
          low.push_back(op::draw(rng_, 0, 2)), high.push_back(op::draw(rng_, 0, 1));
        return put(pad(x, ir::constant(ir::Dtype::f32, 0.5), low, high));
      }
      case 9: {
        Ints start, size, step;
        for (int64_t d : dims) {
          const int64_t s = op::draw(rng_, 1, 2), n = d == 0 ? 0 : op::draw(rng_, 1, (d + s - 1) / s);
          step.push_back(s), size.push_back(n),
              start.push_back(d == 0 ? 0 : op::draw(rng_, 0, d - (n - 1) * s - 1));
        }
        return put(slice(x, start, ir::to_dims(size), step));
      }
      case 10: {
        if (rank == 0) return;
        const auto last = static_cast<size_t>(rank - 1);
        for (int64_t f : {2, 3})
          if (dims[last] > 0 && dims[last] % f == 0) {
            Ints split(dims.begin(), dims.end() - 1);
            split.push_back(dims[last] / f), split.push_back(f);
            return put(reshape(x, ir::to_dims(split)));
          }
        return;
      }
      default: return put(reverse(x, op::draw_axes(rng_, rank)));
    }
  }
  void put(Value v) {
    if (v.type().elements() <= 20000) values_.push_back(std::move(v));
  }

  ir::Graph body_;
  std::vector<ir::Array> data_;
  std::mt19937_64 rng_;
  std::vector<Value> values_;
};

}  // namespace espalier::test
