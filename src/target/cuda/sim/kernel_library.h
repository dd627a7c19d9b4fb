#pragma once
// Kernels as the simulator runs them: their very text, behind slim.h and the port header, compiled by the build's own compiler
// with the build's own sanitizers into a shared library, which the build tree keeps by the hash of all that went in.
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "target/call.h"
#include "target/cuda/sim/block.h"

namespace espalier::target::cuda::sim {

/// The file that holds `sources`, compiled or found (`found` says which); equal names are one kernel. InternalError with the compiler's words
/// when it refuses.
std::filesystem::path compile_kernels(std::span<const KernelSource> sources, bool* found = nullptr);

/// A batch of kernels, compiled as one file. Copies share it.
class KernelLibrary {
 public:
  /// Those of compile_kernels().
  explicit KernelLibrary(const std::filesystem::path& file);
  explicit KernelLibrary(std::span<const KernelSource> sources) : KernelLibrary(compile_kernels(sources)) {}

  /// A kernel as the simulator calls it, and what it takes: bytes of each parameter, 0 for an address. In the layout of SimParameters in
  /// slim.h.
  struct Entry {
    void (*entry)(void** arguments) = nullptr;
    std::span<const unsigned> parameters;
  };
  /// The kernel of that name; null where there is none.
  Entry find(const std::string& name) const;

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
