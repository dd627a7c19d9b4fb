#pragma once
// Reading a contraction body (or a bare contraction node) for a target: the root, how its operands lie in memory, and what happens to
// its result, step by step. Whether a library has a call for all that is the target's business.
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "kernel/blocks.h"

namespace espalier::kernel {

/// An operand of the root. The root sees it channels-last and in the dtype it computes in, whatever lies in memory.
struct RootOperand {
  int input = -1;  ///< of the body
  ActLayout layout = ActLayout::channels_last;
  int64_t block = 16;  ///< of a layout in blocks
  ir::Dtype dtype =
      ir::Dtype::f32;  ///< in memory; bf16 for the root where it is f32 here and the root computes in bf16
};

/// One op on the result.
struct EpilogueStep {
  enum class Other : uint8_t {
    none,      ///< `op` has one operand, the result so far
    channels,  ///< the second is a vector along the channels: the result's last axis before any layout in blocks
    tensor,  ///< the second is as large as the result, of the step's own type
    number,  ///< the second is a constant, the same for all elements
    bits,  ///< of select: the second is a mask (kernel/bit_mask.h); the result stays where it has a bit, and is 0 elsewhere
  };
  const ir::OpDef* op =
      nullptr;  ///< cast, add, mul, select, an op of one operand (gelu where its expansion stands), or
                ///< reshape, which stands for a layout in blocks
  Other other = Other::none;
  int input = -1;          ///< of the body: the second operand where it is one
  double number = 0;       ///< the second operand where it is a constant
  bool tanh_form = false;  ///< of gelu
  Blocks blocks;           ///< of a reshape: the layout the result has from here on
  ir::Value value;         ///< what comes out
};

/// A result beside the first, which is what comes out of the last step.
struct ExtraResult {
  enum class Kind : uint8_t {
    before_step,  ///< what goes into step number `step`
    sum_of_a,     ///< of a dot: operand a summed over the contracted axes
    sum_of_b,
    positive_bits,  ///< where the first result is above 0, as pack_bits() has it (kernel/bit_mask.h)
  };
  Kind kind = Kind::before_step;
  size_t step = 0;
};

struct ContractionBody {
  const ir::Node* root = nullptr;  ///< dot, conv, conv_data_grad or conv_weight_grad
  RootOperand a, b;
  std::vector<EpilogueStep> steps;
  std::vector<ExtraResult> extras;  ///< the results but the first, in order
};

/// How `body` is put together, or what in it no target has a call for; more than one result only where `several`. The body must outlive the
/// answer.
std::variant<ContractionBody, std::string> read_contraction(const ir::Graph& body, bool several = false);

/// A dot as a batch of matrix products. Strides are in elements, of operands that lie row-major.
struct DotShape {
  int64_t batch = 1, m = 1, n = 1, k = 1;
  int64_t a_strides[3] = {};  ///< of batch, m, k
  int64_t b_strides[3] = {};  ///< of batch, k, n
};
/// The dot that `root` is, or why it is none: axes that are walked as one must lie one inside the other. The result is [batch, m, n],
/// row-major. Extents of 1 have stride 1 where the other axis of the matrix has not, else the stride that follows from it.
std::variant<DotShape, std::string> dot_shape(const ir::Node& root);

}  // namespace espalier::kernel
