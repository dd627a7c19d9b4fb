#pragma once
// A contraction body run by the matrix library.
#include <variant>

#include "target/cpu/contraction.h"
#include "target/interface.h"

namespace espalier::target::cpu {

/// The kernel of a matched body, or why the library has none. `constants` are per input of the body.
std::variant<std::unique_ptr<Kernel>, kernel::Refusal> make_onednn_kernel(
    ContractionCall call, int inputs, std::span<const ir::Array* const> constants, bool exact);

}  // namespace espalier::target::cpu
