// Trains a U-Net with a ResNet-18 encoder on random pictures: binary cross-entropy, Adam, batches of 16.
// usage: unet_fake_data [STEPS [SIZE [BATCH [WIDTH]]]]
#include <nn/losses.h>
#include <nn/models.h>
#include <train/callbacks.h>

#include <cstdio>
#include <cstdlib>

using namespace espalier;

int main(int argc, char** argv) {
  const auto argument = [&](int i, int64_t otherwise) { return argc > i ? std::atoll(argv[i]) : otherwise; };
  const int64_t steps = argument(1, 20), size = argument(2, 128), batch_size = argument(3, 16),
                width = argument(4, 64);
  try {
    const auto pictures = std::make_shared<data::FakeData>(
        steps * batch_size, std::vector<data::FakeField>{{"image", {Dtype::f32, {size, size, 3}}, -1, 1},
                                                         {"mask", {Dtype::u8, {size, size, 1}}, 0, 1}});
    data::DataLoader loader(pictures, {.batch_size = batch_size});

    nn::Init init(0);
    nn::UNet net(3, 1, init, width);
    const std::vector<Parameter> parameters = parameters_of(net);
    nn::Adam adam(parameters, {.rate = 1e-3});
    train::Trainer trainer(
        [&](const std::vector<Tensor>& batch) -> std::vector<Tensor> {
          return {nn::bce_with_logits(net(batch[0], nn::Mode::train), batch[1].cast(Dtype::f32))};
        },
        parameters, adam, loader, {.epochs = 1});

    struct Print : train::Callback {
      void on_step(const train::Progress& p) override {
        std::printf("step %3lld  loss %.4f\n", static_cast<long long>(p.step), p.values[0]);
      }
    };
    trainer.add(std::make_shared<Print>());
    std::printf("memory of a step: %.0f MB\n", static_cast<double>(trainer.step().planned_bytes()) * 1e-6);
    trainer.fit();
  } catch (const UserError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
