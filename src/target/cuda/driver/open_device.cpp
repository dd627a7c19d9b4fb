#include "target/cuda/driver/open_device.h"

#include <fmt/format.h>

#include "target/cuda/driver/cuda_device.h"
#include "target/cuda/driver/image_compiler.h"
#include "target/cuda/driver/nvrtc_compiler.h"

namespace espalier::target::cuda::driver {

void check_driver(int index, const std::string& refusal) {
  if (refusal.empty()) return;
  throw DeviceError({fmt::format("device cuda:{}", index), "there is no driver", refusal,
                     "a machine with a GPU; `espalier devices` shows what was found"},
                    false);
}

std::shared_ptr<Device> open_device(Libraries& libraries, int index, const KernelTexts& texts) {
  const Loaded<CuApi>& cu = libraries.driver();
  if (!cu.api) check_driver(index, cu.report.reason);
  const Loaded<NvmlApi>& nvml = libraries.nvml();
  int driver_version = 0;
  if (cu.api->DriverGetVersion(&driver_version) != cu_success) driver_version = 0;
  auto compiler = std::make_shared<ImageCompiler>(
      ImageCompiler::Parts{.texts = texts,
                           .folders = image_folders(),
                           .otherwise = std::make_shared<NvrtcCompiler>(libraries, texts, object_cache()),
                           .driver_version = driver_version});
  return std::make_shared<CudaDevice>(
      CudaDevice::Parts{.cu = *cu.api,
                        .nvml = nvml.api ? &*nvml.api : nullptr,
                        .lt = [&]() -> const LtApi& { return find_lt(libraries); },
                        .dnn = [&]() -> const DnnApi& { return find_dnn(libraries); },
                        .compiler = std::move(compiler),
                        .plans = &object_cache(),
                        .nvtx = &nvtx(),
                        .keeps = nullptr},
      index);
}

}  // namespace espalier::target::cuda::driver
