#include "op/table.h"

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace espalier::op {

using ir::OpDef;

namespace {

std::vector<const OpDef*> gather_table() {
  std::vector<const OpDef*> all{&ir::input_op, &ir::constant_op};
  for (const std::span<const OpDef* const> family : std::initializer_list<std::span<const OpDef* const>>{
           elementwise_ops(),
           movement_ops(),
           reduction_ops(),
           indexed_ops(),
           random_ops(),
           contraction_ops(),
           window_ops(),
           activation_ops(),
           norm_ops(),
           loss_ops(),
           control_ops(),
           marker_ops(),
       })
    all.insert(all.end(), family.begin(), family.end());
  return all;
}

struct Registry {
  std::mutex mutex;
  std::map<std::string, const OpDef*, std::less<>> by_name;
  Registry() {
    for (const OpDef* op : all_ops()) {
      const bool added = by_name.emplace(op->name, op).second;
      ESPALIER_CHECK(added, "two ops named " + std::string(op->name));
    }
  }
};

Registry& registry() {
  static Registry r;
  return r;
}

const bool finder_set = (ir::set_op_finder(find_op), true);

}  // namespace

std::span<const OpDef* const> all_ops() {
  static const std::vector<const OpDef*> table = gather_table();
  return table;
}

const OpDef* find_op(std::string_view name) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto it = r.by_name.find(name);
  return it == r.by_name.end() ? nullptr : it->second;
}

void register_op(const OpDef& op) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  if (!r.by_name.emplace(op.name, &op).second)
    throw UserError({"op " + std::string(op.name), "an op of this name exists", "", "a new name"});
}

}  // namespace espalier::op
