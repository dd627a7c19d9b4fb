#pragma once
// Model files, as the commands open them.
#include <map>
#include <string>
#include <vector>

#include "tensor/compile.h"

namespace espalier::tool {

struct ModelFile {
  Model model;
  std::map<std::string, std::string> metadata;  ///< "espalier.precision" and the like
};

/// Open an ONNX file; `dims` are numbers for symbolic dims of inputs, by name. UserError names what is wrong.
ModelFile load_model(const std::string& path, const std::map<std::string, std::vector<int64_t>>& dims = {});
/// Types of the model's arguments with every symbol bound to `batch`.
std::vector<ir::Type> model_types(const Model& model, int64_t batch);

}  // namespace espalier::tool
