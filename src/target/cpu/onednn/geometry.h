#pragma once
// A ConvSpec in the library's terms. Included only by the .cpp files of this folder.
#include "target/cpu/onednn/conv.h"
#include "target/cpu/onednn/support.h"

namespace espalier::target::cpu::onednn {

/// The activation [batch, channels, spatial...] as it lies in memory.
dnnl::memory::desc activation(Layout layout, int64_t block, ir::Dtype dtype, int64_t batch, int64_t channels,
                              const std::vector<int64_t>& spatial);

/// What the three convolutions have in common.
struct Geometry {
  dnnl::memory::dims stride, dilation, pad_low, pad_high;
  dnnl::memory::dims weight_dims;    ///< [groups,] O, C, kernel...
  dnnl::memory::desc weights_given;  ///< w of the spec: O, kernel..., C in memory
  dnnl::algorithm algorithm = dnnl::algorithm::convolution_direct;
};
Geometry geometry(const ConvSpec& spec);

/// Why no primitive can serve `spec`, or an empty text.
std::string refuse(const ConvSpec& spec);

/// The team that Winograd's forward and data-gradient primitives are blocked for: their bits depend on it, so it is the same
/// everywhere, whatever the number of threads that run them.
inline constexpr int winograd_team = 2;

PreparedCall prepare_weight_grad(const ConvSpec& spec);

}  // namespace espalier::target::cpu::onednn
