#include "tensor/input_ranges.h"

#include <algorithm>
#include <map>
#include <optional>

#include "op/activation.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/loss.h"
#include "op/reduction.h"

namespace espalier {

namespace {

using ir::Node;
using ir::Value;

/// What operand 1 of `n` may hold, from 0 to this, both included; nullopt: anything.
std::optional<int64_t> largest(const Node& n) {
  const auto last_of = [&](int64_t axis) -> std::optional<int64_t> {
    const ir::Dim& dim = n.input(0).dims()[static_cast<size_t>(axis)];
    if (!dim.is_static()) return std::nullopt;
    return dim.value() - 1;
  };
  if (&n.op() == &op::cross_entropy_op) return last_of(n.input(0).rank() - 1);
  if (&n.op() == &op::embedding_op) return last_of(0);
  if (&n.op() == &op::gather_op || &n.op() == &op::gather_along_op)
    return last_of(n.attrs<op::AxisAttrs>().axis);
  if (&n.op() == &op::bce_with_logits_op) return 1;
  return std::nullopt;
}

/// Does this cast keep numbers what they are (but for the rounding of floats, and numbers that do not fit)? Not one to bool or from a
/// float to an integer.
bool keeps_numbers(const Node& cast) {
  const ir::Dtype from = cast.input(0).dtype(), to = cast.types()[0].dtype;
  return to != ir::Dtype::boolean && (ir::is_float(to) || !ir::is_float(from));
}

/// The value whose elements `v` holds, all of them, in another order or dtype.
Value source_of(Value v) {
  while ((&v->op() == &op::cast_op && keeps_numbers(v.node())) || &v->op() == &op::reshape_op ||
         &v->op() == &op::transpose_op || &v->op() == &op::broadcast_to_op)
    v = v->input(0);
  return v;
}

void check_constant(const Node& n, const ir::Array& a, int64_t limit) {
  for (int64_t i = 0; i < a.size(); ++i) {
    const double x = a.at(i);
    if (x >= 0 && x <= static_cast<double>(limit)) continue;
    throw UserError({std::string(n.op().name) + ", operand 1, element " + std::to_string(i),
                     "value out of range", number_text(x), "0 to " + std::to_string(limit)});
  }
}

}  // namespace

std::vector<run::InputRange> input_ranges(const ir::Graph& graph, size_t inputs) {
  std::map<size_t, int64_t> limits;
  for (const Node* n : graph.nodes()) {
    const std::optional<int64_t> limit = largest(*n);
    if (!limit) continue;
    const Value source = source_of(n->input(1));
    const bool targets = &n->op() == &op::bce_with_logits_op;
    if (source.dtype() == ir::Dtype::boolean || (!targets && !ir::is_integer(source.dtype()))) continue;
    if (const ir::Array* a = ir::constant_value(source)) check_constant(*n, *a, *limit);
    const auto at = std::find(graph.inputs.begin(), graph.inputs.end(), source);
    const auto i = static_cast<size_t>(at - graph.inputs.begin());
    if (i >= inputs) continue;
    const auto [slot, added] = limits.emplace(i, *limit);
    if (!added) slot->second = std::min(slot->second, *limit);
  }
  std::vector<run::InputRange> out;
  for (const auto& [i, limit] : limits)
    out.push_back({graph.input_name(i), 0, limit + (ir::is_float(graph.inputs[i].dtype()) ? 0 : 1)});
  return out;
}

}  // namespace espalier
