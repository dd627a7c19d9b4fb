#include "target/cpu/jit/compile_ir.h"

#include "base/error.h"
#include "target/cpu/jit/llvm_api.h"

namespace espalier::target::cpu {
namespace {

constexpr const char* triple = "x86_64-unknown-linux-gnu";
// Explicit vectors need no vectoriser: registers out of the emitter's stack slots, tidy, hoist. It compiles in half the time of O3.
constexpr const char* passes =
    "function(sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,loop-mssa(licm),early-cse<"
    "memssa>,"
    "instcombine<no-verify-fixpoint>,simplifycfg)";
constexpr int aggressive = 3, relocation_pic = 2, model_small = 3, return_status = 2;

const char* base_cpu(const CpuFeatures& f) { return f.avx512 ? "x86-64-v4" : "x86-64-v3"; }

std::string feature_list(const CpuFeatures& f) {
  std::string s = "+fma,+f16c";
  if (f.avx512_bf16) s += ",+avx512bf16";
  if (f.avx512_vnni) s += ",+avx512vnni";
  if (f.amx_tile) s += ",+amx-tile";
  if (f.amx_bf16) s += ",+amx-bf16";
  if (f.amx_int8) s += ",+amx-int8";
  return s;
}

/// Disposes of an LLVM handle at the end of its scope.
class Owned {
 public:
  Owned(LlvmApi::Handle handle, void (*dispose)(LlvmApi::Handle)) : handle_(handle), dispose_(dispose) {}
  ~Owned() {
    if (handle_) dispose_(handle_);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  LlvmApi::Handle get() const { return handle_; }

 private:
  LlvmApi::Handle handle_;
  void (*dispose_)(LlvmApi::Handle);
};

[[noreturn]] void fail(const LlvmApi& api, const char* what, char* message, const std::string& ir) {
  std::string text = std::string(what) + ": " + (message ? message : "no message");
  if (message) api.DisposeMessage(message);
  throw InternalError(text + "\n" + ir);
}

std::string emit(const std::string& ir, const CpuFeatures& features, int file_type) {
  const LlvmApi& api = llvm_api();
  char* message = nullptr;
  const Owned context(api.ContextCreate(), api.ContextDispose);
  LlvmApi::Handle buffer = api.CreateMemoryBufferWithMemoryRangeCopy(ir.data(), ir.size(), "kernel");
  LlvmApi::Handle raw_module = nullptr;
  if (api.ParseIRInContext(context.get(), buffer, &raw_module, &message))
    fail(api, "emitted IR does not parse", message, ir);
  const Owned module(raw_module, api.DisposeModule);
  if (api.VerifyModule(module.get(), return_status, &message))
    fail(api, "emitted IR does not verify", message, ir);
  if (message) api.DisposeMessage(message), message = nullptr;

  LlvmApi::Handle target = nullptr;
  if (api.GetTargetFromTriple(triple, &target, &message)) fail(api, "LLVM has no x86-64 target", message, "");
  const Owned machine(
      api.CreateTargetMachine(target, triple, base_cpu(features), feature_list(features).c_str(), aggressive,
                              relocation_pic, model_small),
      api.DisposeTargetMachine);
  const Owned options(api.CreatePassBuilderOptions(), api.DisposePassBuilderOptions);
  if (LlvmApi::Handle error = api.RunPasses(module.get(), passes, machine.get(), options.get())) {
    char* text = api.GetErrorMessage(error);
    std::string copy = text;
    api.DisposeErrorMessage(text);
    throw InternalError("LLVM's passes refuse the kernel: " + copy);
  }
  LlvmApi::Handle out = nullptr;
  if (api.TargetMachineEmitToMemoryBuffer(machine.get(), module.get(), file_type, &message, &out))
    fail(api, "LLVM cannot emit the kernel", message, ir);
  const Owned object(out, api.DisposeMemoryBuffer);
  return std::string(api.GetBufferStart(object.get()), api.GetBufferSize(object.get()));
}

}  // namespace

std::string compile_ir(const std::string& ir, const CpuFeatures& features) { return emit(ir, features, 1); }

std::string assembly_of_ir(const std::string& ir, const CpuFeatures& features) {
  return emit(ir, features, 0);
}

std::string module_header() {
  return "target datalayout = "
         "\"e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128\"\n"
         "target triple = \"" +
         std::string(triple) + "\"\n";
}

std::string target_attributes(const CpuFeatures& f) {
  std::string s =
      "\"target-cpu\"=\"" + std::string(base_cpu(f)) + "\" \"target-features\"=\"" + feature_list(f) + "\"";
  s += std::string(" \"tune-cpu\"=\"") +
       (f.avx512 ? (f.amd ? "znver4" : "sapphirerapids") : (f.amd ? "znver3" : "haswell")) + "\"";
  const char* width = f.avx512 ? "512" : "256";
  return s + " \"prefer-vector-width\"=\"" + width + "\" \"min-legal-vector-width\"=\"" + width + "\"";
}

}  // namespace espalier::target::cpu
