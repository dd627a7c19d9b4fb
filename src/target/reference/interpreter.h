#pragma once
// The reference interpreter: what every op means. Slow and plain; every target is checked against it.
//   elementwise ops   their scalar body: f64 in double, other floats in float and rounded once, integers and bool in int64
//   composites        their expansion, recursively
//   everything else   the record's eval
// Thread-safe: calls share nothing.
#include <span>
#include <vector>

#include "ir/graph.h"

namespace espalier::target::reference {

/// The outputs of `graph` (of any level) for `inputs`, in order; an array is freed after its last use. Symbols are bound by
/// the inputs' dims. UserError when the inputs do not fit the graph's.
ESPALIER_API std::vector<ir::Array> evaluate(const ir::Graph& graph, std::span<const ir::Array> inputs);

/// The results of one node (with static types) for its operands' values.
ESPALIER_API std::vector<ir::Array> evaluate_node(const ir::Node& node, std::span<const ir::Array> operands);

}  // namespace espalier::target::reference
