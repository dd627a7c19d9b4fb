#include "target/cpu/jit/llvm_api.h"

#include <atomic>
#include <string>

#include "base/dynamic_library.h"
#include "base/error.h"

namespace espalier::target::cpu {
namespace {

std::atomic<bool> loaded{false};

DynamicLibrary open_library() {
  FoundLibrary found = find_library({.names = {"libLLVM.so.19.1", "libLLVM-19.so.1", "libLLVM-19.so"},
                                     .folders = {"", "/usr/lib/llvm-19/lib"}});
  if (found.library) return *std::move(found.library);
  std::string tried;
  for (const LibraryAttempt& attempt : found.attempts)
    tried += (tried.empty() ? "" : ", ") + attempt.file.string() + " (" + attempt.reason + ")";
  throw UserError({"CPU code generator",
                   "LLVM 19 is not installed, and this kernel is not in the object cache",
                   "looked for " + tried, "the Debian package libllvm19"});
}

template <class Function>
void find(const DynamicLibrary& library, const char* name, Function*& out) {
  if (!library.find(name, out))
    throw UserError({"CPU code generator", "LLVM lacks a function of its C API", name, "LLVM 19"});
}

LlvmApi load() {
  const DynamicLibrary lib = open_library();
  LlvmApi a{};
  find(lib, "LLVMInitializeX86TargetInfo", a.InitializeX86TargetInfo);
  find(lib, "LLVMInitializeX86Target", a.InitializeX86Target);
  find(lib, "LLVMInitializeX86TargetMC", a.InitializeX86TargetMC);
  find(lib, "LLVMInitializeX86AsmPrinter", a.InitializeX86AsmPrinter);
  find(lib, "LLVMGetVersion", a.GetVersion);
  find(lib, "LLVMContextCreate", a.ContextCreate);
  find(lib, "LLVMContextDispose", a.ContextDispose);
  find(lib, "LLVMCreateMemoryBufferWithMemoryRangeCopy", a.CreateMemoryBufferWithMemoryRangeCopy);
  find(lib, "LLVMParseIRInContext", a.ParseIRInContext);
  find(lib, "LLVMVerifyModule", a.VerifyModule);
  find(lib, "LLVMDisposeModule", a.DisposeModule);
  find(lib, "LLVMGetTargetFromTriple", a.GetTargetFromTriple);
  find(lib, "LLVMCreateTargetMachine", a.CreateTargetMachine);
  find(lib, "LLVMDisposeTargetMachine", a.DisposeTargetMachine);
  find(lib, "LLVMCreatePassBuilderOptions", a.CreatePassBuilderOptions);
  find(lib, "LLVMDisposePassBuilderOptions", a.DisposePassBuilderOptions);
  find(lib, "LLVMRunPasses", a.RunPasses);
  find(lib, "LLVMGetErrorMessage", a.GetErrorMessage);
  find(lib, "LLVMDisposeErrorMessage", a.DisposeErrorMessage);
  find(lib, "LLVMTargetMachineEmitToMemoryBuffer", a.TargetMachineEmitToMemoryBuffer);
  find(lib, "LLVMGetBufferStart", a.GetBufferStart);
  find(lib, "LLVMGetBufferSize", a.GetBufferSize);
  find(lib, "LLVMDisposeMemoryBuffer", a.DisposeMemoryBuffer);
  find(lib, "LLVMDisposeMessage", a.DisposeMessage);
  unsigned major = 0, minor = 0, patch = 0;
  a.GetVersion(&major, &minor, &patch);
  if (major != llvm_version)
    throw UserError(
        {"CPU code generator", "the LLVM found is of another version", std::to_string(major), "19"});
  a.InitializeX86TargetInfo();
  a.InitializeX86Target();
  a.InitializeX86TargetMC();
  a.InitializeX86AsmPrinter();
  loaded = true;
  return a;
}

}  // namespace

const LlvmApi& llvm_api() {
  static const LlvmApi api = load();
  return api;
}

bool llvm_is_loaded() { return loaded; }

}  // namespace espalier::target::cpu
