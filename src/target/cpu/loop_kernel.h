#pragma once
// A body of loops, lowered and compiled.
#include <memory>

#include "kernel/lower.h"
#include "target/interface.h"

namespace espalier::target::cpu {

std::unique_ptr<Kernel> make_loop_kernel(const ir::Graph& body, const kernel::Lowered& lowered);

}  // namespace espalier::target::cpu
