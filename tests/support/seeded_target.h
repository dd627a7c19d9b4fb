#pragma once
// A plan for a GPU in which every tanh is another kernel, with whatever is wrong with it: what verifiers and the simulator must find.
#include "op/elementwise.h"
#include "target/cuda/call_kernel.h"
#include "target/cuda/cuda_target.h"

namespace espalier::test {

class SeededTarget final : public target::Target {
 public:
  /// Records over the operand (0), the result (1) and `list.scratch_bytes` (2).
  explicit SeededTarget(target::cuda::CallList list) : list_(std::move(list)) {}
  const kernel::TargetSpec& spec() const override { return plan().spec(); }
  bool nests_bodies() const override { return plan().nests_bodies(); }
  target::Prepared prepare(const ir::Node& node, std::span<const ir::Array* const> constants,
                           const target::PrepareOptions& options) const override {
    if (&node.op() == &op::tanh_op) return {target::cuda::make_call_kernel(list_), {}};
    return plan().prepare(node, constants, options);
  }

 private:
  static const target::Target& plan() { return target::cuda::cuda_target(90); }
  target::cuda::CallList list_;
};

/// One launch of `text`, whose entry is called "seeded" and takes the operand and the result, in blocks of 64 threads.
inline target::cuda::CallList seeded_list(const std::string& text, std::vector<int64_t> alignment = {4, 4}) {
  target::cuda::CallList list{
      .name = "seeded", .calls = {}, .sources = {}, .scratch_bytes = 0, .in_place = {}};
  list.sources.push_back({"seeded", text, 64, false});
  list.calls.push_back({.work = target::KernelCall{"seeded", {1}, {64}, 0, std::move(alignment)},
                        .operands = {{0}, {1}},
                        .cost = {}});
  return list;
}

}  // namespace espalier::test
