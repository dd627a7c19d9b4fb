#pragma once
// Checks that infer rules share. What depends on an unbound symbol is checked when the symbol is bound: specialising
// makes every node again.
#include "ir/op_def.h"
#include "op/axes.h"

namespace espalier::op {

/// UserError unless 0 <= axis < rank.
void check_axis(const ir::InferCtx& c, int64_t axis, int rank);
/// UserError where one of the dims that an attribute asks for is negative.
void check_dims(const ir::InferCtx& c, const ir::Dims& dims);
/// UserError unless the axes are valid for `rank`, distinct and rising.
void check_axes(const ir::InferCtx& c, const std::vector<int64_t>& axes, int rank);
/// UserError unless operands `from`..end all have one type; gives that type.
const ir::Type& check_one_type(const ir::InferCtx& c, size_t from = 0);
/// UserError unless operand i is i32 or i64.
void check_indices(const ir::InferCtx& c, size_t i);
/// One result, of operand 0's type (all operands have it).
std::vector<ir::Type> same_type(const ir::InferCtx& c);
/// As same_type, but of bool.
std::vector<ir::Type> bool_of_same_type(const ir::InferCtx& c);
/// Do both hold the same number of elements, symbols included?
bool same_count(const ir::Dims& a, const ir::Dims& b);

}  // namespace espalier::op
