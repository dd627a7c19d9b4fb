#pragma once
// NVIDIA's GPUs as a target: every step becomes call records. Planning needs no device and no library of NVIDIA's.
#include "target/interface.h"

namespace espalier::target::cuda {

/// The target for devices of this compute capability (90 is sm_90); the same object every time. UserError: older than 80.
const Target& cuda_target(int capability);

}  // namespace espalier::target::cuda
