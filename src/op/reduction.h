#pragma once
// Reductions: axes are folded away (no axis is kept as 1).
#include "base/export.h"
#include "op/movement.h"

namespace espalier::op {

ESPALIER_API extern const ir::OpDef reduce_sum_op, reduce_prod_op, reduce_max_op, reduce_min_op, argmax_op,
    argmin_op;

/// Sum over `axes` (all axes where empty is not meant: an empty list reduces nothing). Bool is not summed: cast first.
ESPALIER_API Value reduce_sum(Value x, std::vector<int64_t> axes);
ESPALIER_API Value reduce_prod(Value x, std::vector<int64_t> axes);
/// Max over `axes`; on bool it is "any".
ESPALIER_API Value reduce_max(Value x, std::vector<int64_t> axes);
/// Min over `axes`; on bool it is "all".
ESPALIER_API Value reduce_min(Value x, std::vector<int64_t> axes);
/// Sum divided by the number of elements folded.
ESPALIER_API Value reduce_mean(Value x, std::vector<int64_t> axes);
/// i64 index of the first largest element along `axis` (NaN counts as largest; the axis must not be empty).
ESPALIER_API Value argmax(Value x, int64_t axis);
ESPALIER_API Value argmin(Value x, int64_t axis);
/// x minus its largest element along `axes`: exp() of it cannot overflow.
ESPALIER_API Value below_max(const Value& x, const std::vector<int64_t>& axes);
/// 0..rank-1.
ESPALIER_API std::vector<int64_t> all_axes(const Value& x);
/// Broadcast a reduction's result back over the axes it folded from `like`.
ESPALIER_API Value unreduce(Value reduced, const Value& like, const std::vector<int64_t>& axes);

}  // namespace espalier::op
