#pragma once
// Who uses a value.
#include <unordered_map>
#include <vector>

#include "ir/graph.h"

namespace espalier::rewrite {

/// The consumers of every value of a graph, in the order of graph.nodes(); a node that takes a value twice stands twice.
class Uses {
 public:
  explicit Uses(const ir::Graph& graph) {
    for (const ir::Node* n : graph.nodes())
      for (const ir::Value& v : n->inputs()) users_[v].push_back(n);
    for (const ir::Output& o : graph.outputs) ++outputs_[o.value];
  }
  /// Nodes that take `value`.
  const std::vector<const ir::Node*>& of(const ir::Value& value) const {
    static const std::vector<const ir::Node*> none;
    const auto it = users_.find(value);
    return it == users_.end() ? none : it->second;
  }
  /// How many outputs of the graph it is.
  int outputs(const ir::Value& value) const {
    const auto it = outputs_.find(value);
    return it == outputs_.end() ? 0 : it->second;
  }
  /// The only consumer, or null when there are several, none, or the value is an output.
  const ir::Node* only(const ir::Value& value) const {
    const auto& users = of(value);
    return users.size() == 1 && outputs(value) == 0 ? users[0] : nullptr;
  }

 private:
  std::unordered_map<ir::Value, std::vector<const ir::Node*>, ir::ValueHash> users_;
  std::unordered_map<ir::Value, int, ir::ValueHash> outputs_;
};

}  // namespace espalier::rewrite
