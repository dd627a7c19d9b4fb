#pragma once
// From a fusion body (tensor-level ops over static types) to loop nests.
#include <variant>
#include <vector>

#include "kernel/loop_nest.h"
#include "kernel/target_spec.h"

