#include "op/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace espalier::op {

using ir::Array;
using ir::Dtype;
using ir::SampleRng;

// The standard's distributions differ between libraries; these give the same samples everywhere.
int64_t draw(SampleRng& rng, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(rng() % static_cast<uint64_t>(high - low + 1));
}

bool draw_chance(SampleRng& rng, double chance) {
  return static_cast<double>(rng() >> 11) * 0x1p-53 < chance;
}

Dtype draw_index_dtype(SampleRng& rng) { return draw_chance(rng, 0.5) ? Dtype::i32 : Dtype::i64; }

int64_t draw_dim(SampleRng& rng, int64_t high) {
  if (draw_chance(rng, 0.04)) return 0;
  if (draw_chance(rng, 0.2)) return 1;
  return draw(rng, 1, high);
}

std::vector<int64_t> draw_dims(SampleRng& rng, int64_t rank, int64_t high) {
  std::vector<int64_t> dims;
  for (int64_t i = 0; i < rank; ++i) dims.push_back(draw_dim(rng, high));
  return dims;
}

Array draw_array(SampleRng& rng, Dtype dtype, std::vector<int64_t> dims, double low, double high) {
  Array a(dtype, std::move(dims));
  if (dtype == Dtype::u8) low = std::max(low, 0.0), high = std::max(high, 0.0);
  for (int64_t i = 0; i < a.size(); ++i) {
    if (ir::is_float(dtype)) a.set(i, low + (high - low) * (static_cast<double>(rng() >> 11) * 0x1p-53));
    else if (dtype == Dtype::boolean) a.set(i, static_cast<double>(rng() & 1));
    else
      a.set(i, static_cast<double>(
                   draw(rng, static_cast<int64_t>(std::ceil(low)), static_cast<int64_t>(std::floor(high)))));
  }
  return a;
}

Array draw_distinct(SampleRng& rng, Dtype dtype, std::vector<int64_t> dims) {
  if (!ir::is_float(dtype)) return draw_array(rng, dtype, std::move(dims), -20, 20);
  Array a(dtype, std::move(dims));
  const std::vector<int64_t> order = draw_permutation(rng, a.size());
  const double step = std::max(0.01, 4.0 / static_cast<double>(a.size() + 1));
  for (int64_t i = 0; i < a.size(); ++i)
    a.set(i, step * (static_cast<double>(order[static_cast<size_t>(i)]) - static_cast<double>(a.size()) / 2 +
                     0.25));
  return a;
}

std::vector<int64_t> draw_axes(SampleRng& rng, int64_t rank) {
  std::vector<int64_t> axes;
  for (int64_t k = 0; k < rank; ++k)
    if (draw_chance(rng, 0.5)) axes.push_back(k);
  return axes;
}

std::vector<int64_t> draw_permutation(SampleRng& rng, int64_t n) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = n; i-- > 1;)
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(draw(rng, 0, i))]);
  return order;
}

}  // namespace espalier::op
