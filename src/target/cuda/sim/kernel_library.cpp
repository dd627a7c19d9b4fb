#include "target/cuda/sim/kernel_library.h"

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include <slim_text.h>
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "target/cuda/port.h"

namespace espalier::target::cuda::sim {
namespace {

namespace fs = std::filesystem;

std::string flags() {
  // fma only where it is written, as -fmad=false on a GPU.
  std::string f = "-std=c++20 -O1 -shared -fPIC -g1 -w -ffp-contract=off -fno-math-errno";
  if (__builtin_cpu_supports("fma")) f += " -mfma";
  if (__builtin_cpu_supports("avx")) f += " -mavx -mf16c";
  return f + " " ESPALIER_SIM_SANITIZE;
}

std::string unit_of(std::span<const KernelSource> sources) {
  std::string text = std::string(slim_text) + port_text();
  std::set<std::string> seen;
  for (const KernelSource& s : sources)
    if (seen.insert(s.name).second) text += s.text + "SIM_ENTRY(" + s.name + ")\n";
  return text;
}

std::string output_of(const std::string& command) {
  std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  ESPALIER_CHECK(pipe != nullptr, "cannot run the compiler for simulated kernels");
  std::string output;
  char buffer[4096];
  for (size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, n);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
  return output.empty() ? "the compiler failed" : output;
}

/// The shared library of `unit`: made beside its place and moved there, so that two processes may do it at once.
fs::path library_of(const std::string& unit, bool* found) {
  const std::string options = flags();
  const fs::path folder = ESPALIER_SIM_CACHE;
  fs::path file = folder / fmt::format("{:016x}.so", hash_text(unit + options));
  const bool there = fs::exists(file);
  if (found) *found = there;
  if (there) return file;
  fs::create_directories(folder);
  static std::atomic<int> serial{0};
  const std::string stem =
      (folder / fmt::format("{}-{}-{}", file.stem().string(), ::getpid(), serial++)).string();
  write_file(stem + ".cpp", unit);
  const std::string words = output_of(
      fmt::format("'{}' {} -x c++ '{}.cpp' -o '{}.so' -lm", ESPALIER_SIM_COMPILER, options, stem, stem));
  if (!words.empty())
    throw InternalError("kernels do not compile for the simulator (" + stem + ".cpp):\n" + words);
  fs::rename(stem + ".so", file);
  fs::rename(stem + ".cpp", folder / (file.stem().string() + ".cpp"));
  return file;
}

}  // namespace

fs::path compile_kernels(std::span<const KernelSource> sources, bool* found) {
  return library_of(unit_of(sources), found);
}

KernelLibrary::KernelLibrary(const fs::path& file) {
  void* handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw InternalError(std::string("simulated kernels do not load: ") + ::dlerror());
  handle_ = std::shared_ptr<void>(handle, [](void* h) { ::dlclose(h); });
  const auto bind = reinterpret_cast<void (*)(const void*)>(::dlsym(handle, "sim_bind"));
  ESPALIER_CHECK(bind != nullptr, "simulated kernels without sim_bind");
  bind(sim_port());
}

KernelLibrary::Entry KernelLibrary::find(const std::string& name) const {
  struct Parameters {
    unsigned count;
    const unsigned* bytes;
  };
  Entry out;
  out.entry = reinterpret_cast<void (*)(void**)>(::dlsym(handle_.get(), name.c_str()));
  if (const auto* p = static_cast<const Parameters*>(::dlsym(handle_.get(), (name + "_parameters").c_str())))
    out.parameters = {p->bytes, p->count};
  return out;
}

void KernelLibrary::launch(const KernelSource& source, const KernelCall& call,
                           std::span<void* const> operands, const Options& options) const {
  ESPALIER_CHECK(call.block.count() <= source.max_threads,
                 source.name + ": more threads than its launch bounds");
  Launch l;
  l.entry = find(source.name).entry;
  ESPALIER_CHECK(l.entry != nullptr, "no kernel " + source.name + " in this library");
  std::vector<void*> addresses(operands.begin(), operands.end()), arguments;
  for (void*& a : addresses) arguments.push_back(&a);
  l.arguments = arguments.data();
  l.grid = call.grid;
  l.block = call.block;
  l.order = options.order;
  l.seed = options.seed;
  l.synchronises = source.synchronises;
  l.shared_bytes = call.shared_bytes;
  run_blocks(l);
}

}  // namespace espalier::target::cuda::sim
