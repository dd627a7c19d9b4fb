#pragma once
// Graph: named inputs, named outputs, state pairs and a level; a value type over shared immutable nodes.
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "ir/node.h"
#include "ir/op_def.h"

namespace espalier::ir {

/// The three levels share Node and Graph; each has its verifier.
enum class Level : uint8_t { tensor, fused, planned };
std::string_view level_name(Level level);

struct Output {
  std::string name;
  Value value;
};

/// State: the output's value becomes the input's value of the next run; the pair may share one buffer, which is written
/// only after the last reader of the old value.
struct StatePair {
  std::string input, output;
  bool operator==(const StatePair&) const = default;
};

/// What people called a node and where it was made; lives beside the graph, keyed by node id.
struct NodeInfo {
  std::string name, location;
};

class ESPALIER_API Graph {
 public:
  std::string name;
  Level level = Level::tensor;
  std::vector<Value> inputs;  ///< nodes of op `input`, each named in its attributes
  std::vector<Output> outputs;
  std::vector<StatePair> state;
  std::map<uint64_t, NodeInfo> info;

  /// Every node an output needs, operands first, in one order fixed by the outputs' structure; inputs that are not
  /// needed are not in it.
  std::vector<const Node*> nodes() const;
  std::vector<Value> output_values() const;
  std::vector<Type> input_types() const;
  const std::string& input_name(size_t i) const;
  /// Index of the input or output of that name; nullopt when there is none.
  std::optional<size_t> find_input(std::string_view name) const;
  std::optional<size_t> find_output(std::string_view name) const;
  /// Note the names of named constants in `info`, which carries them on where passes take them off the constants.
  void note_constant_names();
};

/// Inputs are nodes of `input`, names are unique, outputs reach no other input, state pairs name existing sides of equal
/// type, bodies are closed and of no higher level (a body that no pass lowered is run as it stands). Throws InternalError
/// that names what is wrong.
ESPALIER_API void verify(const Graph& graph);

/// Text that parse() reads back to the same graph. Constants of more than 16 elements go to `pool` and print as "@n"
/// with their hash; without a pool all elements are printed.
ESPALIER_API std::string print(const Graph& graph, ConstantPool* pool = nullptr, int indent = 0);
/// The graph of a text; ops are looked up by name through `find_op`. UserError names the line.
using FindOp = const OpDef* (*)(std::string_view name);
ESPALIER_API Graph parse(std::string_view text, const ConstantPool* pool = nullptr);
Graph parse_body(TextReader& in, const ConstantPool* pool);
/// How parse() finds ops by name; op/ registers its table here once.
void set_op_finder(FindOp find);

/// Equal up to the identity of inputs and random streams: same structure, attributes, names of inputs and outputs.
ESPALIER_API bool same_structure(const Graph& a, const Graph& b);
/// A hash that agrees with same_structure().
ESPALIER_API size_t structure_hash(const Graph& graph);

/// A mapping from the values of one graph to values of another, filled operands first.
class ESPALIER_API ValueMap {
 public:
  void set(const Value& from, Value to) { map_[from] = std::move(to); }
  const Value* find(const Value& from) const;
  /// The mapped value, or `from` itself when nothing was set.
  const Value& of(const Value& from) const;
  bool has(const Value& from) const { return find(from) != nullptr; }

 private:
  std::unordered_map<Value, Value, ValueHash> map_;
};

/// Rebuild `graph` node by node, operands first. `visit(node, operands)` gives the node's new results, or an empty vector
/// to make the same op again on the new operands (the very same node when these did not change). Inputs are kept unless
/// `visit` replaces them by other inputs. Node info and state are carried along.
using VisitFn = std::function<std::vector<Value>(const Node&, const std::vector<Value>& operands)>;
ESPALIER_API Graph transform(const Graph& graph, const VisitFn& visit);
/// The values of `graph`'s outputs with `arguments` in place of its inputs (inlining a body).
ESPALIER_API std::vector<Value> inline_graph(const Graph& graph, std::span<const Value> arguments);
/// Bind symbols to numbers throughout (input types, attributes, bodies). Names that do not occur are ignored.
ESPALIER_API Graph specialise(const Graph& graph, const std::map<std::string, int64_t>& symbols);
/// The symbols that occur in the graph's inputs, sorted.
ESPALIER_API std::vector<std::string> symbols_of(const Graph& graph);

}  // namespace espalier::ir
