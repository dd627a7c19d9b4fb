#pragma once
// A small loader of relocatable x86-64 ELF objects, as LLVM emits them for one kernel: code and read-only data, no dynamic
// linking. Objects may come from disk, so every offset is checked. Memory is written first and made executable after (W^X).
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace espalier::target::cpu {

/// A function that objects may call.
struct ExternalSymbol {
  std::string_view name;
  const void* address;
};

class LoadedObject {
 public:
  /// Map, relocate and seal `object`. UserError says what is wrong: truncated or overlapping parts, another machine, writable data,
  /// an unknown relocation, one out of range, or a symbol that is not among `externals`.
  static LoadedObject load(std::span<const std::byte> object, std::span<const ExternalSymbol> externals);

  LoadedObject(LoadedObject&& other) noexcept;
  LoadedObject& operator=(LoadedObject&& other) noexcept;
  ~LoadedObject();

  /// The address of a global function of the object; nullptr when it has none of that name.
  const void* symbol(std::string_view name) const;
  size_t mapped_bytes() const { return size_; }

 private:
  LoadedObject() = default;
  friend class ObjectReader;
  std::byte* base_ = nullptr;
  size_t size_ = 0;
  std::map<std::string, const void*, std::less<>> symbols_;
};

}  // namespace espalier::target::cpu
