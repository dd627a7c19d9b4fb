#pragma once
// Random numbers of one sample: a Philox stream keyed by (seed, epoch, index), so that what a sample draws depends on
// nothing else: not on the worker that makes it, nor on what other samples drew. One thread per object.
#include "base/philox.h"

namespace espalier::data {

class Rng {
 public:
  /// What the numbers are for; streams of different purposes are independent.
  enum class Purpose : uint64_t { sample = 0, order = 1, content = 2, split = 3 };

  Rng(uint64_t seed, uint64_t epoch, uint64_t index, Purpose purpose = Purpose::sample)
      : key_(philox_stream_key(philox_stream_key(seed, static_cast<uint64_t>(purpose)), epoch)),
        index_(index) {}

  /// 32 independent bits.
  uint32_t bits() {
    if (at_ % 4 == 0) block_ = philox4x32(key_, at_ / 4, index_);
    return block_[at_++ % 4];
  }
  /// Uniform in [0, 1), or [low, high).
  float uniform() { return uniform_of(bits()); }
  double uniform(double low, double high) {
    const uint32_t a = bits(), b = bits();
    return low + (high - low) * uniform53(a, b);
  }
  /// True with probability `p`.
  bool coin(double p = 0.5) { return uniform(0, 1) < p; }
  /// Uniform in 0..n-1 for n >= 1, without bias (Lemire, "Fast Random Integer Generation in an Interval", 2019).
  uint64_t below(uint64_t n) {
    for (;;) {
      const uint64_t low = bits(), word = uint64_t{bits()} << 32 | low;
      __extension__ using Wide = unsigned __int128;
      const auto product = static_cast<Wide>(word) * n;
      const auto rest = static_cast<uint64_t>(product);
      if (rest >= n || rest >= -n % n) return static_cast<uint64_t>(product >> 64);
    }
  }
  /// Standard normal.
  float normal() {
    const uint32_t a = bits(), b = bits();
    return normal_pair(a, b)[0];
  }

 private:
  uint64_t key_, index_, at_ = 0;
  PhiloxBlock block_{};
};

}  // namespace espalier::data
