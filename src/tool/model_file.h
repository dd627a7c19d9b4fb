#pragma once
// Model files, as the commands open them.
#include <map>
#include <string>

#include "tensor/compile.h"

namespace espalier::tool {

struct ModelFile {
  Model model;
  std::map<std::string, std::string> metadata;  ///< "espalier.precision" and the like
};

/// Open an ONNX file. UserError names what is wrong with it.
ModelFile load_model(const std::string& path);
/// Types of the model's arguments with every symbol bound to `batch`.
std::vector<ir::Type> model_types(const Model& model, int64_t batch);

}  // namespace espalier::tool
