// The one symbol of libespalier_cuda.so.
#include "base/export.h"
#include "target/cuda/driver/report.h"
#include "target/cuda/plugin.h"
#include "target/cuda/plugin_build.h"

namespace {

constexpr espalier::target::cuda::PluginInterface interface {
  .version = ESPALIER_VERSION, .build = espalier::target::cuda::plugin_build(),
  .report = [](espalier::target::cuda::Ask what) {
    return espalier::target::cuda::driver::make_report(espalier::target::cuda::driver::libraries(), what);
  },
};

}  // namespace

extern "C" ESPALIER_API const espalier::target::cuda::PluginInterface* espalier_plugin() {
  return &interface;
}
