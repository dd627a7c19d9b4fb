#pragma once
// What a plugin and its host must share: included once on either side.
#include <plugin_hash.h>

namespace espalier::target::cuda {

/// One hash of every source that both sides are made of, and the compiler.
constexpr const char* plugin_build() { return plugin_hash; }

}  // namespace espalier::target::cuda
