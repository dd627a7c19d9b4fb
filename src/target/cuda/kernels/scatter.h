#pragma once
// scatter_add and scatter_add_along, and with them the gradients of gathers and embeddings: no float atomics, each element of the
// result adds its updates in row-major order, whoever runs first.
#include <variant>

#include "target/cuda/call_kernel.h"

namespace espalier::target::cuda {

struct ScatterOptions {
  MapOptions map{};
  /// So many updates, or so many pairs of an element and an update, are looked at one by one.
  int64_t few_updates = 16, little_work = 1 << 22;
};

/// Few updates: each element looks at all of them. Else the updates are sorted by where they go (a stable radix sort, 8 bits at a
/// time), and each element adds its run. Refused: other ops, and more than 2^30 updates or elements that are told apart.
std::variant<CallList, kernel::Refusal> scatter_calls(const ir::Node& node,
                                                      const ScatterOptions& options = {});

}  // namespace espalier::target::cuda
