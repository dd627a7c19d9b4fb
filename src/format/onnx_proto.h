#pragma once
// What ONNX's protobuf messages mean in our terms: dtypes, tensors, dims.
#include <filesystem>
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

/// The type of a graph input; dims without number or name become symbols "NAME_AXIS". UserError unless it is a tensor.
ir::Type type_of(const onnx::ValueInfoProto& info, const std::string& where);
onnx::ValueInfoProto info_of(const ir::Type& type, const std::string& name);

/// The double that a float attribute stands for: the one of its shortest decimal text (1e-5f is 1e-5).
double widen(float value);

/// A model message from bytes; UserError when they are none.
onnx::ModelProto parse_model(std::string_view bytes, const std::string& name);

}  // namespace espalier::format
