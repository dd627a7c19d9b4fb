#include "nn/init.h"

#include <cmath>

#include "base/philox.h"

namespace espalier::nn {

ir::Array Init::normal(std::vector<int64_t> dims, double deviation) {
  ir::Array a(ir::Dtype::f32, std::move(dims));
  float* out = a.write<float>();
  const uint64_t key = philox_stream_key(seed_, stream_++);
  for (int64_t i = 0; i < a.size(); i += 2) {
    const auto pair = normal_pair(philox4x32(key, static_cast<uint64_t>(i / 2), 0));
    out[i] = static_cast<float>(deviation * pair[0]);
    if (i + 1 < a.size()) out[i + 1] = static_cast<float>(deviation * pair[1]);
  }
  return a;
}

ir::Array Init::uniform(std::vector<int64_t> dims, double bound) {
  ir::Array a(ir::Dtype::f32, std::move(dims));
  float* out = a.write<float>();
  const uint64_t key = philox_stream_key(seed_, stream_++);
  for (int64_t i = 0; i < a.size(); ++i) {
    const PhiloxBlock b = philox4x32(key, static_cast<uint64_t>(i), 0);
    out[i] = static_cast<float>(bound * (2 * uniform53(b[0], b[1]) - 1));
  }
  return a;
}

ir::Array Init::he_normal(std::vector<int64_t> dims, int64_t fan) {
  return normal(std::move(dims), std::sqrt(2.0 / static_cast<double>(fan)));
}

ir::Array Init::glorot_uniform(std::vector<int64_t> dims, int64_t fan_in, int64_t fan_out) {
  return uniform(std::move(dims), std::sqrt(6.0 / static_cast<double>(fan_in + fan_out)));
}

int64_t Init::seed() { return static_cast<int64_t>(philox_stream_key(seed_, stream_++)); }

}  // namespace espalier::nn
