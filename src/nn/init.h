#pragma once
// Initial values, drawn from Philox streams: the same on every machine for one seed. `seed` and `stream` name the draw.
#include <cstdint>
#include <string_view>
#include <vector>

#include "ir/array.h"

namespace espalier::nn {

/// Where initial values come from: every draw takes the next stream.
class ESPALIER_API Init {
 public:
  explicit Init(uint64_t seed = 0) : seed_(seed) {}
  /// Normal with mean 0 and this standard deviation.
  ir::Array normal(std::vector<int64_t> dims, double deviation);
  /// Uniform in [-bound, bound).
  ir::Array uniform(std::vector<int64_t> dims, double bound);
  /// He et al. 2015: normal, sqrt(2 / fan).
  ir::Array he_normal(std::vector<int64_t> dims, int64_t fan);
  /// Glorot and Bengio 2010: uniform, sqrt(6 / (fan_in + fan_out)).
  ir::Array glorot_uniform(std::vector<int64_t> dims, int64_t fan_in, int64_t fan_out);

  /// A seed of its own, for a layer that draws random numbers.
  int64_t seed();

 private:
  uint64_t seed_;
  uint64_t stream_ = 0;
};

}  // namespace espalier::nn
