#pragma once
// What ONNX's protobuf messages mean in our terms: dtypes, tensors, dims.
#include <filesystem>
#include <map>
#include <string>

#include <onnx/onnx_pb.h>

#include "ir/array.h"

namespace espalier::format {

inline constexpr std::string_view our_domain = "espalier";
inline constexpr int64_t written_opset = 17;

/// ONNX's number of a dtype.
int32_t onnx_dtype(ir::Dtype dtype);
/// The dtype of ONNX's number; UserError names `where` and the dtypes that are allowed.
ir::Dtype dtype_of_onnx(int32_t dtype, const std::string& where);

/// Elements of a tensor message; `folder` is where external data lies (empty: refused). UserError names `where`.
ir::Array array_of(const onnx::TensorProto& tensor, const std::filesystem::path& folder,
                   const std::string& where);
/// A tensor message with the elements as raw data.
onnx::TensorProto tensor_of(const ir::Array& array, const std::string& name);

/// The symbols of a model's dim_params. A name of letters, digits and '_' stays; others get '_' for what no symbol holds, numbered
/// where two would become one. Dims without a name, or of the name "?", are symbols "NAME_AXIS" of their own.
class DimSymbols {
 public:
  explicit DimSymbols(const onnx::GraphProto& graph);
  /// The dim of axis `axis` of an input, which has no number: "batch", "4*batch".
  ir::Dim of(const onnx::ValueInfoProto& info, int axis) const;

 private:
  std::map<std::string, std::string> symbols_;  ///< by dim_param, or by input and axis
};

/// The type of a graph input. UserError unless it is a tensor.
ir::Type type_of(const onnx::ValueInfoProto& info, const DimSymbols& symbols, const std::string& where);
onnx::ValueInfoProto info_of(const ir::Type& type, const std::string& name);

/// The double that a float attribute stands for: the one of its shortest decimal text (1e-5f is 1e-5).
double widen(float value);

/// A model message from bytes; UserError when they are none.
onnx::ModelProto parse_model(std::string_view bytes, const std::string& name);

}  // namespace espalier::format
