#pragma once
// Reductions: axes are folded away (no axis is kept as 1).
#include "op/movement.h"

namespace espalier::op {

extern const ir::OpDef reduce_sum_op, reduce_prod_op, reduce_max_op, reduce_min_op, argmax_op, argmin_op;

/// Sum over `axes` (all axes where empty is not meant: an empty list reduces nothing). Bool is not summed: cast first.
Value reduce_sum(Value x, std::vector<int64_t> axes);
Value reduce_prod(Value x, std::vector<int64_t> axes);
/// Max over `axes`; on bool it is "any".
Value reduce_max(Value x, std::vector<int64_t> axes);
/// Min over `axes`; on bool it is "all".
Value reduce_min(Value x, std::vector<int64_t> axes);
/// Sum divided by the number of elements folded.
Value reduce_mean(Value x, std::vector<int64_t> axes);
/// i64 index of the first largest element along `axis` (NaN counts as largest; the axis must not be empty).
Value argmax(Value x, int64_t axis);
Value argmin(Value x, int64_t axis);
/// x minus its largest element along `axes`: exp() of it cannot overflow.
Value below_max(const Value& x, const std::vector<int64_t>& axes);
/// 0..rank-1.
std::vector<int64_t> all_axes(const Value& x);
/// Broadcast a reduction's result back over the axes it folded from `like`.
Value unreduce(Value reduced, const Value& like, const std::vector<int64_t>& axes);

}  // namespace espalier::op
