// Trains a small convolutional network on Fashion-MNIST (Debian: dataset-fashion-mnist) and scores the test pictures.
// usage: fashion_mnist [EPOCHS [PICTURES]]
#include <data/fashion_mnist.h>
#include <data/transforms.h>
#include <nn/losses.h>
#include <nn/models.h>
#include <train/callbacks.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>

using namespace espalier;

namespace {

struct Net {
  nn::ConvNorm conv1, conv2, conv3;
  nn::Linear head;
  explicit Net(nn::Init& init)
      : conv1(1, 32, 3, 1, true, init),
        conv2(32, 64, 3, 1, true, init),
        conv3(64, 128, 3, 1, true, init),
        head(7 * 7 * 128, 10, init) {}
  Tensor operator()(const Tensor& images, nn::Mode mode) const {
    Tensor y = nn::max_pool2d(conv1(images, mode), 2);  // 14 x 14
    y = nn::max_pool2d(conv2(y, mode), 2);              // 7 x 7
    return head(conv3(y, mode).flatten());
  }
  void each(const ParameterVisitor& visit, const std::string& prefix = "") {
    conv1.each(visit, join_path(prefix, "conv1"), join_path(prefix, "norm1"));
    conv2.each(visit, join_path(prefix, "conv2"), join_path(prefix, "norm2"));
    conv3.each(visit, join_path(prefix, "conv3"), join_path(prefix, "norm3"));
    head.each(visit, join_path(prefix, "head"));
  }
};

/// The fraction of test pictures whose class the network finds.
double test_accuracy(const Net& net) {
  data::DataLoader loader(std::make_shared<data::FashionMnist>(data::Part::test), {.batch_size = 500});
  Compiled score = compile(
      [&](const std::vector<Tensor>& batch) -> std::vector<Tensor> {
        return {nn::accuracy(net(batch[0], nn::Mode::eval), batch[1])};
      },
      {.freeze = true});
  double sum = 0;
  for (int64_t i = 0; i < loader.batches_per_epoch(); ++i) {
    const data::Batch batch = loader.next();
    sum += score({Tensor(batch.arrays[0]), Tensor(batch.arrays[1])})[0].item();
  }
  return sum / static_cast<double>(loader.batches_per_epoch());
}

void train_and_score(int64_t epochs, int64_t pictures) {
  const auto all = std::make_shared<data::FashionMnist>(data::Part::train);
  std::vector<int64_t> first(static_cast<size_t>(std::min(pictures, all->size())));
  std::iota(first.begin(), first.end(), 0);
  const auto some = std::make_shared<data::Subset>(all, first);
  const auto augmented = std::make_shared<data::Mapped>(some, [](data::Sample sample, data::Rng& rng) {
    if (rng.coin()) sample[0].value = data::flip_horizontal(sample[0].value);
    return sample;
  });
  data::DataLoader loader(augmented, {.batch_size = 128, .shuffle = true, .drop_last = true});

  nn::Init init(0);
  Net net(init);
  const std::vector<Parameter> parameters = parameters_of(net);
  nn::Adam adam(parameters);
  train::TrainerOptions options{.epochs = epochs, .value_names = {"loss", "accuracy"}};
  const int64_t steps = epochs * loader.batches_per_epoch();
  options.rate = nn::cosine_rate(2e-3, steps, steps / 10);
  train::Trainer trainer(
      [&](const std::vector<Tensor>& batch) -> std::vector<Tensor> {
        const Tensor logits = net(batch[0], nn::Mode::train);
        return {nn::cross_entropy(logits, batch[1]), nn::accuracy(logits, batch[1])};
      },
      parameters, adam, loader, options);
  trainer.add(std::make_shared<train::ProgressBar>(options.value_names, stdout));
  trainer.fit();
  std::printf("test accuracy %.4f\n", test_accuracy(net));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    train_and_score(argc > 1 ? std::atoll(argv[1]) : 4, argc > 2 ? std::atoll(argv[2]) : 60'000);
  } catch (const UserError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
