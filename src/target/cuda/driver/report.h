#pragma once
// What this machine has, put together from its libraries.
#include "target/cuda/driver/libraries.h"
#include "target/cuda/report.h"

namespace espalier::target::cuda::driver {

/// Loads every library and asks every GPU, live.
CudaReport make_report(Libraries& libraries);

}  // namespace espalier::target::cuda::driver
