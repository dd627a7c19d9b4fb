#pragma once
// Convolutions of few channels with the batch across the lanes: activations lie as [N/lanes, H, W, C, lanes], so that every load,
// multiplication and store is a whole vector whatever the numbers of channels. Weights stay O, kernel..., C and are splatted.
// A tile of the result stays in registers while the kernel's window and the other channels are summed up (direct
// convolution); nothing is padded: positions outside are left out when the code is made, or by one test per row.
#include <array>
#include <cstdint>
#include <string>

#include "target/cpu/cpu_features.h"

namespace espalier::target::cpu {

struct BatchConv {
  enum class Kind : uint8_t { forward, data_grad, weight_grad };
  using Pair = std::array<int64_t, 2>;  ///< along H and W
  Kind kind = Kind::forward;
  int64_t batch_blocks = 1, channels = 1, features = 1;  ///< N/lanes, C of x, O of y
  Pair in{1, 1}, kernel{1, 1}, out{1, 1};                ///< extents of x, w, y
  Pair stride{1, 1}, pad_low{0, 0}, dilation{1, 1};
  bool bias = false, relu = false;  ///< of the forward convolution, in this order
  std::string text() const;         ///< complete: the key of compiled kernels
};

/// How the work is cut: fixed by shape and vector length, so that any number of threads gives the same bits.
struct BatchConvPlan {
  int64_t chunks = 1;          ///< calls of the kernel: 0 .. chunks-1, in any order, in parallel
  int64_t rows_per_chunk = 1;  ///< forward, data_grad: rows of the result (over all blocks of the batch)
  int64_t positions = 1,
          outputs = 1;  ///< forward, data_grad: the tile, along W and along the result's channels
  int64_t groups = 1;  ///< weight_grad: parts of the batch with a sum each, which the caller adds up in order
  int64_t channel_tile = 1, feature_tile = 1;  ///< weight_grad: the tile, besides all of the kernel's columns
  double cycles = 0;                           ///< an estimate over all chunks on one core
  int64_t code = 0;                            ///< multiply-adds that the code consists of
};

/// The plan, with `features`' registers.
BatchConvPlan plan_batch_conv(const BatchConv& conv, const CpuFeatures& features);

/// Widest kernel along W (weight_grad holds a sum for each of its columns in registers), and the most code that is worth making.
inline constexpr int64_t max_batch_conv_columns = 11, max_batch_conv_code = 1 << 14;

/// LLVM IR of `void kernel(ptr buffers, i64 chunk)`. Four buffers: x, w, bias, y; or dy, w,
/// (unused), dx; or x, dy, (unused), sums (one dw per group).
std::string emit_batch_conv(const BatchConv& conv, const BatchConvPlan& plan, const CpuFeatures& features);

}  // namespace espalier::target::cpu
