#pragma once
// Layers: small structs that hold parameters and build graph. Images are channels-last: [N, H, W, C]. Calling a layer on
// other ranks, channels or dtypes is a UserError, as is making one of sizes below 1 (padding: 0) or channels that groups do
// not divide. each() visits its parameters by their paths.
#include <optional>

#include "nn/init.h"
#include "tensor/compile.h"

namespace espalier::nn {

/// Training mode uses batch statistics and dropout; evaluation does not.
enum class Mode : uint8_t { eval, train };

/// y = x W + b over the last axis. weight [in, out], bias [out].
struct ESPALIER_API Linear {
  Parameter weight, bias;
  Linear() = default;
  /// Uniform in +-1/sqrt(in), as PyTorch's default.
  Linear(int64_t in, int64_t out, Init& init, bool with_bias = true);
  Tensor operator()(const Tensor& x) const;
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};

struct ConvOptions {
  int64_t stride = 1, padding = 0, dilation = 1, groups = 1;
  bool bias = true;
};

/// Convolution over `Axes` spatial axes, all with the same kernel size and options. x [N, spatial..., in] -> [N, spatial'..., out] with
/// n' = (n + 2 padding - dilation (kernel - 1) - 1) / stride + 1, rounded down; weight [out, kernel..., in/groups], bias [out].
template <int Axes>
struct ESPALIER_API Conv {
  Parameter weight, bias;
  ConvOptions options;
  Conv() = default;
  /// Uniform in +-1/sqrt(fan_in), as PyTorch's default.
  Conv(int64_t in, int64_t out, int64_t kernel, ConvOptions options, Init& init);
  Tensor operator()(const Tensor& x) const;
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};
extern template struct Conv<1>;
extern template struct Conv<2>;
extern template struct Conv<3>;
using Conv1d = Conv<1>;  ///< [N, L, C]
using Conv2d = Conv<2>;  ///< [N, H, W, C]
using Conv3d = Conv<3>;  ///< [N, D, H, W, C]

/// Transposed convolution: the gradient of a Conv with respect to its input. x [N, spatial..., in] -> [N, spatial'..., out] with
/// n' = (n - 1) stride - 2 padding + dilation (kernel - 1) + 1; weight [in, kernel..., out/groups], bias [out]. The spatial dims of x must
/// be numbers.
template <int Axes>
struct ESPALIER_API ConvTranspose {
  Parameter weight, bias;
  ConvOptions options;
  ConvTranspose() = default;
  /// Uniform in +-1/sqrt(out/groups kernel^Axes), as PyTorch's default.
  ConvTranspose(int64_t in, int64_t out, int64_t kernel, ConvOptions options, Init& init);
  Tensor operator()(const Tensor& x) const;
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};
extern template struct ConvTranspose<1>;
extern template struct ConvTranspose<2>;
extern template struct ConvTranspose<3>;
using ConvTranspose1d = ConvTranspose<1>;
using ConvTranspose2d = ConvTranspose<2>;
using ConvTranspose3d = ConvTranspose<3>;

/// Batch normalisation over all axes but the last (Ioffe and Szegedy 2015). Training updates running statistics:
/// r = (1 - momentum) r + momentum * batch, with the unbiased batch variance. x [..., channels]; parameters [channels], scale 1
/// and bias 0 at first. UserError in training where a channel has one value.
struct ESPALIER_API BatchNorm {
  Parameter weight, bias, running_mean, running_var;
  double momentum = 0.1, eps = 1e-5;
  BatchNorm() = default;
  explicit BatchNorm(int64_t channels, double momentum = 0.1, double eps = 1e-5);
  Tensor operator()(const Tensor& x, Mode mode) const;
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};

/// Layer normalisation over the last axis (Ba et al. 2016). x [..., features]; weight and bias [features].
struct ESPALIER_API LayerNorm {
  Parameter weight, bias;
  double eps = 1e-5;
  LayerNorm() = default;
  explicit LayerNorm(int64_t features, double eps = 1e-5);
  Tensor operator()(const Tensor& x) const;
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};

/// Group normalisation (Wu and He 2018): x [N, ..., channels], over the axes between and the channels of each group; weight and
/// bias [channels]. UserError where `groups` does not divide the channels.
struct ESPALIER_API GroupNorm {
  Parameter weight, bias;
  int64_t groups = 1;
  double eps = 1e-5;
  GroupNorm() = default;
  GroupNorm(int64_t groups, int64_t channels, double eps = 1e-5);
  Tensor operator()(const Tensor& x) const;
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};

/// Rows of a table: ids [...] (i32 or i64) -> [..., features]; weight [count, features].
struct ESPALIER_API Embedding {
  Parameter weight;
  Embedding() = default;
  /// Standard normal.
  Embedding(int64_t count, int64_t features, Init& init);
  Tensor operator()(const Tensor& ids) const;
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};

/// Zeroes elements with probability `rate` in training (Srivastava et al. 2014), scaling the rest by 1/(1-rate): others at each
/// call and in each run of a compiled step.
struct ESPALIER_API Dropout {
  double rate = 0;
  Generator generator;
  Dropout() = default;
  /// 0 <= rate < 1. Layers of one Init draw apart, and the same numbers in each run of the same program.
  Dropout(double rate, Init& init);
  Dropout(double rate, Generator generator);
  Tensor operator()(const Tensor& x, Mode mode) const;
  /// The generator's cells: a checkpoint needs them to go on to the same bits.
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};

/// max(x, 0).
ESPALIER_API Tensor relu(const Tensor& x);
/// x times the normal distribution function of x, exactly or in the tanh form (Hendrycks and Gimpel 2016).
ESPALIER_API Tensor gelu(const Tensor& x, bool tanh_form = false);
/// x sigmoid(x).
ESPALIER_API Tensor silu(const Tensor& x);
/// 1 / (1 + exp(-x)).
ESPALIER_API Tensor sigmoid(const Tensor& x);
/// The logarithm of softmax along `axis`, without overflow.
ESPALIER_API Tensor log_softmax(const Tensor& x, int64_t axis = -1);
/// Windows of `kernel` x `kernel`; stride 0 means the kernel's size. [N, H, W, C] -> [N, H', W', C] with
/// H' = (H + 2 padding - kernel) / stride + 1, rounded down; padding is less than the kernel. Averages leave padding out.
ESPALIER_API Tensor max_pool2d(const Tensor& x, int64_t kernel, int64_t stride = 0, int64_t padding = 0);
ESPALIER_API Tensor avg_pool2d(const Tensor& x, int64_t kernel, int64_t stride = 0, int64_t padding = 0);
/// Mean over all spatial axes: [N, ..., C] -> [N, C].
ESPALIER_API Tensor global_avg_pool(const Tensor& x);
/// [N, H, W, C] -> [N, height, width, C], bilinear or nearest; pixel centres lie at half integers.
ESPALIER_API Tensor resize2d(const Tensor& x, int64_t height, int64_t width, bool linear = true);

}  // namespace espalier::nn
