#include "op/axes.h"

#include <algorithm>

namespace espalier::op {

std::vector<int64_t> axes_without(int rank, const std::vector<int64_t>& axes) {
  std::vector<int64_t> out;
  for (int64_t k = 0; k < rank; ++k)
    if (std::find(axes.begin(), axes.end(), k) == axes.end()) out.push_back(k);
  return out;
}

ir::Dims dims_without(const ir::Dims& dims, const std::vector<int64_t>& axes) {
  return pick(dims, axes_without(static_cast<int>(dims.size()), axes));
}

int64_t count_at(const std::vector<int64_t>& dims, const std::vector<int64_t>& axes) {
  return ir::count(std::span<const int64_t>(pick(dims, axes)));
}

std::vector<int64_t> joined(std::vector<int64_t> a, const std::vector<int64_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

bool is_identity(const std::vector<int64_t>& perm) {
  for (size_t i = 0; i < perm.size(); ++i)
    if (perm[i] != static_cast<int64_t>(i)) return false;
  return true;
}

std::vector<int64_t> inverse(const std::vector<int64_t>& perm) {
  std::vector<int64_t> inv(perm.size());
  for (size_t i = 0; i < perm.size(); ++i) inv[at(perm[i])] = static_cast<int64_t>(i);
  return inv;
}

}  // namespace espalier::op
