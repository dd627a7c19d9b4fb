#pragma once
// Patterns over graph values, and rules that read like algebra:
//
//     const Pattern x = any(0), y = any(1);
//     {"x * 1", node(op::mul_op, x, number(1)), [](const Match& m) { return m[0]; }},
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace espalier::rewrite {

/// What a pattern bound: values by variable number, and the matched root.
class Match {
 public:
  const ir::Value& operator[](int variable) const { return bound_[static_cast<size_t>(variable)]; }
  const ir::Value& root() const { return root_; }

 private:
  friend class Pattern;
  static constexpr int max_variables = 8;
  ir::Value bound_[max_variables];
  ir::Value root_;
};

/// A shape of values. Cheap to copy.
class Pattern {
 public:
  /// Does `value` have this shape? Binds variables (a variable met twice must be the same value). Operands of ops listed as
  /// commutative match in either order.
  std::optional<Match> match(const ir::Value& value) const;
  /// The op at the root, or null for any().
  const ir::OpDef* root_op() const;

  struct Shape;
  explicit Pattern(std::shared_ptr<const Shape> shape) : shape_(std::move(shape)) {}

 private:
  bool match_into(const ir::Value& value, Match& match) const;
  bool match_operands(const ir::Value& value, Match& match) const;
  std::shared_ptr<const Shape> shape_;
};

/// Any value, bound to variable 0..7.
Pattern any(int variable);
/// A value all of whose elements are the constant `number` (a constant, or one broadcast or reshaped).
Pattern number(double number);
/// Any value all of whose elements are one constant, bound to `variable`.
Pattern splat(int variable);
/// A result 0 of `op` over operands of these shapes.
Pattern node(const ir::OpDef& op, std::vector<Pattern> operands);
template <class... P>
Pattern node(const ir::OpDef& op, const Pattern& first, const P&... rest) {
  return node(op, std::vector<Pattern>{first, rest...});
}
/// The same, binding the node's value to `variable` as well.
Pattern node_as(int variable, const ir::OpDef& op, std::vector<Pattern> operands);

/// The one constant every element of `value` is, if so.
std::optional<double> splat_value(const ir::Value& value);

/// A row of a rewrite table. `build` returns the replacement (same type), or an empty value to decline.
struct Rule {
  std::string_view name;
  Pattern pattern;
  std::function<ir::Value(const Match&)> build;
  std::function<bool(const Match&)> when = nullptr;
};

/// Visit every node once, operands first; at each, apply the first rule that matches until none does.
/// The same graph comes back when nothing matched.
ir::Graph rewrite_once(const ir::Graph& graph, std::span<const Rule> rules);
/// Repeat rewrite_once until nothing changes (at most `limit` rounds, then InternalError: rules that undo each other).
ir::Graph rewrite_to_fixed_point(const ir::Graph& graph, std::span<const Rule> rules, int limit = 32);
/// Are the outputs of both graphs the very same values (hash-consing makes this the test for "nothing changed")?
bool same_outputs(const ir::Graph& a, const ir::Graph& b);
/// Apply `f` to every body graph of control flow inside `graph` (innermost first), then to `graph` itself. Bodies of fusions are
/// kernels, and are left alone. A graph is of no lower level than its bodies.
ir::Graph with_bodies(const ir::Graph& graph, const std::function<ir::Graph(const ir::Graph&)>& f);

}  // namespace espalier::rewrite
