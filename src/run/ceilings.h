#pragma once
// What this machine can do at most, measured when first asked: the yardstick of every "fraction of the ceiling".
#include <string>

#include "ir/dtype.h"

namespace espalier::run {

struct Ceilings {
  std::string cpu;  ///< the processor's name and features
  int threads = 1;
  double f32_flops = 0;  ///< FLOP/s of multiply-adds that stay in registers
  double bf16_flops =
      0;  ///< the same with bf16 operands and f32 sums (AMX or vdpbf16ps); f32's where the processor has neither
  double read_bytes = 0;  ///< bytes/s read from memory beyond every cache
  std::string text() const;

  /// FLOP/s for matrix work whose operands have this dtype (f64: half of f32).
  double matrix_flops(ir::Dtype dtype) const;
};

/// Measured on the pool's threads, once per number of threads in a process; takes about a tenth of a second. Random data: some
/// processors are faster on zeros. Thread-safe.
const Ceilings& ceilings();

}  // namespace espalier::run
