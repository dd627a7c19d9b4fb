// Whole training steps of real networks: the CPU's kernels against the reference, bf16 against f32, any number of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "base/threads.h"
#include "nn/losses.h"
#include "nn/models.h"
#include "nn/optim.h"

namespace espalier {
namespace {

struct Result {
  std::vector<double> losses;
  std::vector<Array> cells;  ///< parameters and running statistics
  std::vector<std::string> names;
  std::string bits() const {
    std::string all(reinterpret_cast<const char*>(losses.data()), losses.size() * sizeof(double));
    for (const Array& a : cells)
      all.append(static_cast<const char*>(a.data()), static_cast<size_t>(a.bytes()));
    return all;
  }
};

/// Three steps of SGD with momentum on one random batch.
template <class Net, class Loss>
Result train(Net net, const Loss& loss, const std::vector<Tensor>& batch, const CompileOptions& options) {
  const std::vector<Parameter> cells = parameters_of(net);
  nn::Sgd sgd(cells, {.rate = 0.02, .momentum = 0.9});
  Compiled step = compile(
      [&](const std::vector<Tensor>& in) -> std::vector<Tensor> {
        const Tensor value = loss(net(in[0], nn::Mode::train), in[1]);
        sgd.minimise(value);
        return {value};
      },
      options);
  Result r;
  for (int i = 0; i < 3; ++i) r.losses.push_back(step(batch)[0].item());
  for (const Parameter& p : cells) {
    Array copy(p.type().dtype, p.dims());
    std::memcpy(copy.write(), p.write(), static_cast<size_t>(copy.bytes()));
    r.cells.push_back(std::move(copy));
    r.names.push_back(p.name());
  }
  return r;
}

/// The deepest pictures are 2 x 2: 8 values per channel. (Batch norm over two values is a sign function, for which the last
/// bits of its input decide.)
Result train_unet(const CompileOptions& options) {
  nn::Init init(1);
  const std::vector<Tensor> batch{
      Tensor::randn({2, 64, 64, 3}, 2),
      (Tensor::rand({2, 64, 64, 1}, 3) > Tensor::full({2, 64, 64, 1}, 0.5)).cast(Dtype::f32)};
  return train(nn::UNet(3, 1, init, 16), nn::bce_with_logits, batch, options);
}

Result train_resnet_of_width(int64_t width, const CompileOptions& options) {
  nn::Init init(4);
  const nn::ResNetOptions shape{.blocks = {1, 1, 1}, .classes = 10, .width = width, .small_input = true};
  const std::vector<Tensor> batch{Tensor::randn({4, 16, 16, 3}, 5), Tensor::of({3, 1, 4, 9}, Dtype::i32)};
  return train(nn::ResNet(shape, init), nn::cross_entropy, batch, options);
}
Result train_resnet(const CompileOptions& options) { return train_resnet_of_width(16, options); }

/// Losses within `loss` of the reference's, relatively; cells within `cell` of the largest value of the reference's, or of 1.
void expect_close(const Result& got, const Result& want, double loss, double cell) {
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(std::isfinite(want.losses[i]));
    EXPECT_NEAR(got.losses[i], want.losses[i], loss * std::fabs(want.losses[i])) << "step " << i;
  }
  for (size_t c = 0; c < want.cells.size(); ++c) {
    double largest = 1, off = 0;
    for (int64_t i = 0; i < want.cells[c].size(); ++i) {
      largest = std::max(largest, std::fabs(want.cells[c].at(i)));
      off = std::max(off, std::fabs(got.cells[c].at(i) - want.cells[c].at(i)));
    }
    EXPECT_LE(off, cell * largest) << want.names[c];
  }
}

TEST(Training, ResNetOnTheCpuIsTheReference) {
  expect_close(train_resnet({.device = Device::cpu()}), train_resnet({.device = Device::named("reference")}),
               1e-4, 1e-3);
}

TEST(Training, UNetOnTheCpuIsTheReference) {
  expect_close(train_unet({.device = Device::cpu()}), train_unet({.device = Device::named("reference")}),
               1e-4, 1e-3);
}

TEST(Training, Bf16IsCloseToF32) {
  for (const auto& run : {train_unet, train_resnet}) {
    const Result f32 = run({}), bf16 = run({.precision = "bf16"});
    for (size_t i = 0; i < 3; ++i)
      EXPECT_NEAR(bf16.losses[i], f32.losses[i], 0.03 * f32.losses[i]) << "step " << i;
    EXPECT_EQ(bf16.cells[0].dtype(), Dtype::f32) << "master weights";
    EXPECT_NE(bf16.bits(), f32.bits());
  }
}

void expect_same_bits(const std::vector<int>& counts, const std::function<Result()>& run) {
  const int before = pool_threads();
  std::string first;
  for (const int threads : counts) {
    set_threads(threads);
    const std::string bits = run().bits();
    if (first.empty()) first = bits;
    EXPECT_TRUE(bits == first) << threads << " threads";
  }
  set_threads(before);
}

TEST(Training, SameBitsOnAnyNumberOfTeams) {
  for (const char* precision : {"f32", "bf16"})
    for (const auto& run : {train_unet, train_resnet}) {
      SCOPED_TRACE(precision);
      expect_same_bits({1, 2, 3}, [&] { return run({.precision = precision}); });
    }
}

/// Small enough for the thread sanitizer, whose build has the reference's convolutions.
TEST(Training, SameBitsOnTwoThreadsInASmallResNet) {
  expect_same_bits({1, 2, 3}, [] { return train_resnet_of_width(4, {}); });
}

}  // namespace
}  // namespace espalier
