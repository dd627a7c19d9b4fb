#pragma once
// Ops of ours in terms of those that ONNX has, and back: the same bits from other nodes.
#include "ir/graph.h"

namespace espalier::format {

/// The same graph in ops that ONNX has where there are such: composites without a row are expanded.
ir::Graph in_onnx_terms(const ir::Graph& graph);
/// GELU, SiLU and group norm where a graph holds exactly what in_onnx_terms() makes of them.
ir::Graph from_onnx_terms(const ir::Graph& graph);

}  // namespace espalier::format
