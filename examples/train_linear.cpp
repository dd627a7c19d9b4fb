// Fits y = x w + 3 with one linear layer: mean squared error, SGD, 10 epochs of batches of 32.
#include <data/loader.h>
#include <nn/layers.h>
#include <nn/losses.h>
#include <nn/optim.h>

#include <cstdio>

using namespace espalier;

int main() {
  const Tensor x = Tensor::randn({1024, 10}, 1);
  const Tensor w = Tensor::of({1, -2, 3, -4, 5, -4, 3, -2, 1, 0}).reshape({10, 1});
  const Tensor y = matmul(x, w) + 3 + Tensor::randn({1024, 1}, 2) * 0.1;
  const auto samples =
      std::make_shared<data::ArrayDataset>(std::vector<data::NamedArray>{{"x", x.array()}, {"y", y.array()}});
  data::DataLoader loader(samples, {.batch_size = 32, .shuffle = true});

  nn::Init init(0);
  nn::Linear model(10, 1, init);
  nn::Sgd sgd(parameters_of(model), {.rate = 0.05});
  Compiled step = compile([&](const std::vector<Tensor>& batch) -> std::vector<Tensor> {
    const Tensor loss = nn::mse(model(batch[0]), batch[1]);
    sgd.minimise(loss);
    return {loss};
  });

  for (int epoch = 1; epoch <= 10; ++epoch) {
    double sum = 0;
    for (int64_t i = 0; i < loader.batches_per_epoch(); ++i) {
      const data::Batch batch = loader.next();
      sum += step({Tensor(batch.arrays[0]), Tensor(batch.arrays[1])})[0].item();
    }
    std::printf("epoch %2d  loss %.5f\n", epoch, sum / static_cast<double>(loader.batches_per_epoch()));
  }
  std::printf("bias %.3f (3 in the data)\n", model.bias.storage().at(0));
}
