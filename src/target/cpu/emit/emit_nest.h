#pragma once
// A scheduled nest as LLVM IR: "kernel(ptr buffers, i64 chunk)".
#include <string>

#include "target/cpu/cpu_features.h"
#include "target/cpu/emit/schedule.h"

namespace espalier::target::cpu {

/// The module of one kernel named "kernel".
std::string emit_ir(const Schedule& schedule, const CpuFeatures& features);

}  // namespace espalier::target::cpu
