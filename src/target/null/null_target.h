#pragma once
// The null target plans like a real one and computes nothing: for tests of plans and for measuring the executor's overhead.
// It fuses every loop nest and contraction, needs what their loop nests would need, and leaves its results as they lie.
#include "target/interface.h"

namespace espalier::target::null {

const Target& null_target();

}  // namespace espalier::target::null
