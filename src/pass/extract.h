#pragma once
// Cutting a set of nodes out of a graph as a closed body.
#include <vector>

#include "ir/graph.h"

namespace espalier::pass {

struct Extracted {
  ir::GraphRef body;
  std::vector<ir::Value> operands;  ///< what the body's inputs stand for, in order
  /// Per operand: is it a constant?
  std::vector<char> constant() const;
};

/// A body that computes `results` by `members` (operands first; fusions among them are inlined). Scalar constants
/// move into the body; every other value from outside becomes an input, in order of first use.
Extracted extract(const std::vector<const ir::Node*>& members, const std::vector<ir::Value>& results,
                  std::string name, ir::Level level = ir::Level::fused);

}  // namespace espalier::pass
