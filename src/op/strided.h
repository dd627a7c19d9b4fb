#pragma once
// Copies between strided views of arrays: the reference meaning of every op that moves elements.
#include <cstdint>
#include <vector>

#include "ir/array.h"

namespace espalier::op {

/// A walk over an array's elements: where it starts and how far each axis steps, in elements.
struct View {
  int64_t offset = 0;
  std::vector<int64_t> strides;
};

/// All of an array with dims `dims`, row-major.
View whole(const std::vector<int64_t>& dims);
/// to[view t][i] = from[view f][i] for every index i of `dims`; both hold one dtype.
void copy_view(ir::Array& to, const View& t, const ir::Array& from, const View& f,
               const std::vector<int64_t>& dims);
/// A new array of `dims`, read from `from` by `view`.
ir::Array read_view(const ir::Array& from, const View& view, std::vector<int64_t> dims);

/// Call f(i, j) for every index of `dims` in row-major order: i and j are the sums of index times a's and b's strides.
template <class F>
void walk(const std::vector<int64_t>& dims, const std::vector<int64_t>& a, const std::vector<int64_t>& b,
          F&& f) {
  for (const int64_t d : dims)
    if (d == 0) return;
  const size_t rank = dims.size();
  std::vector<int64_t> index(rank, 0);
  for (int64_t i = 0, j = 0;;) {
    f(i, j);
    size_t k = rank;
    for (; k > 0; --k) {
      i += a[k - 1], j += b[k - 1];
      if (++index[k - 1] < dims[k - 1]) break;
      i -= a[k - 1] * dims[k - 1], j -= b[k - 1] * dims[k - 1];
      index[k - 1] = 0;
    }
    if (k == 0) return;
  }
}

}  // namespace espalier::op
