#include "train/checkpoint.h"

#include <cstring>

#include "format/safetensors.h"

namespace espalier::train {

void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  format::TensorFile file;
  for (const NamedParameter& c : checkpoint.cells) file.tensors.push_back({c.name, c.parameter.storage()});
  file.metadata = checkpoint.facts;
  file.metadata["format"] = "espalier checkpoint 1";
  format::save_safetensors(path, file);
}

Facts load_checkpoint(const std::filesystem::path& path, std::span<const NamedParameter> cells,
                      const std::function<void(const Facts&)>& accept) {
  const format::TensorFile file = format::load_safetensors(path);
  const auto kind = file.metadata.find("format");
  if (kind == file.metadata.end() || kind->second != "espalier checkpoint 1")
    throw UserError({"checkpoint " + path.string(), "is no checkpoint of ours",
                     kind == file.metadata.end() ? "no format" : kind->second, "espalier checkpoint 1"});
  if (file.tensors.size() != cells.size())
    throw UserError({"checkpoint " + path.string(), "holds another number of tensors",
                     std::to_string(file.tensors.size()), std::to_string(cells.size())});
  for (const NamedParameter& c : cells) {
    const ir::Array* a = file.find(c.name);
    if (!a)
      throw UserError(
          {"checkpoint " + path.string(), "lacks tensor " + c.name, "", "a checkpoint of the same model"});
    if (a->type() != c.parameter.type())
      throw UserError({"checkpoint " + path.string() + ", tensor " + c.name, "is of another type",
                       a->type().text(), c.parameter.type().text()});
  }
  if (accept) accept(file.metadata);
  for (const NamedParameter& c : cells) {
    const ir::Array& a = file.at(c.name);
    std::memcpy(c.parameter.data(), a.data(), static_cast<size_t>(a.bytes()));
  }
  return file.metadata;
}

}  // namespace espalier::train
