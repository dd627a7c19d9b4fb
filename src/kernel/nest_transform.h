#pragma once
// Changes of a nest that keep its meaning, and what targets ask when they map its loops.
#include "kernel/loop_nest.h"

namespace espalier::kernel {

/// Every affine expression of the nest, for reading or changing.
template <class Nest, class F>
void each_affine(Nest& nest, F&& f) {
  for (auto& stage : nest.stages) {
    for (auto& in : stage.body) {
      if (in.kind == Instr::Kind::load || in.kind == Instr::Kind::index) f(in.address);
      for (auto& g : in.guards) f(g.index);
    }
    for (auto& st : stage.stores) f(st.address);
  }
}

/// Make one loop of neighbours in a list of loops, where every address moves along them as along one loop: the inner variable
/// stands for both, the outer one is gone from the list (extent 1).
void merge_loops(LoopNest& nest);

/// Product of the extents of `loops`.
int64_t points(const LoopNest& nest, const std::vector<int>& loops);

}  // namespace espalier::kernel
