#pragma once
// Products summed over shared axes, as loops: a dot or a convolution, in any of its directions, reads its operands at affine
// places where guards hold. Our own kernels for them, where no library's serves.
#include <string>
#include <variant>
#include <vector>

#include "kernel/loop_nest.h"
#include "target/cuda/call_kernel.h"

namespace espalier::target::cuda {

/// c[batch, rows, columns] = sum over folded of a[batch, rows, folded] * b[batch, columns, folded].
struct Contraction {
  /// How an operand lies: its element, where all guards hold; elsewhere it is 0 (or, of the result, not stored).
  struct Side {
    kernel::Affine address;
    std::vector<kernel::Guard> guards;
  };
  /// A variable that is computed from those of the batch.
  struct Derived {
    int var;
    std::string text;
  };
  std::vector<int64_t> extents;                   ///< of every variable
  std::vector<int> batch, rows, columns, folded;  ///< variables, outermost first
  std::vector<Derived> derived;
  Side a, b, c;
  ir::Dtype operand = ir::Dtype::f32, sum = ir::Dtype::f32, result = ir::Dtype::f32;
  int a_operand = 0, b_operand = 1;  ///< of the node

  int64_t points(const std::vector<int>& vars) const;
};

/// The loops of a dot, conv, conv_data_grad or conv_weight_grad; variables of one value are gone, neighbours that move as one are one.
std::variant<Contraction, kernel::Refusal> contraction_of(const ir::Node& node);

struct ContractionOptions {
  MapOptions map{};
  /// Below that, long sums are cut in parts that are added in order, and tiles are small.
  int64_t wanted_blocks = 128;
  /// Bytes of shared memory that a block of the device may have (Arch::shared_per_block).
  int64_t shared_limit = 48 << 10;
};

/// Kernels for the contraction alone: tiles through shared memory, or (few rows or columns for each of many batches, as in depthwise
/// convolutions) a thread for each result; a sum in parts has a second launch. Sums are f32 for f32, bf16 and f16; tiles of the last two
/// multiply on tensor cores.
std::variant<CallList, kernel::Refusal> contraction_calls(const ir::Node& node,
                                                          const ContractionOptions& options = {});

}  // namespace espalier::target::cuda
