#pragma once
// Memory of a device in which every buffer is an allocation of its own bytes, so that what guards allocations (the simulator's zones, a
// sanitizer) sees whatever reaches outside of a buffer. For finding errors: CompileOptions::apart.
#include <random>
#include <vector>

#include "run/device_memory.h"

namespace espalier::run {

class ApartMemory {
 public:
  ApartMemory() = default;
  /// `offsets` above 0: a seed, from which places are drawn.
  ApartMemory(target::Device& device, uint64_t offsets)
      : device_(&device), draws_(offsets > 0), draw_(offsets) {}

  /// Where `bytes` (at least one) lie, up to the end of an allocation. The address divides by `need`, a power of two; where places are drawn
  /// by no more, as far as 128.
  target::Address place(int64_t bytes, int64_t need);
  int64_t bytes() const { return bytes_; }

 private:
  target::Device* device_ = nullptr;
  bool draws_ = false;
  std::mt19937_64 draw_;
  std::vector<DeviceMemory> memory_;
  int64_t bytes_ = 0;
};

}  // namespace espalier::run
