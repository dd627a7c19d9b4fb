#include "tensor/index_ranges.h"

#include <algorithm>
#include <map>

#include "op/activation.h"
#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/loss.h"
#include "op/reduction.h"

namespace espalier {

namespace {

using ir::Node;
using ir::Value;

/// Operand 1 of `n` chooses among this axis of operand 0; -1: it does not choose.
int64_t chosen_axis(const Node& n) {
  if (&n.op() == &op::cross_entropy_op) return n.input(0).rank() - 1;
  if (&n.op() == &op::embedding_op) return 0;
  if (&n.op() == &op::gather_op || &n.op() == &op::gather_along_op) return n.attrs<op::AxisAttrs>().axis;
  return -1;
}

/// The value whose elements `v` holds, all of them, in another order or dtype.
Value source_of(Value v) {
  while (&v->op() == &op::cast_op || &v->op() == &op::reshape_op || &v->op() == &op::transpose_op ||
         &v->op() == &op::broadcast_to_op)
    v = v->input(0);
  return v;
}

}  // namespace

std::vector<run::InputRange> index_ranges(const ir::Graph& graph, size_t arguments) {
  std::map<size_t, int64_t> limits;
  for (const Node* n : graph.nodes()) {
    const int64_t axis = chosen_axis(*n);
    if (axis < 0) continue;
    const ir::Dim& dim = n->input(0).dims()[static_cast<size_t>(axis)];
    const Value source = source_of(n->input(1));
    const auto at = std::find(graph.inputs.begin(), graph.inputs.end(), source);
    const auto i = static_cast<size_t>(at - graph.inputs.begin());
    if (i >= arguments || !ir::is_integer(source.dtype()) || !dim.is_static()) continue;
    const auto [slot, added] = limits.emplace(i, dim.factor());
    if (!added) slot->second = std::min(slot->second, dim.factor());
  }
  std::vector<run::InputRange> out;
  for (const auto& [i, limit] : limits) out.push_back({graph.input_name(i), 0, limit});
  return out;
}

}  // namespace espalier
