#pragma once
// NVIDIA's run-time compiler in tests, where a toolkit is installed: what it says of a kernel for one architecture.
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "target/cuda/port.h"

namespace espalier::test {

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
    return found.compile_ ? &found : nullptr;
  }
  static std::string why_not() {
    return "no NVRTC under /usr/local/cuda*/lib64: kernels are not compiled for GPUs";
  }

  /// Compile `text` for "sm_90", with the flags of the product.
  Result compile(const std::string& text, const std::string& arch) const {
    Result out;
    void* program = nullptr;
    if (create_(&program, text.c_str(), "kernel.cu", 0, nullptr, nullptr) != 0) return out;
    const std::string arch_flag = "-arch=" + arch;
    std::vector<const char*> flags(std::begin(target::cuda::nvrtc_options),
                                   std::end(target::cuda::nvrtc_options));
    flags.push_back(arch_flag.c_str());
    flags.push_back("--ptxas-options=-v");
    out.compiled = compile_(program, static_cast<int>(flags.size()), flags.data()) == 0;
    out.log = text_of(program, log_size_, log_);
    if (out.compiled) {
      out.ptx = text_of(program, ptx_size_, ptx_);
      read_facts(out);
    }
    destroy_(&program);
    return out;
  }

 private:
  Nvrtc() {
    void* library = nullptr;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/usr/local", error))
      if (entry.path().filename().string().starts_with("cuda") && !library)
        library = ::dlopen((entry.path() / "lib64/libnvrtc.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    const auto get = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
    };
    get(create_, "nvrtcCreateProgram");
    get(destroy_, "nvrtcDestroyProgram");
    get(log_size_, "nvrtcGetProgramLogSize");
    get(log_, "nvrtcGetProgramLog");
    get(ptx_size_, "nvrtcGetPTXSize");
    get(ptx_, "nvrtcGetPTX");
    get(compile_, "nvrtcCompileProgram");
  }

  using SizeFn = int (*)(void*, size_t*);
  using TextFn = int (*)(void*, char*);
  static std::string text_of(void* program, SizeFn size, TextFn get) {
    size_t n = 0;
    size(program, &n);
    std::string text(n, '\0');
    if (n) get(program, text.data());
    while (!text.empty() && text.back() == '\0') text.pop_back();
    return text;
  }

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

  int (*create_)(void**, const char*, const char*, int, const char* const*, const char* const*) = nullptr;
  int (*compile_)(void*, int, const char* const*) = nullptr;
  int (*destroy_)(void**) = nullptr;
  SizeFn log_size_ = nullptr, ptx_size_ = nullptr;
  TextFn log_ = nullptr, ptx_ = nullptr;
};

}  // namespace espalier::test
