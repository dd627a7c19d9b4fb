// The one symbol of libespalier_cuda.so.
#include "base/export.h"
#include "target/cuda/driver/nvrtc_compiler.h"
#include "target/cuda/driver/open_device.h"
#include "target/cuda/driver/report.h"
#include "target/cuda/plugin.h"
#include "target/cuda/plugin_build.h"

namespace {

constexpr espalier::target::cuda::PluginInterface interface {
  .version = ESPALIER_VERSION, .build = espalier::target::cuda::plugin_build(),
  .report =
      [](espalier::target::cuda::Ask what) {
        return espalier::target::cuda::driver::make_report(espalier::target::cuda::driver::libraries(), what);
      },
  .open =
      [](int index, const espalier::target::cuda::KernelTexts& texts) {
        return espalier::target::cuda::driver::open_device(espalier::target::cuda::driver::libraries(), index,
                                                           texts);
      },
  .make_images = [](const espalier::target::cuda::ImageRequest& request,
                    const espalier::target::cuda::KernelTexts& texts) {
    namespace driver = espalier::target::cuda::driver;
    return driver::write_images(
        request, {.texts = texts,
                  .make = [&](std::span<const espalier::target::KernelSource> sources, int arch, bool ptx) {
                    return driver::nvrtc_images(driver::libraries(), texts, sources, arch, ptx);
                  }});
  },
};

}  // namespace

extern "C" ESPALIER_API const espalier::target::cuda::PluginInterface* espalier_plugin() {
  return &interface;
}
