#pragma once
// What a graph's own ops allow its integer inputs to hold: classes of labels, rows of tables.
#include <span>
#include <vector>

#include "ir/graph.h"
#include "run/program.h"

namespace espalier {

/// For each of the graph's first `arguments` inputs that is of integers and, perhaps after casts, reshapes, transposes and
/// broadcasts, the labels of a cross entropy or the positions of an embedding or a gather: [0, classes or rows), the smallest where
/// there are several. Bodies of control flow are not looked into.
std::vector<run::InputRange> index_ranges(const ir::Graph& graph, size_t arguments);

}  // namespace espalier
