#pragma once
// NVIDIA's libraries, each loaded when it is first asked for and never before. Safe from any thread.
#include <mutex>
#include <optional>
#include <vector>

#include "target/cuda/driver/search_places.h"
#include "target/cuda/driver/tables/compute.h"
#include "target/cuda/driver/tables/cu.h"
#include "target/cuda/driver/tables/dnn.h"
#include "target/cuda/driver/tables/lt.h"
#include "target/cuda/driver/tables/nvml.h"
#include "target/cuda/report.h"

namespace espalier::target::cuda::driver {

/// As cuBLASLt, cuDNN and NCCL count: 91900 is 9.19.0.
std::string library_version(size_t version);

/// A library's functions, or why there are none.
template <class Api>
struct Loaded {
  std::optional<Api> api;
  LibraryReport report;
};

class Libraries {
 public:
  explicit Libraries(SearchPlaces places) : places_(std::move(places)) {}

  /// The driver, CUDA 12.0 or newer; cuInit() has not been called.
  const Loaded<CuApi>& driver();
  /// Its sensors, initialised.
  const Loaded<NvmlApi>& nvml();
  /// Those that compute must fit the driver where there is one: their CUDA may not be of a later major version.
  const Loaded<NvrtcApi>& nvrtc();
  const Loaded<LtApi>& lt();
  const Loaded<DnnApi>& dnn();
  const Loaded<NcclApi>& nccl();

  /// Every library, loaded or looked for.
  std::vector<LibraryReport> reports();

 private:
  template <class Api>
  struct Lazy {
    std::once_flag once;
    Loaded<Api> loaded;
  };
  std::string refuse_for_driver(int cuda_major);

  SearchPlaces places_;
  int driver_version_ = 0;  // as cuDriverGetVersion() counts; 0: no driver
  Lazy<CuApi> driver_;
  Lazy<NvmlApi> nvml_;
  Lazy<NvrtcApi> nvrtc_;
  Lazy<LtApi> lt_;
  Lazy<DnnApi> dnn_;
  Lazy<NcclApi> nccl_;
};

/// Those of this process.
Libraries& libraries();

}  // namespace espalier::target::cuda::driver
