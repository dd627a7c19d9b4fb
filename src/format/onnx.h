#pragma once
// Models as ONNX files (opset 17 written; opsets up to 28 and IR versions up to 14 read, each op from where it broadcasts
// as today). Safe from any thread.
//
// Saving is exact: a saved graph loads as a graph with bit-identical results. Ops that ONNX has are written as standard
// nodes, and so are those that several standard nodes say with the same bits (GELU, SiLU and group norm, which loading
// finds again; squares, embeddings and others, which load as these nodes); all others are nodes of the domain "espalier" whose attributes are their text. Graph inputs and outputs keep
// their dims (channels-last images stay so); between them convolutions, pooling, resizing and normalisation stand in
// ONNX's channels-first form with one Transpose where a chain begins and ends, which loading takes away again.
// Weights of convolutions are stored as ONNX wants them (OIHW).
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace espalier::format {

struct OnnxSaveOptions {
  std::map<std::string, std::string> metadata =
      {};  ///< of the model; keys that begin with "espalier." are ours
  /// More bytes of weights than this go beside the model, as FILE.safetensors that the model names as external data.
  int64_t weights_beside_above = 1'500'000'000;
};

struct OnnxLoadOptions {
  /// Numbers for symbolic dims ("batch"); symbols that are not named stay symbols.
  std::map<std::string, int64_t> symbols = {};
  /// Dims of inputs by name: they bind the symbols that stand there.
  std::map<std::string, std::vector<int64_t>> dims = {};
  /// Inputs whose values are known now (shapes, axes, sizes): they become constants and are no inputs of the graph.
  std::map<std::string, ir::Array> constants = {};
};

/// Write a graph of the tensor level, atomically. Constants that have a name, of their own or in graph.info, become
/// initializers of that name. UserError when it cannot be written.
ESPALIER_API void save_onnx(const std::filesystem::path& path, const ir::Graph& graph,
                            const OnnxSaveOptions& options = {});

/// The bytes of that file, weights inside.
ESPALIER_API std::string onnx_bytes(const ir::Graph& graph,
                                    const std::map<std::string, std::string>& metadata = {});

/// The graph in an ONNX file, ours or another tool's. Initializers become named constants; symbolic dims become symbols. UserError names file, node, op, opset and what is allowed, for malformed files and for what is not supported.
ESPALIER_API ir::Graph load_onnx(const std::filesystem::path& path, const OnnxLoadOptions& options = {});

/// The same from bytes in memory; `name` is what errors call them. External data is refused.
ESPALIER_API ir::Graph parse_onnx(std::string_view bytes, const std::string& name,
                                  const OnnxLoadOptions& options = {});

/// The names of a file's inputs, without those that have initializers.
ESPALIER_API std::vector<std::string> onnx_input_names(const std::filesystem::path& path);

/// The metadata of an ONNX file (metadata_props), keys that begin with "espalier." included.
ESPALIER_API std::map<std::string, std::string> onnx_metadata(const std::filesystem::path& path);
/// Set these keys of an ONNX file's metadata (an empty value removes the key); the rest of the file stays as it is.
ESPALIER_API void set_onnx_metadata(const std::filesystem::path& path,
                                    const std::map<std::string, std::string>& metadata);

/// The array in a file that holds one TensorProto, as ONNX test data does.
ESPALIER_API ir::Array load_onnx_tensor(const std::filesystem::path& path);

}  // namespace espalier::format
