// A plugin that says it is of version FAKE_VERSION and of another build.
#include "target/cuda/plugin.h"

namespace {

constexpr espalier::target::cuda::PluginInterface interface {
  .version = FAKE_VERSION, .build = "0123456789abcdef", .report = nullptr, .open = nullptr,
  .make_images = nullptr
};

}  // namespace

extern "C" const espalier::target::cuda::PluginInterface* espalier_plugin() { return &interface; }
