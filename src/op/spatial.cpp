#include "op/spatial.h"

namespace espalier::op {

using ir::Dim;
using ir::InferCtx;
using ir::Type;

namespace {

std::string list_text(const std::vector<int64_t>& v) { return ir::dims_text(std::span<const int64_t>(v)); }

}  // namespace

std::vector<int64_t> spatial_dims(const InferCtx& c, const Type& t) {
  std::vector<int64_t> dims;
  for (size_t i = 1; i + 1 < t.dims.size(); ++i) {
    if (!t.dims[i].is_static())
      c.fail("a spatial dim is symbolic", "numbers (only the batch may be a symbol)");
    dims.push_back(t.dims[i].value());
  }
  return dims;
}

std::vector<int64_t> spatial_dims(const ir::Value& v) {
  return ir::static_dims(std::span<const Dim>(v.dims()).subspan(1, v.dims().size() - 2));
}

Type spatial_type(ir::Dtype dtype, Dim first, const std::vector<int64_t>& spatial, Dim last) {
  ir::Dims dims{first};
  dims.insert(dims.end(), spatial.begin(), spatial.end());
  dims.push_back(last);
  return {dtype, std::move(dims)};
}

void check_per_axis(const InferCtx& c, const char* name, const std::vector<int64_t>& v, size_t axes,
                    int64_t least) {
  if (v.size() != axes)
    c.fail(std::string(name) + " has another number of entries than there are spatial axes",
           std::to_string(axes), list_text(v));
  for (const int64_t x : v)
    if (x < least) c.fail(std::string(name) + " is too small", ">= " + std::to_string(least), list_text(v));
}

std::vector<int64_t> sliding_out(const InferCtx& c, const Sliding& s, const std::vector<int64_t>& pad_high) {
  std::vector<int64_t> out;
  for (size_t i = 0; i < s.in.size(); ++i) {
    if (s.window[i] < 1) c.fail("a dim of the window is empty", ">= 1", list_text(s.window));
    const int64_t padded = s.in[i] + s.pad_low[i] + pad_high[i],
                  reach = s.dilation[i] * (s.window[i] - 1) + 1;
    if (padded < reach)
      c.fail("the window is larger than the padded input on spatial axis " + std::to_string(i),
             "at most " + std::to_string(padded), std::to_string(reach));
    out.push_back((padded - reach) / s.stride[i] + 1);
  }
  return out;
}

}  // namespace espalier::op
