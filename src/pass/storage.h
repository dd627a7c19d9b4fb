#pragma once
// Whose bytes a value's bytes are. A reshape moves nothing (row-major elements keep their order), so its result is a view:
// the same bytes under other dims, with no step of its own.
#include "ir/graph.h"

namespace espalier::pass {

/// Is this node a view of its operand's bytes?
bool is_view(const ir::Node& node);

/// The value that owns the bytes of `value`: itself, or the operand at the end of a chain of views.
ir::Value storage_of(const ir::Value& value);

}  // namespace espalier::pass
