#pragma once
// Lists of axes: what is at them, what is not among them, and orders of them.
#include <cstdint>
#include <vector>

#include "ir/type.h"

namespace espalier::op {

/// An axis, or a position in a list, as an index of a container.
constexpr size_t at(int64_t i) { return static_cast<size_t>(i); }

/// values[axes[0]], values[axes[1]], ...
template <class T>
std::vector<T> pick(const std::vector<T>& values, const std::vector<int64_t>& axes) {
  std::vector<T> out;
  out.reserve(axes.size());
  for (const int64_t k : axes) out.push_back(values[at(k)]);
  return out;
}

/// 0..rank-1 without `axes`.
std::vector<int64_t> axes_without(int rank, const std::vector<int64_t>& axes);
/// The dims that are not at `axes`.
ir::Dims dims_without(const ir::Dims& dims, const std::vector<int64_t>& axes);
/// How many elements the dims at `axes` span.
int64_t count_at(const std::vector<int64_t>& dims, const std::vector<int64_t>& axes);
/// The axes of `a`, then those of `b`.
std::vector<int64_t> joined(std::vector<int64_t> a, const std::vector<int64_t>& b);

/// 0, 1, 2, ...?
bool is_identity(const std::vector<int64_t>& perm);
/// The permutation that undoes `perm`.
std::vector<int64_t> inverse(const std::vector<int64_t>& perm);

}  // namespace espalier::op
