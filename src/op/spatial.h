#pragma once
// What convolutions and pooling share: spatial dims of channels-last tensors, and the taps of a sliding window.
#include "ir/op_def.h"

namespace espalier::op {

/// The spatial dims of a tensor type [first, spatial..., last]; UserError where one is symbolic.
std::vector<int64_t> spatial_dims(const ir::InferCtx& c, const ir::Type& t);
/// The same of static dims.
inline std::vector<int64_t> spatial_dims(const std::vector<int64_t>& dims) {
  return {dims.begin() + 1, dims.end() - 1};
}
/// The same of a value that has passed its infer rule.
std::vector<int64_t> spatial_dims(const ir::Value& v);
/// [first, spatial..., last].
ir::Type spatial_type(ir::Dtype dtype, ir::Dim first, const std::vector<int64_t>& spatial, ir::Dim last);
/// UserError unless `v` has one entry per spatial axis, each at least `least`.
void check_per_axis(const ir::InferCtx& c, const char* name, const std::vector<int64_t>& v, size_t axes,
                    int64_t least);

/// A window sliding over spatial axes: output o reads input o*stride - pad_low + k*dilation for every k of the window.
struct Sliding {
  std::vector<int64_t> in, window, out, stride, pad_low, dilation;
};

/// Output dims of a window over `in`; UserError where the window is empty or larger than the padded input.
std::vector<int64_t> sliding_out(const ir::InferCtx& c, const Sliding& s,
                                 const std::vector<int64_t>& pad_high);

/// Row-major index of `index` in `dims`.
inline int64_t flat_index(const std::vector<int64_t>& index, const std::vector<int64_t>& dims) {
  int64_t at = 0;
  for (size_t i = 0; i < dims.size(); ++i) at = at * dims[i] + index[i];
  return at;
}

/// Advance a row-major index; false after the last.
inline bool advance(std::vector<int64_t>& index, const std::vector<int64_t>& dims) {
  for (size_t i = dims.size(); i-- > 0;) {
    if (++index[i] < dims[i]) return true;
    index[i] = 0;
  }
  return false;
}

/// Call f(input, tap, output), flat spatial positions, for every tap that lies inside the input; output by output.
template <class F>
void each_tap(const Sliding& s, F&& f) {
  if (ir::count(std::span<const int64_t>(s.out)) == 0 || ir::count(std::span<const int64_t>(s.window)) == 0)
    return;
  std::vector<int64_t> o(s.out.size(), 0), k(s.out.size(), 0), i(s.out.size(), 0);
  do {
    do {
      bool inside = true;
      for (size_t d = 0; d < o.size(); ++d) {
        i[d] = o[d] * s.stride[d] - s.pad_low[d] + k[d] * s.dilation[d];
        inside = inside && i[d] >= 0 && i[d] < s.in[d];
      }
      if (inside) f(flat_index(i, s.in), flat_index(k, s.window), flat_index(o, s.out));
    } while (advance(k, s.window));
  } while (advance(o, s.out));
}

}  // namespace espalier::op
