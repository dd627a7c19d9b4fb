#include "pass/storage.h"

#include "op/movement.h"

namespace espalier::pass {

bool is_view(const ir::Node& node) { return &node.op() == &op::reshape_op; }

ir::Value storage_of(const ir::Value& value) {
  ir::Value v = value;
  while (is_view(v.node())) v = v->input(0);
  return v;
}

}  // namespace espalier::pass
