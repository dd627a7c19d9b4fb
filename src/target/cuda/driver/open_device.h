#pragma once
// A GPU of this machine.
#include <memory>

#include "target/cuda/driver/libraries.h"
#include "target/cuda/kernel_texts.h"
#include "target/device.h"

namespace espalier::target::cuda::driver {

/// DeviceError that there is no driver for GPU number `index`, and why; none where `refusal` is empty.
void check_driver(int index, const std::string& refusal);

/// GPU number `index`, with kernels compiled by NVRTC and kept in the process's object cache. DeviceError where there is no driver, no such
/// GPU, or where it cannot be had.
std::shared_ptr<Device> open_device(Libraries& libraries, int index, const KernelTexts& texts);

}  // namespace espalier::target::cuda::driver
