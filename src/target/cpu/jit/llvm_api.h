#pragma once
// The few functions of LLVM 19's C API that turn IR text into an object, found with dlopen on first need. Nothing is linked
// and no header of LLVM is needed to build: the C API's functions take opaque pointers and are stable within a version.
#include <cstddef>

namespace espalier::target::cpu {

struct LlvmApi {
  using Handle = void*;  // LLVMContextRef, LLVMModuleRef, ...: all are pointers to incomplete structs
  using Bool = int;      // LLVMBool: 0 is success

  void (*InitializeX86TargetInfo)();
  void (*InitializeX86Target)();
  void (*InitializeX86TargetMC)();
  void (*InitializeX86AsmPrinter)();
  void (*GetVersion)(unsigned* major, unsigned* minor, unsigned* patch);
  Handle (*ContextCreate)();
  void (*ContextDispose)(Handle context);
  Handle (*CreateMemoryBufferWithMemoryRangeCopy)(const char* data, size_t size, const char* name);
  Bool (*ParseIRInContext)(Handle context, Handle buffer, Handle* module, char** message);
  Bool (*VerifyModule)(Handle module, int action, char** message);
  void (*DisposeModule)(Handle module);
  Bool (*GetTargetFromTriple)(const char* triple, Handle* target, char** message);
  Handle (*CreateTargetMachine)(Handle target, const char* triple, const char* cpu, const char* features,
                                int level, int relocation, int code_model);
  void (*DisposeTargetMachine)(Handle machine);
  Handle (*CreatePassBuilderOptions)();
  void (*DisposePassBuilderOptions)(Handle options);
  Handle (*RunPasses)(Handle module, const char* passes, Handle machine, Handle options);
  char* (*GetErrorMessage)(Handle error);
  void (*DisposeErrorMessage)(char* message);
  Bool (*TargetMachineEmitToMemoryBuffer)(Handle machine, Handle module, int file_type, char** message,
                                          Handle* buffer);
  const char* (*GetBufferStart)(Handle buffer);
  size_t (*GetBufferSize)(Handle buffer);
  void (*DisposeMemoryBuffer)(Handle buffer);
  void (*DisposeMessage)(char* message);
};

/// The version this code is written for; part of every cache key.
inline constexpr int llvm_version = 19;

/// The API, loaded by the first call (thread-safe). UserError says where it was looked for when it is absent or another version.
const LlvmApi& llvm_api();

/// Has this process loaded LLVM? A process whose kernels are all cached has not.
bool llvm_is_loaded();

}  // namespace espalier::target::cpu
