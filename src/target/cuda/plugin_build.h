#pragma once
// What a plugin and its host must share: included once on either side.
#include <plugin_hash.h>

namespace espalier::target::cuda {

/// One hash of all that both sides share and of what the plugin is made of, and the compiler.
constexpr const char* plugin_build() { return plugin_hash; }

}  // namespace espalier::target::cuda
