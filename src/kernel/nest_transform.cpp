#include "kernel/nest_transform.h"

#include <cstddef>

namespace espalier::kernel {
namespace {

/// Merge the neighbours `a`, `b` of one list of loops into b, when every address moves along them as along one loop.
bool merge(LoopNest& nest, std::vector<int>& loops, size_t at) {
  const int a = loops[at], b = loops[at + 1];
  const int64_t extent = nest.extent(b);
  bool fits = true;
  each_affine(std::as_const(nest), [&](const Affine& x) { fits = fits && x.coef(a) == x.coef(b) * extent; });
  if (!fits) return false;
  each_affine(nest, [&](Affine& x) { x.add(Affine::var(a), -x.coef(a)); });
  nest.extents[static_cast<size_t>(b)] *= nest.extent(a);
  nest.extents[static_cast<size_t>(a)] = 1;
  loops.erase(loops.begin() + static_cast<std::ptrdiff_t>(at));
  return true;
}

}  // namespace

void merge_loops(LoopNest& nest) {
  const auto merge_all = [&](std::vector<int>& loops) {
    for (size_t i = loops.size(); i-- > 1;) merge(nest, loops, i - 1);
  };
  merge_all(nest.outer);
  for (Stage& stage : nest.stages) merge_all(stage.loops);
}

int64_t points(const LoopNest& nest, const std::vector<int>& loops) {
  int64_t n = 1;
  for (int v : loops) n *= nest.extent(v);
  return n;
}

}  // namespace espalier::kernel
