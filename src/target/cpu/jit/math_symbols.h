#pragma once
// The only functions outside themselves that kernels may call.
#include <span>

#include "target/cpu/jit/elf_loader.h"

namespace espalier::target::cpu {

/// memcpy, memset, and the scalar functions that have no vector version ("esp_f64_exp", "esp_f32_pow", "esp_i64_pow", ...).
std::span<const ExternalSymbol> kernel_symbols();

}  // namespace espalier::target::cpu
