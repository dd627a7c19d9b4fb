#pragma once
// Memory: zeroed bytes at a 64-byte boundary (huge pages where they help), freed with their owner.
#include <cstdint>
#include <utility>

namespace espalier::run {

class Memory {
 public:
  Memory() = default;
  /// std::bad_alloc when the machine has none left.
  explicit Memory(int64_t bytes);
  Memory(Memory&& o) noexcept : data_(std::exchange(o.data_, nullptr)), bytes_(std::exchange(o.bytes_, 0)) {}
  Memory& operator=(Memory&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(bytes_, o.bytes_);
    return *this;
  }
  ~Memory();

  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  char* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace espalier::run
