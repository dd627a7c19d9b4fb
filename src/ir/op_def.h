#pragma once
// OpDef: everything any layer asks about an op, in one constant without defaults (a forgotten field does not compile).
// The constants stand in op/, one file per family; op/table.cpp is the only list of them.
#include <functional>
#include <random>

#include "ir/node.h"
#include "ir/scalar.h"

namespace espalier::ir {

/// What a pass may assume of an op without knowing it.
enum class Kind : uint8_t {
  leaf,         ///< input, constant
  elementwise,  ///< result element i depends on operand elements i; has .scalar (or is a cast)
  movement,     ///< moves elements: reshape, transpose, broadcast_to, slice, pad, concat, ...
  reduction,    ///< folds axes away
  contraction,  ///< dot and the three convolutions
  window,       ///< pooling, resize
  indexed,      ///< gather, scatter: positions come from data
  random,       ///< counter-based random numbers
  control,      ///< holds body graphs
  composite,    ///< meaning is .expand
  fused,        ///< fused level: fusions and library calls
};

struct Arity {
  int min, max;  ///< operands; max -1 = any number
};

/// What an infer rule sees.
struct InferCtx {
  const OpDef& op;
  std::span<const Type> in;
  const Attrs& attrs;
  /// Throw UserError: "op NAME: problem (got ...; allowed: ...)"; without `got`, the operand types are printed.
  [[noreturn]] void fail(std::string problem, std::string allowed = "", std::string got = "") const;
};
using InferFn = std::vector<Type> (*)(const InferCtx&);

/// What a gradient rule sees: it returns one Value per input (empty = no gradient flows there).
struct GradCtx {
  const Node& node;
  std::span<const Value> dout;   ///< gradient of each result (empty = zero)
  std::span<const char> needed;  ///< per input: is its gradient asked for?
  /// Reverse mode of a body graph (control flow): a graph of (inputs..., gradients of outputs...) -> gradients of the
  /// inputs marked in `wanted`. Supplied by grad/.
  std::function<GraphRef(const GraphRef& body, const std::vector<char>& wanted)> body_grad;
  const Value& in(int i) const { return node.input(i); }
  Value out(int i = 0) const { return node.value(i); }
};
using GradFn = std::vector<Value> (*)(const GradCtx&);
enum class GradKind : uint8_t { rule, by_expansion, none };
/// How an op differentiates; said for every op on purpose.
struct Grad {
  GradKind kind;
  GradFn fn;
};
constexpr Grad rule(GradFn fn) { return {GradKind::rule, fn}; }
inline constexpr Grad by_expansion{GradKind::by_expansion, nullptr},
    not_differentiable{GradKind::none, nullptr};

/// Decomposition into simpler ops: the results as Values over the node's inputs. Null for primitive ops.
using ExpandFn = std::vector<Value> (*)(const Node&);

/// What a reference evaluation sees.
struct EvalCtx {
  const Node& node;
  std::span<const Array> in;
  /// Evaluate a body graph on arrays.
  const std::function<std::vector<Array>(const Graph&, std::span<const Array>)>& run_body;
  template <class A>
  const A& attrs() const {
    return node.attrs<A>();
  }
};
/// The reference meaning of a primitive op; elementwise ops with .scalar and composites have none of their own.
using EvalFn = std::vector<Array> (*)(const EvalCtx&);

/// One random use of an op, for the tests that derive from the table.
struct Sample {
  std::vector<Array> inputs;
  Attrs attrs;
  std::vector<char> differentiable;  ///< per input, where the op has a gradient (empty = all float inputs)
};
using SampleRng = std::mt19937_64;
/// A random sample whose principal operand has `dtype`; called many times, it must reach edge shapes (dims of 0 and 1).
using SampleFn = Sample (*)(SampleRng&, Dtype);

struct OpDef {
  std::string_view name;
  std::string_view doc;
  Kind kind;
  Arity arity;
  DtypeSet dtypes;        ///< of operand 0 (of the result for ops without operands)
  const AttrType* attrs;  ///< attr_type<...>()
  InferFn infer;          ///< the only shape and dtype rule
  Grad grad;
  ExpandFn expand;
  Scalar scalar;
  EvalFn eval;
  SampleFn sample;  ///< null only for leaves and fused-level ops
};

}  // namespace espalier::ir
