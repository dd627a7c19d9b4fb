#include "kernel/bit_mask.h"

#include <initializer_list>

#include "op/elementwise.h"
#include "op/indexed.h"
#include "op/movement.h"
#include "op/reduction.h"

namespace espalier::kernel {

using ir::Dtype;
using ir::Value;

namespace {

constexpr int64_t byte = 8;

/// The number of each bit in its byte.
Value places(const ir::Dims& dims) {
  return op::iota({Dtype::i32, dims}, static_cast<int64_t>(dims.size()) - 1);
}

/// `x` behind so many of these ops, one on the other, or no value; those in brackets may lack.
struct Step {
  const ir::OpDef* op;
  bool optional = false;
};
Value behind(Value x, std::initializer_list<Step> steps) {
  for (const Step& s : steps) {
    if (&x->op() == s.op) x = x->input(0);
    else if (!s.optional) return {};
  }
  return x;
}

}  // namespace

Value pack_bits(const Value& x) {
  ir::Dims dims = x.dims();
  const int64_t n = dims.back().value(), filled = row_bits(n);
  std::vector<int64_t> low(dims.size(), 0), high = low;
  high.back() = filled - n;
  const Value row = filled == n ? x : op::pad(x, ir::constant(Dtype::boolean, 0), low, high);
  dims.back() = filled / byte;
  dims.emplace_back(byte);
  const Value bits = op::cast(op::reshape(row, dims), Dtype::i32);
  const Value sum = op::reduce_sum(op::shift_left(bits, places(dims)), {bits.rank() - 1});
  return op::cast(sum, Dtype::u8);
}

Value unpack_bits(const Value& x, int64_t n) {
  ir::Dims dims = x.dims();
  std::vector<int64_t> axes;
  for (int64_t i = 0; i < x.rank(); ++i) axes.push_back(i);
  const int64_t filled = dims.back().value() * byte;
  dims.emplace_back(byte);
  const Value bytes = op::broadcast_in(op::cast(x, Dtype::i32), dims, axes);
  const Value shifted = op::shift_right(bytes, places(dims));
  const Value bits = op::ne(op::rem(shifted, op::full_like(shifted, 2)), op::zeros_like(shifted));
  dims.pop_back();
  dims.back() = filled;
  const Value row = op::reshape(bits, dims);
  return filled == n ? row : op::slice_axis(row, row.rank() - 1, 0, n);
}

Value match_packed(const Value& x) {
  const Value v = behind(x, {{&op::cast_op},
                             {&op::reduce_sum_op},
                             {&op::shift_left_op},
                             {&op::cast_op},
                             {&op::reshape_op},
                             {&op::pad_op, true}});
  const bool fits = v && v.dtype() == Dtype::boolean && v.rank() > 0 && v.dims().back().is_static();
  return fits && pack_bits(v) == x ? v : Value();
}

Value match_unpacked(const Value& x) {
  if (x.dtype() != Dtype::boolean || x.rank() == 0 || !x.dims().back().is_static()) return {};
  const Value v = behind(x, {{&op::slice_op, true},
                             {&op::reshape_op},
                             {&op::ne_op},
                             {&op::rem_op},
                             {&op::shift_right_op},
                             {&op::broadcast_to_op},
                             {&op::cast_op}});
  const int64_t n = x.dims().back().value();
  const bool fits = v && v.dtype() == Dtype::u8 && v.rank() == x.rank() && v.dims().back().is_static() &&
                    v.dims().back().value() * byte == row_bits(n);
  return fits && unpack_bits(v, n) == x ? v : Value();
}

}  // namespace espalier::kernel
