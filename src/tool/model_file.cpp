#include "tool/model_file.h"
namespace espalier::tool {
ModelFile load_model(const std::string& path) { throw UserError({"model " + path, "cannot be read by this build", "", "--net NAME"}); }
std::vector<ir::Type> model_types(const Model&, int64_t) { return {}; }
}  // namespace espalier::tool
