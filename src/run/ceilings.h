#pragma once
// What a machine can do at most: the yardstick of every "fraction of the ceiling". Measured for the processor when first asked; for a
// device computed from what its driver says.
#include <string>

#include "ir/dtype.h"
#include "target/device_info.h"

namespace espalier::run {

struct Ceilings {
  std::string machine;   ///< the processor's name and features, or the device's
  int threads = 1;       ///< 0: a device
  double f32_flops = 0;  ///< FLOP/s of multiply-adds that stay in registers
  double bf16_flops =
      0;  ///< the same with bf16 operands and f32 sums (AMX or vdpbf16ps); f32's where the processor has neither
  double read_bytes = 0;  ///< bytes/s read from memory beyond every cache
  /// Of a device's matrix units, with sums in f32 (i8: i32); 0: as f32, and f64 half of it.
  double f64_flops = 0, f16_flops = 0, i8_flops = 0, tf32_flops = 0;
  std::string text() const;

  /// FLOP/s for matrix work whose operands have this dtype.
  double matrix_flops(ir::Dtype dtype) const;
};

/// Measured on the pool's threads, once per number of threads in a process; takes about a tenth of a second. Random data: some
/// processors are faster on zeros. Thread-safe.
const Ceilings& ceilings();

/// What the driver's figures and the rates of its architecture give at the highest clock; 0 where something is not known. Not measured:
/// no kernel reaches it. The rates are those of the data-centre chips: GeForce boards sum f16 products in f32 at half of theirs.
/// Source: NVIDIA's white papers of the A100, Ada, H100, Blackwell and RTX Blackwell architectures, dense rates.
Ceilings device_ceilings(const target::DeviceInfo& info);

}  // namespace espalier::run
