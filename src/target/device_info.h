#pragma once
// What is known of one accelerator. Each field may be unknown: a driver need not answer, and a virtual machine, a container or a
// slice of a device hides some.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace espalier::target {

struct DeviceInfo {
  int index = 0;  ///< among the devices the driver shows to this process
  std::optional<std::string> name, uuid, bus_id;
  std::optional<int64_t> capability;  ///< 10 major + minor: 90 is sm_90

  // What does not change.
  std::optional<int64_t> multiprocessors, clock_mhz, threads_per_multiprocessor, registers_per_multiprocessor;
  std::optional<int64_t> memory_bytes, memory_clock_mhz, memory_bus_bits, l2_bytes;
  std::optional<int64_t> shared_per_block, shared_per_block_opt_in, shared_per_multiprocessor;  ///< bytes
  std::optional<bool> ecc, mig, integrated;
  std::optional<std::string> compute_mode;  ///< "default", "exclusive process" or "prohibited"
  std::optional<std::vector<int>> peers;    ///< indices of the devices whose memory it can address

  // What it does now.
  std::optional<int64_t> memory_free_bytes;
  std::optional<int64_t> utilisation_percent, memory_utilisation_percent, temperature_celsius;
  std::optional<int64_t> clock_now_mhz, memory_clock_now_mhz;
  std::optional<double> power_watts, power_limit_watts;

  std::vector<std::string> notes;  ///< each call that did not answer, and why

  /// What the memory moves at most, in 1e9 bytes a second: two transfers a clock over the whole bus.
  std::optional<double> peak_gbps() const {
    if (!memory_clock_mhz || !memory_bus_bits) return std::nullopt;
    return 2e-3 * static_cast<double>(*memory_clock_mhz) * static_cast<double>(*memory_bus_bits) / 8;
  }
};

}  // namespace espalier::target
