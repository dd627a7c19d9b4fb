#pragma once
// Arrays in tests: comparison with a tolerance that fits the dtype, poisoned buffers between guard pages.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <span>
#include <string>

#include "support/tolerance.h"

namespace espalier::test {

/// Success, or which element is off the most.
inline testing::AssertionResult close(const ir::Array& got, const ir::Array& want, const Tolerance& t) {
  const std::string off = difference(got, want, t);
  return off.empty() ? testing::AssertionSuccess() : testing::AssertionFailure() << off;
}

inline void expect_close(const ir::Array& got, const ir::Array& want, const Tolerance& t,
                         const std::string& context = "") {
  EXPECT_TRUE(close(got, want, t)) << context;
}
inline void expect_close(const ir::Array& got, const ir::Array& want) {
  expect_close(got, want, tolerance_of(want.dtype()));
}

/// All of `got` against all of `want`.
inline void expect_close(std::span<const ir::Array> got, std::span<const ir::Array> want, double factor = 1,
                         const std::string& context = "") {
  ASSERT_EQ(got.size(), want.size()) << context;
  for (size_t i = 0; i < got.size(); ++i)
    expect_close(got[i], want[i], tolerance_of(want[i].dtype()) * factor,
                 context + " result " + std::to_string(i));
}

/// Memory that ends (but for 63 bytes of alignment) at a page that cannot be touched, with another before it; filled with
/// 0xFF, which is NaN in every float dtype. A kernel that reads or writes past its buffer dies here.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(size_t bytes) : bytes_(bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t body = ((bytes + 63) / 64 * 64 + page - 1) / page * page;
    mapped_ = body + 2 * page;
    base_ = static_cast<char*>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    if (body > 0 && mprotect(base_ + page, body, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    if (body > 0) std::memset(base_ + page, 0xFF, body);
    data_ = base_ + page + body - (bytes + 63) / 64 * 64;
  }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;
  ~GuardedBuffer() { munmap(base_, mapped_); }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  /// Are the alignment bytes after the data untouched?
  bool tail_is_clean() const {
    for (size_t i = bytes_; i % 64 != 0; ++i)
      if (static_cast<unsigned char>(data_[i]) != 0xFF) return false;
    return true;
  }

 private:
  size_t bytes_, mapped_ = 0;
  char *base_ = nullptr, *data_ = nullptr;
};

/// An array whose elements lie in a buffer of its own with guard pages: a copy of `a`.
inline ir::Array guarded(const ir::Array& a) {
  auto buffer = std::make_shared<GuardedBuffer>(static_cast<size_t>(a.bytes()));
  if (a.bytes() > 0) std::memcpy(buffer->data(), a.data(), static_cast<size_t>(a.bytes()));
  const void* data = buffer->data();
  return ir::Array::borrow(a.dtype(), a.dims(), data, std::move(buffer));
}

}  // namespace espalier::test
