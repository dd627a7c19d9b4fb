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

/// Open an ONNX file; `dims` are numbers for symbolic dims of inputs, by name. UserError names what is wrong: a name in `dims` that is
/// no input's, with those there are.
ModelFile load_model(const std::string& path, const std::map<std::string, std::vector<int64_t>>& dims = {});
/// Types of the model's arguments with every symbol bound to `batch`.
std::vector<ir::Type> model_types(const Model& model, int64_t batch);
/// Examples per run: `batch` where a dim of the model's inputs is symbolic, else the first input's first dim. UserError where `given`
/// (as --batch) is another number than that.
int64_t batch_of(const Model& model, int64_t batch, bool given);
/// `option`, or where it is empty the precision that the file was optimised for, or f32. UserError where the file keeps an unknown one.
std::string precision_of(const std::string& option, const std::map<std::string, std::string>& metadata);

}  // namespace espalier::tool
