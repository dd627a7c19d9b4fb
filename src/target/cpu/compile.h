#pragma once
// A loop nest, or a convolution of our own, as machine code: emitted as LLVM IR, compiled (or found in the object cache), loaded.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernel/loop_nest.h"
#include "target/cpu/cpu_features.h"
#include "target/cpu/emit/batch_conv.h"

namespace espalier::target::cpu {

/// One chunk of a nest: `buffers` holds the addresses of the nest's buffers in order (locals excluded). Chunks are independent of
/// each other and may run in any order and in parallel; the results do not depend on it.
using KernelFn = void (*)(void* const* buffers, int64_t chunk);

struct CompiledKernel {
  KernelFn fn = nullptr;             ///< null where there is nothing to do (chunks is 0)
  int64_t chunks = 1;                ///< run fn for chunk 0 .. chunks-1; fixed by the nest's shape
  double cost_ns = 0;                ///< a rough estimate of all chunks on one thread
  std::shared_ptr<const void> code;  ///< keeps the machine code mapped
};

/// The kernel of `nest` for `features` (which this processor must have). Thread-safe. UserError when it must be compiled and LLVM is
/// not installed.
CompiledKernel compile(const kernel::LoopNest& nest, const CpuFeatures& features = cpu_features());

/// The same for a convolution over batch blocks.
CompiledKernel compile(const BatchConv& conv, const BatchConvPlan& plan,
                       const CpuFeatures& features = cpu_features());

/// The kernels of all nests, compiled in parallel.
std::vector<CompiledKernel> compile(std::span<const kernel::LoopNest> nests,
                                    const CpuFeatures& features = cpu_features());

/// The LLVM IR of `nest`, for goldens and people.
std::string emitted_ir(const kernel::LoopNest& nest, const CpuFeatures& features);

}  // namespace espalier::target::cpu
