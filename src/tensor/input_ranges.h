#pragma once
// What a graph's own ops allow its inputs and constants to hold: classes of labels, rows of tables, targets between 0 and 1.
#include <span>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "run/program.h"

namespace espalier {

/// For each of the graph's first `inputs` inputs that is, perhaps after casts (not to bool, nor from floats to integers), reshapes, transposes and broadcasts,
///   of integers, and the labels of a cross entropy or the positions of an embedding or a gather: [0, classes or rows), or [-rows, rows)
///   where negative positions are made to count from the end;
///   the targets of a binary cross entropy: from 0 to 1;
/// the narrowest where there are several. Constants in such places are checked here: UserError names op and element. Bodies of control
/// flow are not looked into.
std::vector<run::InputRange> input_ranges(const ir::Graph& graph, size_t inputs);

/// A value of a graph that must lie in a range and is computed there.
struct ComputedRange {
  ir::Value value;
  int64_t low = 0, high = 0;  ///< both included
  std::string op;             ///< that reads it
};
/// Labels and positions, as above, that are neither inputs nor constants.
std::vector<ComputedRange> computed_ranges(const ir::Graph& graph);
/// UserError where an element of operand 1 of `op` lies outside low..high, both included.
void check_elements(const std::string& op, const ir::Array& elements, int64_t low, int64_t high);

}  // namespace espalier
