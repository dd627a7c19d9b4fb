#pragma once
// How a matcher learns what a library does.
#include <functional>

#include "target/cuda/call_kernel.h"
#include "target/device.h"

namespace espalier::target::cuda {

/// What a library says of a GemmCall or a ConvCall, whose workspace is the most that it may take.
using AskLibrary = std::function<LibraryAnswer(const CallRecord::Work&)>;

/// Without a device: the library does it, and takes all it may.
LibraryAnswer assume(const CallRecord::Work& work);

}  // namespace espalier::target::cuda
