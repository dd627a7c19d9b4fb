#include "tool/choices.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/file.h"
#include "run/open_device.h"
#include "run/tuner.h"

namespace espalier::tool {

void add_choices_option(CLI::App& command, std::string& file) {
  command.add_option("--choices", file, "plan with what `espalier tune` wrote to this file");
}

run::Location tuned_place(const Device& device, const std::string& file) {
  if (file.empty()) return {};
  run::Location place = run::find_location(device.name());
  if (!place.device) throw UserError({"--choices " + file, "are a GPU's", device.name(), "--device cuda"});
  const std::string unused =
      run::use_choices(place.device->device(), target::parse_choices(read_file(file), file));
  if (!unused.empty()) fmt::print(stderr, "espalier: {} is not used: {}\n", file, unused);
  return place;
}

}  // namespace espalier::tool
