#pragma once
// Cache lines: where every buffer begins.
#include <cstdint>
#include <type_traits>

namespace espalier {

inline constexpr int64_t cache_line = 64;

/// `n` rounded up to a multiple of `multiple`.
template <class T>
constexpr T round_up(T n, std::type_identity_t<T> multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
/// `bytes` rounded up so that what follows begins at a cache line.
constexpr int64_t whole_lines(int64_t bytes) { return round_up(bytes, cache_line); }
/// Does `p` stand at the beginning of a cache line?
inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % cache_line == 0; }

}  // namespace espalier
