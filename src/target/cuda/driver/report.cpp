#include "target/cuda/driver/report.h"

#include "target/cuda/driver/device_list.h"

namespace espalier::target::cuda::driver {

CudaReport make_report(Libraries& libraries, Ask what) {
  CudaReport out;
  if (what == Ask::everything) out.libraries = libraries.reports();
  const Loaded<CuApi>& cu = libraries.driver();
  if (!cu.api) {
    out.problem = "no driver: " + cu.report.reason;
    return out;
  }
  const Loaded<NvmlApi>& nvml = libraries.nvml();
  DeviceList list = list_devices(*cu.api, nvml.api ? &*nvml.api : nullptr);
  out.problem = std::move(list.problem);
  out.devices = std::move(list.devices);
  char release[96] = "";
  if (nvml.api && nvml.api->SystemGetDriverVersion &&
      nvml.api->SystemGetDriverVersion(release, sizeof release) == nvml_success)
    out.driver_release = release;
  return out;
}

}  // namespace espalier::target::cuda::driver
