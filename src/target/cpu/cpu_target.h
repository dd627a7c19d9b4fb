#pragma once
// The CPU target: for every node an ordered list of kernels, best first: emitted loops, oneDNN, the reference.
#include "target/interface.h"

namespace espalier::target::cpu {

/// The target of this machine's processor.
const Target& cpu_target();

}  // namespace espalier::target::cpu
