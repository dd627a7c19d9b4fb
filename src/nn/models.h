#pragma once
// Ready models, channels-last: the architectures of the papers they name, with torchvision's details.
#include <memory>
#include <vector>

#include "nn/layers.h"

namespace espalier::nn {

/// Linear layers with ReLU between: [..., sizes.front()] -> [..., sizes.back()].
struct ESPALIER_API Mlp {
  std::vector<Linear> layers;
  Mlp() = default;
  Mlp(const std::vector<int64_t>& sizes, Init& init);
  Tensor operator()(const Tensor& x) const;
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};

/// LeCun et al. 1998 with ReLU and max pooling: [N, 28, 28, 1] -> [N, 10].
struct ESPALIER_API LeNet {
  Conv2d conv1, conv2;
  Linear fc1, fc2, fc3;
  LeNet() = default;
  explicit LeNet(Init& init);
  Tensor operator()(const Tensor& x) const;
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};

/// Convolution without bias, batch norm, and maybe ReLU.
struct ESPALIER_API ConvNorm {
  Conv2d conv;
  BatchNorm norm;
  bool activate = true;
  ConvNorm() = default;
  ConvNorm(int64_t in, int64_t out, int64_t kernel, int64_t stride, bool activate, Init& init,
           bool he_init = true);
  Tensor operator()(const Tensor& x, Mode mode) const;
  void each(const ParameterVisitor& visit, const std::string& conv_path, const std::string& norm_path);
};

/// Residual block (He et al. 2016): basic (two 3x3) or bottleneck (1x1, 3x3 with the stride, 1x1).
struct ESPALIER_API ResidualBlock {
  std::vector<ConvNorm> body;
  std::optional<ConvNorm> shortcut;
  ResidualBlock() = default;
  ResidualBlock(int64_t in, int64_t width, int64_t stride, bool bottleneck, Init& init);
  int64_t out_channels() const;
  Tensor operator()(const Tensor& x, Mode mode) const;
  void each(const ParameterVisitor& visit, const std::string& prefix);
};

struct ResNetOptions {
  std::vector<int64_t> blocks{2, 2, 2, 2};  ///< per stage: 18 = {2,2,2,2}, 50 = {3,4,6,3} with bottlenecks
  bool bottleneck = false;
  int64_t in_channels = 3, classes = 1000, width = 64;
  bool small_input = false;  ///< CIFAR's stem: 3x3 stride 1, no pooling
};
/// ResNet v1.5 for images: [N, H, W, C] -> [N, classes].
struct ESPALIER_API ResNet {
  ResNetOptions options;
  ConvNorm stem;
  std::vector<std::vector<ResidualBlock>> stages;
  Linear head;
  ResNet() = default;
  ResNet(const ResNetOptions& options, Init& init);
  Tensor operator()(const Tensor& x, Mode mode) const;
  /// The momentum of every batch norm's running statistics.
  void set_norm_momentum(double momentum);
  /// Outputs of the stem (before pooling) and of each stage.
  std::vector<Tensor> features(const Tensor& x, Mode mode) const;
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};
ESPALIER_API ResNet resnet18(Init& init, int64_t classes = 1000, int64_t in_channels = 3);
ESPALIER_API ResNet resnet50(Init& init, int64_t classes = 1000, int64_t in_channels = 3);

/// U-Net (Ronneberger et al. 2015) whose encoder is ResNet-18, with skips after the stem and stages 1-3; five steps of a 2x2
/// transposed convolution, the skip, and two 3x3 convolutions. [N, H, W, C] -> logits [N, H, W, classes]; H and W
/// multiples of 32.
struct ESPALIER_API UNet {
  struct ESPALIER_API Up {
    ConvTranspose2d up;
    ConvNorm first, second;
    Up() = default;
    Up(int64_t in, int64_t skip, int64_t out, Init& init);
    Tensor operator()(const Tensor& x, const Tensor& skip, Mode mode) const;
    void each(const ParameterVisitor& visit, const std::string& prefix);
  };
  ResNet encoder;
  std::vector<Up> decoder;
  Conv2d head;
  UNet() = default;
  UNet(int64_t in_channels, int64_t classes, Init& init, int64_t width = 64);
  Tensor operator()(const Tensor& x, Mode mode) const;
  /// The momentum of every batch norm's running statistics.
  void set_norm_momentum(double momentum);
  void each(const ParameterVisitor& visit, const std::string& prefix = "");
};

}  // namespace espalier::nn
