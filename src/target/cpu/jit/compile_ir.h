#pragma once
// LLVM IR text in, the bytes of a relocatable x86-64 object out. Thread-safe: every call has a context of its own.
#include <string>

#include "target/cpu/cpu_features.h"

namespace espalier::target::cpu {

/// The object of `ir`, for a processor with `features`. IR that does not parse or verify is an InternalError (the emitter wrote
/// it); UserError when LLVM is absent.
std::string compile_ir(const std::string& ir, const CpuFeatures& features);

/// The same as assembly text, for people.
std::string assembly_of_ir(const std::string& ir, const CpuFeatures& features);

/// The first lines of every module: data layout and triple.
std::string module_header();

/// The function attributes that carry `features`, as IR text for an attribute group.
std::string target_attributes(const CpuFeatures& features);

}  // namespace espalier::target::cpu
