#include "op/scalar_loop.h"

#include <algorithm>

namespace espalier::op {

using ir::Array;
using ir::Dtype;

namespace {

constexpr int64_t block = 256;

/// Rounds to the dtype; integers wrap; a bool is the lowest bit.
template <class T, class C>
T store(C v) {
  if constexpr (std::is_same_v<T, bool> && std::is_integral_v<C>) return (v & 1) != 0;
  else if constexpr (std::is_same_v<T, bool>) return v != 0;
  else return number_cast<T>(v);
}

/// Computes in C: operands are widened to it in blocks, the result rounded once.
template <class C>
void run_blocks(C (*body)(const C*), std::span<const Array> operands, Array& out) {
  const size_t arity = operands.size();
  std::vector<C> in(arity * block), results(block), arguments(arity);
  for (int64_t start = 0; start < out.size(); start += block) {
    const int64_t n = std::min(block, out.size() - start);
    for (size_t k = 0; k < arity; ++k)
      ir::dispatch(operands[k].dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* from = operands[k].data<T>() + start;
        for (int64_t i = 0; i < n; ++i) in[static_cast<size_t>(i) * arity + k] = number_cast<C>(from[i]);
      });
    for (int64_t i = 0; i < n; ++i)
      results[static_cast<size_t>(i)] = body(&in[static_cast<size_t>(i) * arity]);
    ir::dispatch(out.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      T* to = out.write<T>() + start;
      for (int64_t i = 0; i < n; ++i) to[i] = store<T>(results[static_cast<size_t>(i)]);
    });
  }
}

}  // namespace

Array run_scalar(const ir::Scalar& scalar, std::span<const Array> operands, const ir::Type& type) {
  Array out(type.dtype, ir::static_dims(type.dims));
  const Dtype compute = operands.back().dtype();  // a condition stands before the values it chooses
  if (compute == Dtype::f64) run_blocks(scalar.f64, operands, out);
  else if (is_float(compute)) run_blocks(scalar.f32, operands, out);
  else run_blocks(scalar.i64, operands, out);
  return out;
}

}  // namespace espalier::op
