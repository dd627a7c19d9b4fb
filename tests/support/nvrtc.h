#pragma once
// NVIDIA's run-time compiler in tests, where a toolkit is installed: what it says of a kernel for one architecture.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "target/cuda/driver/nvrtc_compiler.h"
#include "target/cuda/port.h"

namespace espalier::test {

/// What every kernel is compiled with.
inline target::cuda::KernelTexts kernel_texts() {
  using target::cuda::nvrtc_options;
  return {target::cuda::port_text(), {std::begin(nvrtc_options), std::end(nvrtc_options)}};
}

/// "add_0" and so on, each with a text of its own.
inline std::vector<target::KernelSource> some_kernels(int n) {
  std::vector<target::KernelSource> out;
  for (int i = 0; i < n; ++i) {
    const std::string name = "add_" + std::to_string(i);
    out.push_back({name,
                   "K_KERNEL(" + name + ", 64)(float* y) { y[threadIdx.x] += " + std::to_string(i) + "; }\n",
                   64, false});
  }
  return out;
}

/// Those of this machine, wherever a test before has looked.
inline target::cuda::driver::Libraries& machine_libraries() {
  namespace driver = target::cuda::driver;
  static driver::Libraries found(driver::search_places(driver::search_environment()));
  return found;
}

class Nvrtc {
 public:
  /// Of one kernel, as ptxas says.
  struct Facts {
    int registers = 0, stack_bytes = 0, spill_bytes = 0;
  };
  struct Result {
    bool compiled = false;
    std::string log, ptx;
    std::map<std::string, Facts> kernels;  ///< by entry
  };

  /// The compiler, or null with `why_not()`.
  static const Nvrtc* find() {
    static const Nvrtc found;
    return machine_libraries().nvrtc().api ? &found : nullptr;
  }
  static std::string why_not() {
    return "kernels are not compiled for GPUs: no NVRTC, " + machine_libraries().nvrtc().report.reason;
  }

  /// Compile `text` for "sm_90", with the flags of the product.
  Result compile(const std::string& text, const std::string& arch) const {
    std::vector<std::string> flags(std::begin(target::cuda::nvrtc_options),
                                   std::end(target::cuda::nvrtc_options));
    flags.push_back("-arch=" + arch);
    flags.emplace_back("--ptxas-options=-v");
    target::cuda::driver::NvrtcOutput made =
        target::cuda::driver::run_nvrtc(*machine_libraries().nvrtc().api, text, flags);
    Result out{made.compiled, std::move(made.log), std::move(made.ptx), {}};
    if (out.compiled) read_facts(out);
    return out;
  }

 private:
  /// "Compiling entry function 'k' for 'sm_90'" ... "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" ... "Used 9
  /// registers".
  static void read_facts(Result& out) {
    std::string entry;
    for (size_t at = 0; at < out.log.size();) {
      const size_t end = std::min(out.log.find('\n', at), out.log.size());
      const std::string line = out.log.substr(at, end - at);
      at = end + 1;
      if (const size_t q = line.find("entry function '"); q != std::string::npos)
        entry = line.substr(q + 16, line.find('\'', q + 16) - q - 16);
      Facts& f = out.kernels[entry];
      const size_t frame = line.find("bytes stack frame");
      if (frame != std::string::npos) {
        int stack = 0, stores = 0, loads = 0;
        std::sscanf(line.c_str() + line.find_first_of("0123456789"),
                    "%d bytes stack frame, %d bytes spill stores, %d bytes spill loads", &stack, &stores,
                    &loads);
        f.stack_bytes += stack;
        f.spill_bytes += stores + loads;
      }
      if (const size_t used = line.find("Used "); used != std::string::npos)
        f.registers = std::atoi(line.c_str() + used + 5);
    }
    out.kernels.erase("");
  }
};

}  // namespace espalier::test
