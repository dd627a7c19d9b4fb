#include "run/red_zones.h"

#include <fmt/format.h>

#include <algorithm>

namespace espalier::run {

namespace {

/// The buffer that ends where `zone` begins, and who writes to it.
std::string writers(const Program& program, const pass::RedZone& zone) {
  int64_t from = -1;
  const auto each = [&](const auto& f) {
    for (size_t s = 0; s < program.steps().size(); ++s) {
      const Step& step = program.steps()[s];
      for (size_t b = step.operands; b < step.buffers.size(); ++b) f(s, step.buffers[b]);
      f(s, step.scratch);
    }
  };
  each([&](size_t, const pass::Place& p) {
    if (p.kind == pass::Place::Kind::arena && p.offset <= zone.offset) from = std::max(from, p.offset);
  });
  std::string text;
  each([&](size_t s, const pass::Place& p) {
    if (p.kind == pass::Place::Kind::arena && p.offset == from)
      text += fmt::format("{}step {} ({} {})", text.empty() ? "" : ", ", s, program.steps()[s].op,
                          program.steps()[s].detail);
  });
  return fmt::format("arena+{}, written by {}", from, text);
}

}  // namespace

void check_red_zones(const Program& program, const char* arena) {
  for (const pass::RedZone& zone : program.red_zones()) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(arena) + zone.offset;
    const auto* wrong =
        std::find_if(bytes, bytes + zone.bytes, [](unsigned char b) { return b != red_zone_byte; });
    if (wrong != bytes + zone.bytes)
      throw InternalError(
          fmt::format("program \"{}\": {} bytes behind the buffer at {}: something wrote there",
                      program.name(), wrong - bytes, writers(program, zone)));
  }
}

}  // namespace espalier::run
