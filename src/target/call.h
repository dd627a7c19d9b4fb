#pragma once
// What a device is asked to do, as plain data.
#include <cstdint>
#include <string>

namespace espalier::target {

/// Blocks of a launch, or threads of a block.
struct Grid {
  uint32_t x = 1, y = 1, z = 1;
  int64_t count() const { return int64_t{x} * y * z; }
  bool operator==(const Grid&) const = default;
};

/// One kernel as CUDA C, without the header that stands before it.
struct KernelSource {
  std::string name;  ///< of the entry; equal texts have equal names
  std::string text;
  int32_t max_threads = 1024;  ///< a block's, as the text promises in its launch bounds
  bool synchronises = false;   ///< do the threads of a block wait for each other?
};

/// A launch; the entry's parameters are the addresses of its operands.
struct KernelCall {
  Grid grid, block;
  bool operator==(const KernelCall&) const = default;
};

}  // namespace espalier::target
