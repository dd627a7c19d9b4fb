#pragma once
// What a device is asked to do, as plain data: no addresses, no nodes. A planned program is a list of such records; the same list is
// run by a GPU's libraries, run by the simulator, printed, and compared.
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "ir/dtype.h"

namespace espalier::target {

/// What a kernel moves and computes, for the profiler.
struct Cost {
  int64_t bytes = 0;    ///< each operand and result once
  double flops = 0;     ///< counting direct algorithms
  bool matrix = false;  ///< matrix work: its ceiling is the FMA peak of `dtype`, else memory's bandwidth
  ir::Dtype dtype = ir::Dtype::f32;
};

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

/// A launch of the kernel of that name; the entry's parameters are the addresses of its operands.
struct KernelCall {
  std::string kernel;
  Grid grid, block;
  bool operator==(const KernelCall&) const = default;
};

/// Operand 0 to operand 1, both on the device.
struct CopyCall {
  int64_t bytes = 0;
  bool operator==(const CopyCall&) const = default;
};

/// Every byte of operand 0 becomes `byte`.
struct FillCall {
  int64_t bytes = 0;
  uint8_t byte = 0;
  bool operator==(const FillCall&) const = default;
};

/// Part of one of a step's buffers, which are its node's operands, then its results, then the scratch of its kernel.
struct Operand {
  int buffer = 0;
  int64_t offset = 0;  ///< bytes from where the buffer begins
  bool operator==(const Operand&) const = default;
};

struct CallRecord {
  using Work = std::variant<KernelCall, CopyCall, FillCall>;
  Work work;
  std::vector<Operand> operands;
  Cost cost;
};

/// One line: "launch rows_12ab 16 x 256 : b0 b2+64", "copy 4096 bytes : b0 b1", "fill 128 bytes with 0 : b0".
std::string text(const CallRecord& call);

}  // namespace espalier::target
