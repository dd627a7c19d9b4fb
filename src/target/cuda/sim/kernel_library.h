#pragma once
// Kernels as the simulator runs them: their very text, behind slim.h and the port header, compiled by the build's own compiler
// with the build's own sanitizers into a shared library, which the build tree keeps by the hash of all that went in.
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "target/call.h"
#include "target/cuda/sim/block.h"

namespace espalier::target::cuda::sim {

/// A batch of kernels, compiled as one file. Copies share it.
class KernelLibrary {
 public:
  /// Compile (or find) `sources`; equal names are one kernel. InternalError with the compiler's words when it refuses.
  explicit KernelLibrary(std::span<const KernelSource> sources);

  struct Options {
    Order order = Order::forward;
    uint64_t seed = 1;
  };
  /// Run `source` (one of those compiled) over the addresses `operands`, in the order of the entry's parameters.
  void launch(const KernelSource& source, const KernelCall& call, std::span<void* const> operands,
              const Options& options) const;

 private:
  std::shared_ptr<void> handle_;
};

}  // namespace espalier::target::cuda::sim
