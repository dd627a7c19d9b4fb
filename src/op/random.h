#pragma once
// Counter-based random numbers (Philox4x32-10, Salmon et al. 2011): element i of a draw depends only on
// (key, counter, stream, i), so a seed gives the same numbers on any device and any number of threads.
#include "base/export.h"
#include "ir/op_def.h"

namespace espalier::op {

using ir::Value;

struct RandomAttrs {
  ir::Type type;       ///< of the result: any float dtype
  int64_t stream = 0;  ///< tells apart draws with the same key and counter
  bool operator==(const RandomAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("type", &RandomAttrs::type), ir::field("stream", &RandomAttrs::stream)};
  }
};

ESPALIER_API extern const ir::OpDef random_uniform_op, random_normal_op;

/// Uniform in [0, 1), never 1: multiples of 2^-p, p the bits of the dtype's significand (f32: 24, f16: 11, bf16: 8, f64: 53).
/// `key` and `counter` are i64 scalars (rank 0): key = seed, counter = step.
ESPALIER_API Value random_uniform(Value key, Value counter, ir::Type type, int64_t stream);
/// Standard normal by Box and Muller's method, computed in f32 and rounded (f64: in f64).
ESPALIER_API Value random_normal(Value key, Value counter, ir::Type type, int64_t stream);

}  // namespace espalier::op
