#pragma once
// Packed weights, held once: kernels of several programs (other batch sizes, training and evaluation) that want the same
// constant in the same layout share one packed copy. The store is weak: the last kernel takes the bytes with it.
// Thread-safe; packing of one key runs once, while others who want it wait.
#include <functional>
#include <memory>
#include <string_view>

#include "ir/array.h"

namespace espalier::target {

/// 64-byte aligned bytes that some kernels share.
class Packed {
 public:
  explicit Packed(int64_t bytes);
  ~Packed();
  Packed(const Packed&) = delete;
  Packed& operator=(const Packed&) = delete;
  const void* data() const { return data_; }
  void* write() { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_;
  void* data_;
};

/// The packing of `constant` in the layout that `key` names (kernel, blocking, dtype: all that decides the bytes); made by
/// `fill(destination)` when no kernel alive holds it. Constants of equal
/// type and hash are one, wherever they lie.
std::shared_ptr<const Packed> packed(const ir::Array& constant, std::string_view key, int64_t bytes,
                                     const std::function<void(void*)>& fill);

/// How many packings are alive (for tests and reports).
int64_t live_packings();

}  // namespace espalier::target
