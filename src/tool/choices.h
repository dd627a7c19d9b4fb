#pragma once
// --choices: what `espalier tune` found, for every program that a command compiles.
#include <string>

#include "run/targets.h"
#include "tensor/device.h"

namespace CLI {
class App;
}

namespace espalier::tool {

/// --choices FILE.
void add_choices_option(CLI::App& command, std::string& file);

/// The GPU `device` with the choices of a file: programs that are compiled for it while it is kept are planned with them. Nothing where
/// `file` is "". Choices that are for another device or another version of a library are not used, with a note on the standard error.
/// UserError where the device is no GPU, and for a file that is none of choices.
run::Location tuned_place(const Device& device, const std::string& file);

}  // namespace espalier::tool
