#pragma once
// A checkpoint: every cell that a training step reads or writes, and where the loop stood, in one safetensors file that is
// either whole or absent.
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tensor/parameter.h"

namespace espalier::train {

struct NamedParameter {
  std::string name;
  Parameter parameter;
};

struct Checkpoint {
  std::vector<NamedParameter> cells;
  std::map<std::string, std::string> facts;  ///< step, loader cursor, precision, ...
};

/// Write it as `path`, with a checksum of all its content. UserError when it cannot be written; the old file then stays.
ESPALIER_API void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);
using Facts = std::map<std::string, std::string>;
/// Fill the cells from `path` and return its facts. UserError names a cell that is missing, of another type, or not ours, and says
/// where the content is not what was written (files of format "espalier checkpoint 1" have no checksum and are read as they are);
/// `accept` sees the facts before any cell changes, and may throw. Then no cell was changed.
ESPALIER_API Facts load_checkpoint(const std::filesystem::path& path, std::span<const NamedParameter> cells,
                                   const std::function<void(const Facts&)>& accept = {});

}  // namespace espalier::train
