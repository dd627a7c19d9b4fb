#include "target/call.h"

#include <fmt/format.h>

namespace espalier::target {

namespace {

std::string grid_text(const Grid& g) {
  std::string text = std::to_string(g.x);
  if (g.y != 1 || g.z != 1) text += fmt::format(",{}", g.y);
  if (g.z != 1) text += fmt::format(",{}", g.z);
  return text;
}

std::string work_text(const KernelCall& c) {
  return fmt::format("launch {} {} x {}", c.kernel, grid_text(c.grid), grid_text(c.block));
}
std::string work_text(const CopyCall& c) { return fmt::format("copy {} bytes", c.bytes); }
std::string work_text(const FillCall& c) { return fmt::format("fill {} bytes with {}", c.bytes, c.byte); }

}  // namespace

std::string text(const CallRecord& call) {
  std::string out = std::visit([](const auto& work) { return work_text(work); }, call.work) + " :";
  for (const Operand& o : call.operands) {
    out += fmt::format(" b{}", o.buffer);
    if (o.offset != 0) out += fmt::format("+{}", o.offset);
  }
  return out;
}

}  // namespace espalier::target
