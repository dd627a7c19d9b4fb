#pragma once
// A lowered body as kernels: mapped, printed, with what a launch needs and what it moves.
#include <variant>
#include <vector>

#include "kernel/lower.h"
#include "target/call.h"
#include "target/cuda/map/mapping.h"

namespace espalier::target::cuda {

struct Emitted {
  KernelSource source;
  KernelCall call;
  std::vector<int> operands;  ///< buffers of the lowered body, in the order of the entry's parameters
  std::vector<std::pair<int, int>>
      apart;                 ///< (output, input) whose memory may not be the same, though the nest allows it
  int64_t shared_bytes = 0;  ///< of a block
  int64_t bytes = 0;         ///< of memory that must move: each element that is touched, once
  int64_t operations = 0;    ///< scalar operations of all points
};

/// What lower() should aim for: thousands of warps, the same on every GPU, so that plans and sums are. A block folds a row of some
/// thousand elements by itself, so a few rows are normalised in one launch.
inline constexpr kernel::LowerOptions lower_options{.long_reduction = 32768,
                                                    .enough_units = 256,
                                                    .results_together = 64,
                                                    .wanted_units = 128,
                                                    .part_elements = 4096,
                                                    .cuts_axes_together = true,
                                                    .max_inner = 65536,
                                                    .few_units = 128,
                                                    .few_inner = 1 << 19,
                                                    .adds_parts_again = true,
                                                    .max_contraction = 1 << 16};

/// The kernels of `lowered`, to be launched one after the other; nests without a point have none. `options.alignment` is by the buffers
/// of `lowered`. Refused: more operands than a launch has parameters for.
std::variant<std::vector<Emitted>, kernel::Refusal> emit(const kernel::Lowered& lowered,
                                                         const MapOptions& options = {});

/// Nests of points alone (no folds, no loops of their own), each with the kernel's operand that each of its buffers is, as one kernel:
/// its blocks are numbered over all of them. `options.alignment` is by the kernel's operands. Refused: another nest, more operands than
/// a launch has parameters for.
struct BatchMember {
  kernel::LoopNest nest;
  std::vector<int> buffers;
};
std::variant<Emitted, kernel::Refusal> emit_batch(std::span<const BatchMember> members,
                                                  const MapOptions& options = {});

}  // namespace espalier::target::cuda
