#pragma once
// scatter_add and scatter_add_along. Work is cut by the elements of the result, never by the updates: every element belongs to
// one chunk, which adds its updates in row-major order. So no two threads meet, and the sums are the same on any number of them.
#include <memory>
#include <variant>

#include "target/interface.h"

namespace espalier::target::cpu {

/// Sums are kept in the dtype itself (integers wrap), those of bf16 and f16 in f32, rounded once.
std::variant<std::unique_ptr<Kernel>, kernel::Refusal> make_scatter_kernel(const ir::Node& node);

}  // namespace espalier::target::cpu
