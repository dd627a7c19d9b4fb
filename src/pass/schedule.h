#pragma once
// The order in which a fused-level graph's nodes run: one order, fixed by the graph's structure alone.
//
// The node that makes the new value of a state pair comes after every reader of the old value, so that both can be one
// buffer; where the new value is needed to compute a reader of the old one, that is impossible, and the pair is copied at
// the end of a run. Among the orders this allows, three are tried and the one whose live values need the least memory is
// kept: depth first; depth first but whatever frees memory goes first; whatever frees most goes first. So an optimiser's
// update runs as soon as its gradient is there, and the gradient's memory is free again.
#include <vector>

#include "ir/graph.h"

namespace espalier::pass {

struct Schedule {
  std::vector<const ir::Node*> order;  ///< every node that is a step: no input, constant or view
  std::vector<char> shared;            ///< per state pair: may the new value be written over the old one?
  int64_t live_bytes = 0;              ///< estimate of the largest live set of temporary values
};

/// The order of `graph` (static types; it must stay alive as long as the schedule is read).
Schedule schedule(const ir::Graph& graph);

}  // namespace espalier::pass
