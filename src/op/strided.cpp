#include "op/strided.h"

namespace espalier::op {

using ir::Array;

View whole(const std::vector<int64_t>& dims) { return {0, ir::row_major_strides(dims)}; }

void copy_view(Array& to, const View& t, const Array& from, const View& f, const std::vector<int64_t>& dims) {
  ir::dispatch(to.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* out = to.write<T>() + t.offset;
    const T* in = from.data<T>() + f.offset;
    walk(dims, t.strides, f.strides, [&](int64_t i, int64_t j) { out[i] = in[j]; });
  });
}

Array read_view(const Array& from, const View& view, std::vector<int64_t> dims) {
  Array out(from.dtype(), dims);
  copy_view(out, whole(dims), from, view, dims);
  return out;
}

}  // namespace espalier::op
