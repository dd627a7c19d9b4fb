#pragma once
// The tool that watches this process through NVTX, where there is one.
#include <filesystem>
#include <memory>
#include <string>

#include "base/dynamic_library.h"
#include "target/cuda/driver/tables/nvtx.h"

namespace espalier::target::cuda::driver {

/// Safe from any thread: ranges are those of the calling thread.
class Nvtx {
 public:
  /// Loads the library of a tool, which stays, and lets it attach. Empty: there is none.
  explicit Nvtx(const std::filesystem::path& tool);

  /// Does a tool want to hear of ranges?
  bool attached() const { return push_ && pop_; }
  /// Only where one is attached.
  void begin(const char* name) const { (void)push_(name); }
  void end() const { (void)pop_(); }
  /// Why the tool that was named is not attached; "" where it is, or where none was named.
  const std::string& problem() const { return problem_; }

 private:
  NvtxRangePush* push_ = nullptr;
  NvtxRangePop* pop_ = nullptr;
  std::string problem_;
};

/// The one that NVTX_INJECTION64_PATH names, loaded by the first call; one that does not attach is said so once, on standard error.
const Nvtx& nvtx();

}  // namespace espalier::target::cuda::driver
