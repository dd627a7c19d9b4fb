#include "tool/model_file.h"

#include <algorithm>

#include "base/text.h"
#include "format/onnx.h"

namespace espalier::tool {

ModelFile load_model(const std::string& path, const std::map<std::string, std::vector<int64_t>>& dims) {
  if (!dims.empty()) {
    const std::vector<std::string> names = format::onnx_input_names(path);
    for (const auto& [name, numbers] : dims)
      if (std::find(names.begin(), names.end(), name) == names.end())
        throw UserError({"--dims", "names no input of the model", name, join(names, ", ")});
  }
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

int64_t batch_of(const Model& model, int64_t batch, bool given) {
  std::optional<int64_t> first;
  for (size_t i = 0; i < model.arguments(); ++i) {
    const ir::Dims& dims = model.argument_type(i).dims;
    for (const Dim& d : dims)
      if (!d.is_static()) return batch;
    if (!first && !dims.empty()) first = dims[0].value();
  }
  if (given && first && *first != batch)
    throw UserError({"--batch", "is another than the model's inputs have, whose dims are all numbers",
                     std::to_string(batch), std::to_string(*first)});
  return first.value_or(batch);
}

std::string precision_of(const std::string& option, const std::map<std::string, std::string>& metadata) {
  if (!option.empty()) return option;
  const auto kept = metadata.find("espalier.precision");
  if (kept == metadata.end()) return "f32";
  constexpr const char* known[] = {"f32", "bf16", "f16"};
  if (std::find(std::begin(known), std::end(known), kept->second) == std::end(known))
    throw UserError({"model, espalier.precision", "is unknown", quote(kept->second), "f32 bf16 f16"});
  return kept->second;
}

}  // namespace espalier::tool
