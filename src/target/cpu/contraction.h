#pragma once
// Reading a contraction body (or a bare contraction node) as a call of the matrix library: the root's shape, the layouts its
// operands and result are seen through, and the epilogue.
#include <variant>

#include "kernel/target_spec.h"
#include "target/cpu/onednn/conv.h"
#include "target/cpu/onednn/dot.h"

namespace espalier::target::cpu {

/// A body as a library call. Numbers are inputs of the body.
struct ContractionCall {
  std::variant<onednn::ConvSpec, onednn::DotSpec> spec;
  int a = -1, b = -1;         ///< operands of the root
  int bias = -1;              ///< f32 per channel, or -1
  int residual = -1;          ///< what Post::sum adds: the kernel puts it into the result first
  std::vector<int> channels;  ///< vectors of mul_channel and add_channel
  bool relu = false;
};

/// How `body` is called, or why it is not. Weights are taken as constant where `constant` says so.
std::variant<ContractionCall, kernel::Refusal> match_contraction(const ir::Graph& body,
                                                                 std::span<const char> constant);

/// The convolution a node describes, channels-last, without epilogue.
onednn::ConvSpec conv_spec(const ir::Node& node);

}  // namespace espalier::target::cpu
