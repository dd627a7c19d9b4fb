#pragma once
// What plans know of a GPU: constants by compute capability, never read off a device, so that a plan can be made anywhere and is the
// same on every device of a kind.
#include <cstdint>
#include <span>

namespace espalier::target::cuda {

/// Source: NVIDIA's CUDA C++ Programming Guide 13.0, "Technical Specifications per Compute Capability".
struct Arch {
  int capability;        ///< 10 major + minor
  int shared_per_block;  ///< bytes a block may have after the opt-in call; 48 KiB without it
  int shared_per_sm;     ///< bytes
  int threads_per_sm;    ///< that may be resident
  bool operator==(const Arch&) const = default;
};

inline constexpr int shared_without_opt_in = 48 * 1024;

/// Every architecture kernels are checked for.
inline constexpr Arch arches[] = {{80, 163 * 1024, 164 * 1024, 2048},
                                  {89, 99 * 1024, 100 * 1024, 1536},
                                  {90, 227 * 1024, 228 * 1024, 2048},
                                  {100, 227 * 1024, 228 * 1024, 2048},
                                  {120, 99 * 1024, 100 * 1024, 1536}};

/// The newest of `arches` that code for `capability` may be planned as; UserError below 80.
const Arch& arch_of(int capability);

}  // namespace espalier::target::cuda
