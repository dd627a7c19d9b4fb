#pragma once
// The op table: the only list of ops. Everything that enumerates ops (parser, docs, support matrix, tests) reads it.
#include <span>
#include <string_view>

#include "ir/op_def.h"

namespace espalier::op {

/// Every op, leaves first, then by family.
ESPALIER_API std::span<const ir::OpDef* const> all_ops();
/// The op of that name, or null. User ops added by register_op() are found too.
ESPALIER_API const ir::OpDef* find_op(std::string_view name);
/// Add an op from outside (its name must be new: UserError). The constant must live for ever.
ESPALIER_API void register_op(const ir::OpDef& op);

/// Each family's list, gathered by table.cpp.
std::span<const ir::OpDef* const> elementwise_ops();
std::span<const ir::OpDef* const> movement_ops();
std::span<const ir::OpDef* const> reduction_ops();
std::span<const ir::OpDef* const> contraction_ops();
std::span<const ir::OpDef* const> window_ops();
std::span<const ir::OpDef* const> indexed_ops();
std::span<const ir::OpDef* const> random_ops();
std::span<const ir::OpDef* const> control_ops();
std::span<const ir::OpDef* const> activation_ops();
std::span<const ir::OpDef* const> norm_ops();
std::span<const ir::OpDef* const> loss_ops();
std::span<const ir::OpDef* const> marker_ops();

}  // namespace espalier::op
