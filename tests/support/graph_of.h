#pragma once
// Graphs of a few nodes.
#include <string>
#include <vector>

#include "ir/graph.h"

namespace espalier::test {

inline ir::Graph graph_of(std::vector<ir::Value> inputs, std::vector<ir::Output> outputs,
                          std::vector<ir::StatePair> state = {}) {
  return {.name = "g",
          .level = ir::Level::tensor,
          .inputs = std::move(inputs),
          .outputs = std::move(outputs),
          .state = std::move(state),
          .info = {}};
}

/// Its outputs are y0, y1 and so on.
inline ir::Graph graph_of(std::vector<ir::Value> inputs, const std::vector<ir::Value>& outputs) {
  ir::Graph g = graph_of(std::move(inputs), std::vector<ir::Output>());
  for (const ir::Value& v : outputs) g.outputs.push_back({"y" + std::to_string(g.outputs.size()), v});
  return g;
}

}  // namespace espalier::test
