#include "op/infer.h"

#include <algorithm>

namespace espalier::op {

using ir::Dim;
using ir::Dims;
using ir::Dtype;
using ir::InferCtx;
using ir::Type;

void check_axis(const InferCtx& c, int64_t axis, int rank) {
  if (axis < 0 || axis >= rank)
    c.fail("axis is out of range", "0 <= axis < " + std::to_string(rank), std::to_string(axis));
}

void check_axes(const InferCtx& c, const std::vector<int64_t>& axes, int rank) {
  for (size_t i = 0; i < axes.size(); ++i) {
    check_axis(c, axes[i], rank);
    if (i && axes[i] <= axes[i - 1])
      c.fail("axes must rise", "distinct axes in rising order", "[" + join(axes) + "]");
  }
}

void check_dims(const InferCtx& c, const Dims& dims) {
  for (const Dim d : dims)
    if (d.factor() < 0) c.fail("negative dim", "dims >= 0", dims_text(dims));
}

const Type& check_one_type(const InferCtx& c, size_t from) {
  for (size_t i = from + 1; i < c.in.size(); ++i)
    if (c.in[i] != c.in[from])
      c.fail("operands must have one type", "equal dtypes and dims (broadcast_to stretches)");
  return c.in[from];
}

void check_indices(const InferCtx& c, size_t i) {
  if (c.in[i].dtype != Dtype::i32 && c.in[i].dtype != Dtype::i64)
    c.fail("indices have another dtype", "i32 i64");
}

std::vector<Type> same_type(const InferCtx& c) { return {check_one_type(c)}; }

std::vector<Type> bool_of_same_type(const InferCtx& c) { return {{Dtype::boolean, check_one_type(c).dims}}; }

bool same_count(const Dims& a, const Dims& b) {
  const auto parts = [](const Dims& dims) {
    Dim factor = 1;
    std::vector<std::string_view> symbols;
    for (const Dim d : dims) {
      factor = factor * Dim(d.factor());
      if (!d.is_static()) symbols.push_back(d.symbol_name());
    }
    if (factor == Dim(0)) symbols.clear();
    std::sort(symbols.begin(), symbols.end());
    return std::pair(factor, symbols);
  };
  return parts(a) == parts(b);
}

}  // namespace espalier::op
