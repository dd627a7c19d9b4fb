#pragma once
// safetensors files: 8 bytes of header length, a JSON header, the tensors' bytes. Loaded tensors are maps of
// the file: nothing is copied, pages come in when they are read. Safe from any thread.
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/array.h"

namespace espalier::format {

struct NamedTensor {
  std::string name;
  ir::Array value;
};

/// What a safetensors file holds: tensors with unique names, and free text by key.
struct TensorFile {
  std::vector<NamedTensor> tensors;  ///< in the order of their bytes in the file
  std::map<std::string, std::string> metadata;

  /// The tensor of that name, or nullptr.
  ESPALIER_API const ir::Array* find(std::string_view name) const;
  /// The tensor of that name; UserError lists the names otherwise.
  ESPALIER_API const ir::Array& at(std::string_view name) const;
};

/// Map and check a file: header length, JSON, names, dtypes (F64 F32 BF16 F16 I64 I32 I8 U8 BOOL), shapes,
/// and data that is covered by the tensors exactly once. The arrays keep the map alive; the file must not be
/// cut while they live (replace it by renaming, as save_safetensors does). UserError names file, tensor,
/// field, what came and what is allowed.
ESPALIER_API TensorFile load_safetensors(const std::filesystem::path& path);

/// The same from bytes that `keep` owns; `name` is what errors call them.
ESPALIER_API TensorFile parse_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> keep,
                                          const std::string& name);

/// Write a file, atomically: the widest dtypes first and then by name, so that every tensor is aligned and
/// equal contents give equal bytes. UserError for a name that stands twice, is "__metadata__" or is no UTF-8,
/// and when it cannot be written.
ESPALIER_API void save_safetensors(const std::filesystem::path& path, const TensorFile& file);

}  // namespace espalier::format
