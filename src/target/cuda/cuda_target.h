#pragma once
// NVIDIA's GPUs as a target: every step becomes call records. Planning needs no device and no library of NVIDIA's.
#include <memory>
#include <string>

#include "target/device.h"
#include "target/interface.h"

namespace espalier::target::cuda {

/// Why libraries cannot be used on the machine that is planned for, in one line each; "" for one that can. Kernels of our own take the
/// place of a missing one, and every step where they do has a note and a refusal with the reason.
struct MissingLibraries {
  std::string cublaslt, cudnn;
};

/// The target for devices of this compute capability (90 is sm_90) where nothing but these is missing; the same object every time. What the
/// libraries do, and how much workspace they take, is assumed. UserError: older than 80.
const Target& cuda_target(int capability, const MissingLibraries& missing = {});

/// The target for this very device: with the libraries that it can load, what they say they do, and the workspace that they take. It keeps
/// the device. UserError: older than sm_80. DeviceError: from the device, here and from all that asks for a plan.
std::shared_ptr<const Target> cuda_target(std::shared_ptr<Device> device);

}  // namespace espalier::target::cuda
