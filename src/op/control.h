#pragma once
// Control flow: nodes that hold closed body graphs; what a body needs from outside is an explicit operand.
#include <functional>

#include "base/export.h"
#include "ir/graph.h"

namespace espalier::op {

using ir::Value;

struct CondAttrs {
  ir::GraphRef if_true, if_false;  ///< graphs over the operands after the condition; equal result types
  bool operator==(const CondAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("if_true", &CondAttrs::if_true), ir::field("if_false", &CondAttrs::if_false)};
  }
};
/// Operands: `carries` carried values, then `slices` arrays walked along axis 0, then captures.
/// The body maps (carries, slice of each array, captures) to (carries, values to stack).
/// Results: final carries, then each stacked value with a leading axis of `length`.
struct ScanAttrs {
  ir::GraphRef body;
  int64_t carries = 0, slices = 0, length = 0;
  bool reverse = false;
  bool operator==(const ScanAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("body", &ScanAttrs::body), ir::field("carries", &ScanAttrs::carries),
                      ir::field("slices", &ScanAttrs::slices), ir::field("length", &ScanAttrs::length),
                      ir::field("reverse", &ScanAttrs::reverse)};
  }
};
struct WhileAttrs {
  ir::GraphRef condition, body;  ///< condition: (carries, captures) -> bool scalar; body: the same -> carries
  int64_t carries = 0;
  bool operator==(const WhileAttrs&) const = default;
  static constexpr auto fields() {
    return std::tuple{ir::field("condition", &WhileAttrs::condition), ir::field("body", &WhileAttrs::body),
                      ir::field("carries", &WhileAttrs::carries)};
  }
};

ESPALIER_API extern const ir::OpDef cond_op, scan_op, while_loop_op;

/// A closed body graph: `build` maps new inputs of the given types ("in0", "in1", ...) to the outputs ("out0", ...). It must
/// use no other input: what it needs from outside is an operand of the node.
ESPALIER_API ir::GraphRef body_graph(
    std::string name, std::span<const ir::Type> inputs,
    const std::function<std::vector<Value>(const std::vector<Value>&)>& build);

/// `condition` is a bool scalar; both branches take `operands` and give results of equal types.
ESPALIER_API std::vector<Value> cond(Value condition, ir::GraphRef if_true, ir::GraphRef if_false,
                                     std::vector<Value> operands);
/// The loop of ScanAttrs, `length` steps; with `reverse` from the last slice to the first, each result stacked where its
/// slice stood. Its gradient keeps the carries of every step that the body's gradient reads.
ESPALIER_API std::vector<Value> scan(ScanAttrs attrs, std::vector<Value> operands);
/// Not differentiable (no bound on what reverse mode would have to keep): use scan.
ESPALIER_API std::vector<Value> while_loop(WhileAttrs attrs, std::vector<Value> operands);

}  // namespace espalier::op
