#pragma once
// Control flow as one step: the bodies of cond, scan and while_loop are programs of their own, compiled like any other, whose
// arena and table of pointers lie in the scratch of the step. Nothing is copied that can be bound: carries live in the
// results of the node, where the body updates them as state; a step of a scan reads its slices and writes its stacked
// values where they stand in the whole arrays.
#include <functional>

#include "run/program.h"

namespace espalier::run {

/// A node of control flow, prepared.
struct NestedStep {
  std::unique_ptr<target::Kernel> kernel;
  ControlFlow control;
  std::vector<std::shared_ptr<const Program>> bodies;  ///< in the order of the node's attributes
};

/// Compiles one body; state pairs of the graph are carries.
using CompileBody =
    std::function<std::shared_ptr<const Program>(const ir::Graph& body, const SlotAlignment& alignment)>;

/// The step of `node` (cond, scan or while_loop with static types), whose operands and results have addresses that divide by `alignment`;
/// those not named: 64. Without a kernel for any other op.
NestedStep nest(const ir::Node& node, std::span<const int64_t> alignment, const CompileBody& compile);

}  // namespace espalier::run
