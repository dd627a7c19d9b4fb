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

/// The i of `select(i < 0, i + n, i)`: positions where negative ones count from the end; nullopt: something else.
std::optional<Value> counted_from_either_end(const Value& v, int64_t n) {
  if (&v->op() != &op::select_op) return std::nullopt;
  const Value below = v->input(0), moved = v->input(1), i = v->input(2);
  const auto is = [&](const Value& pair, const ir::OpDef& op, int64_t number) {
    if (&pair->op() != &op || pair->input(0) != i) return false;
    const ir::Array* a = ir::constant_value(source_of(pair->input(1)));
    if (!a) return false;
    for (int64_t k = 0; k < a->size(); ++k)
      if (a->at(k) != static_cast<double>(number)) return false;
    return true;
  };
  return is(below, op::lt_op, 0) && is(moved, op::add_op, n) ? std::optional(i) : std::nullopt;
}

/// What must be in a range, and where it is from.
struct Checked {
  Value source;
  int64_t low = 0, high = 0;  ///< both included
};

/// Of operand 1 of `n`; nullopt where it may hold anything.
std::optional<Checked> checked_operand(const Node& n) {
  const std::optional<int64_t> limit = largest(n);
  if (!limit) return std::nullopt;
  Checked c{source_of(n.input(1)), 0, *limit};
  if (const auto i = counted_from_either_end(c.source, *limit + 1)) c = {source_of(*i), -*limit - 1, *limit};
  const ir::Dtype dtype = c.source.dtype();
  const bool targets = &n.op() == &op::bce_with_logits_op;
  if (dtype == ir::Dtype::boolean || (!targets && !ir::is_integer(dtype))) return std::nullopt;
  return c;
}

}  // namespace

void check_elements(const std::string& op, const ir::Array& a, int64_t low, int64_t high) {
  for (int64_t i = 0; i < a.size(); ++i) {
    const double x = a.at(i);
    if (x >= static_cast<double>(low) && x <= static_cast<double>(high)) continue;
    throw UserError({op + ", operand 1, element " + std::to_string(i), "value out of range", number_text(x),
                     std::to_string(low) + " to " + std::to_string(high)});
  }
}

std::vector<ComputedRange> computed_ranges(const ir::Graph& graph) {
  std::vector<ComputedRange> out;
  for (const Node* n : graph.nodes())
    if (const auto c = checked_operand(*n); c && &n->op() != &op::bce_with_logits_op)
      if (c->source->op().kind != ir::Kind::leaf)
        out.push_back({c->source, c->low, c->high, std::string(n->op().name)});
  return out;
}

std::vector<run::InputRange> input_ranges(const ir::Graph& graph, size_t inputs) {
  std::map<size_t, Checked> ranges;
  for (const Node* n : graph.nodes()) {
    const std::optional<Checked> c = checked_operand(*n);
    if (!c) continue;
    if (const ir::Array* a = ir::constant_value(c->source))
      check_elements(std::string(n->op().name), *a, c->low, c->high);
    const auto at = std::find(graph.inputs.begin(), graph.inputs.end(), c->source);
    const auto i = static_cast<size_t>(at - graph.inputs.begin());
    if (i >= inputs) continue;
    const auto [slot, added] = ranges.emplace(i, *c);
    slot->second.low = std::max(slot->second.low, c->low);
    slot->second.high = std::min(slot->second.high, c->high);
  }
  std::vector<run::InputRange> out;
  for (const auto& [i, c] : ranges)
    out.push_back({graph.input_name(i), c.low, c.high + (ir::is_float(graph.inputs[i].dtype()) ? 0 : 1)});
  return out;
}

}  // namespace espalier
