#pragma once
// A step of a GPU: the records it consists of, and nothing that runs here.
#include <memory>
#include <variant>

#include "kernel/lower.h"
#include "target/cuda/emit/kernel.h"
#include "target/interface.h"

namespace espalier::target::cuda {

/// What is in a step. Buffers of the records: the node's operands, its results, then one more for the scratch.
struct CallList {
  std::string_view name;  ///< of the entry of the target's list
  std::vector<CallRecord> calls;
  std::vector<KernelSource> sources;
  int64_t scratch_bytes = 0;
  std::vector<InPlace> in_place;
};
std::unique_ptr<Kernel> make_call_kernel(CallList list);

/// Generated kernels for a body of `inputs` and `outputs`, or why there are none. Operands with an alignment below 16 bytes are named in
/// `options`.
std::variant<CallList, kernel::Refusal> loop_calls(const ir::Graph& body, const MapOptions& options = {});
/// Of a body that is lowered, by lower_options.
std::variant<CallList, kernel::Refusal> loop_calls(const ir::Graph& body, const kernel::Lowered& lowered,
                                                   const MapOptions& options = {});

/// The one kernel of a batch of fusions (kernel/fused.h), or why it is none.
std::variant<CallList, kernel::Refusal> batch_calls(const ir::Graph& body, const MapOptions& options = {});

}  // namespace espalier::target::cuda
