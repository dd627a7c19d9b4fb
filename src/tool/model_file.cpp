#include "tool/model_file.h"

#include "format/onnx.h"

namespace espalier::tool {

ModelFile load_model(const std::string& path, const std::map<std::string, std::vector<int64_t>>& dims) {
  format::OnnxLoadOptions options;
  options.dims = dims;
  std::map<std::string, std::string> metadata = format::onnx_metadata(path);
  return {Model(format::load_onnx(path, options), metadata), std::move(metadata)};
}

std::vector<ir::Type> model_types(const Model& model, int64_t batch) {
  if (batch < 1) throw UserError({"--batch", "out of range", std::to_string(batch), ">= 1"});
  std::vector<ir::Type> types;
  for (size_t i = 0; i < model.arguments(); ++i) {
    ir::Type t = model.argument_type(i);
    for (Dim& d : t.dims)
      if (!d.is_static()) d = Dim(d.factor() * batch);
    types.push_back(std::move(t));
  }
  return types;
}

}  // namespace espalier::tool
