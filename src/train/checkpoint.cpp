#include "train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/text.h"
#include "format/safetensors.h"

namespace espalier::train {

namespace {

constexpr const char *without_checksum = "espalier checkpoint 1", *with_checksum = "espalier checkpoint 2",
                     *checksum_key = "checksum";

uint64_t hash_bytes(const void* data, size_t bytes, uint64_t hash) {
  const auto* at = static_cast<const char*>(data);
  for (; bytes >= sizeof(uint64_t); at += sizeof(uint64_t), bytes -= sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, at, sizeof word);
    hash = hash_step(hash, word);
  }
  return hash_text({at, bytes}, hash);
}

/// Of all tensors by name, their types and elements, and of all facts but itself. One changed word changes it for certain: every
/// step of the hash maps hashes one to one.
std::string checksum(const format::TensorFile& file) {
  std::vector<const format::NamedTensor*> order;
  for (const format::NamedTensor& t : file.tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  uint64_t hash = hash_of_nothing;
  for (const auto& [key, value] : file.metadata)
    if (key != checksum_key) hash = hash_text(quote(key) + quote(value), hash);
  for (const format::NamedTensor* t : order) {
    hash = hash_text(quote(t->name) + t->value.type().text(), hash);
    hash = hash_bytes(t->value.data(), static_cast<size_t>(t->value.bytes()), hash);
  }
  return fmt::format("{:016x}", hash);
}

/// UserError where the file is no checkpoint, or is not what was written.
void check_file(const std::string& where, const format::TensorFile& file) {
  const auto fact = [&](const char* key) {
    const auto it = file.metadata.find(key);
    return it == file.metadata.end() ? std::string() : it->second;
  };
  const std::string kind = fact("format");
  if (kind == without_checksum) return;  // nothing to compare with
  if (kind != with_checksum)
    throw UserError({where, "is no checkpoint of ours", kind.empty() ? "no format" : kind,
                     fmt::format("{} (or {}, which has no checksum)", with_checksum, without_checksum)});
  const std::string written = fact(checksum_key), now = checksum(file);
  if (written != now)
    throw UserError({where, "is damaged: its content is not what was written",
                     "checksum " + (written.empty() ? "missing" : written), now});
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  format::TensorFile file;
  for (const NamedParameter& c : checkpoint.cells) file.tensors.push_back({c.name, c.parameter.storage()});
  file.metadata = checkpoint.facts;
  file.metadata["format"] = with_checksum;
  file.metadata[checksum_key] = checksum(file);
  format::save_safetensors(path, file);
}

Facts load_checkpoint(const std::filesystem::path& path, std::span<const NamedParameter> cells,
                      const std::function<void(const Facts&)>& accept) {
  const format::TensorFile file = format::load_safetensors(path);
  check_file("checkpoint " + path.string(), file);
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
    c.parameter.assign(Tensor(file.at(c.name)));
  }
  return file.metadata;
}

}  // namespace espalier::train
