#pragma once
// What this machine has, put together from its libraries.
#include "target/cuda/driver/libraries.h"
#include "target/cuda/report.h"

namespace espalier::target::cuda::driver {

/// Asks every GPU, live; Ask::everything loads every library.
CudaReport make_report(Libraries& libraries, Ask what);

}  // namespace espalier::target::cuda::driver
