#include <algorithm>
#include <array>

#include "run/ceilings.h"

namespace espalier::run {

namespace {

/// Operations of a multiprocessor in a clock, a multiply-add counted as two.
struct Rates {
  int64_t capability;
  double f32, f64, f16, tf32, i8;
};
constexpr std::array<Rates, 5> rates{{
    {80, 128, 128, 2048, 1024, 4096},
    {89, 256, 4, 1024, 512, 2048},
    {90, 256, 256, 4096, 2048, 8192},
    {100, 256, 128, 8192, 4096, 16384},
    {120, 256, 4, 1024, 512, 2048},
}};

}  // namespace

Ceilings device_ceilings(const target::DeviceInfo& info) {
  Ceilings c{.machine = info.name.value_or("device"), .threads = 0};
  c.read_bytes = 1e9 * info.peak_gbps().value_or(0);
  const auto* known = std::ranges::find(rates, info.capability.value_or(0), &Rates::capability);
  if (known == rates.end() || !info.multiprocessors || !info.clock_mhz) return c;
  const double clocks =
      1e6 * static_cast<double>(*info.clock_mhz) * static_cast<double>(*info.multiprocessors);
  c.f32_flops = known->f32 * clocks;
  c.f64_flops = known->f64 * clocks;
  c.f16_flops = c.bf16_flops = known->f16 * clocks;
  c.tf32_flops = known->tf32 * clocks;
  c.i8_flops = known->i8 * clocks;
  return c;
}

}  // namespace espalier::run
