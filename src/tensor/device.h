#pragma once
// Device: where a compiled function runs, as a value. Naming one costs nothing: a GPU is looked for when it is first used.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/export.h"
#include "target/memory_account.h"

namespace espalier {

class ESPALIER_API Device {
 public:
  Device() = default;  ///< the processor
  static Device cpu() { return {}; }
  /// GPU number `number`, as `espalier devices` counts them.
  static Device cuda(int number = 0);
  /// "cpu", "cuda", "cuda:1", "reference", "null". UserError for anything else, with these. (choose_device() of tensor/devices.h takes "auto".)
  static Device named(std::string_view name);

  /// "cpu", "cuda:0".
  const std::string& name() const { return name_; }
  bool is_gpu() const;
  /// What compiled functions and parameters of this process have of a GPU's memory, and what went beside it. UserError for the host; DeviceError from
  /// a device that is in use.
  target::MemoryStatistics memory() const;
  /// The most that they may have from now on, in bytes; 0: no limit. What goes over it is refused with figures, a program before it
  /// runs. UserError for the host and below 0.
  void set_memory_limit(int64_t bytes) const;
  bool operator==(const Device&) const = default;

 private:
  int gpu() const;
  std::string name_ = "cpu";
};

}  // namespace espalier
