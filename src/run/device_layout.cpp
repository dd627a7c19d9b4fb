#include "run/device_layout.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "run/device_executor.h"

namespace espalier::run {

DeviceLayout device_layout(const Program& p, const DeviceExecutorOptions& options) {
  const auto reserve = [](int64_t& end, int64_t bytes) {
    return std::exchange(end, end + round_up(std::max<int64_t>(bytes, 1), device_piece));
  };
  DeviceLayout out;
  out.slots = options.slots;
  out.arena = round_up(p.memory().arena, device_piece);
  out.state_at.assign(p.inputs().size(), -1);
  out.input_at.assign(p.inputs().size(), -1);
  out.output_at.assign(p.outputs().size(), -1);
  for (size_t i = 0; i < p.inputs().size(); ++i) {
    const int64_t bytes = p.inputs()[i].bytes();
    if (std::ranges::find(options.external, i) != options.external.end()) continue;
    if (!p.is_state_input(i)) out.input_at[i] = reserve(out.slot_inputs, bytes);
    else if (options.own_state) out.state_at[i] = out.arena + reserve(out.state, bytes);
  }
  for (size_t o = 0; o < p.outputs().size(); ++o)
    if (!p.is_state_output(o)) out.output_at[o] = reserve(out.slot_outputs, p.outputs()[o].bytes());
  return out;
}

void check_room(const Program& program, const DeviceLayout& layout, const target::Device& device,
                const BesideExecutor& beside) {
  const int64_t free = device.account().usable(device.free_bytes()),
                needed = layout.bytes() + beside.constants + beside.cells;
  if (needed <= free) return;
  std::string parts = fmt::format("arena {}, state {}, {} slots of {}", bytes_text(layout.arena),
                                  bytes_text(layout.state), layout.slots, bytes_text(layout.slot()));
  if (beside.constants > 0) parts += ", constants " + bytes_text(beside.constants);
  if (beside.cells > 0) parts += ", parameters " + bytes_text(beside.cells);
  const int64_t limit = device.account().statistics().limit;
  std::string fits = fmt::format("at most {}, which are free now", bytes_text(free));
  if (limit > 0) fits += fmt::format(" within the limit of {}", bytes_text(limit));
  const int64_t with_one = needed - (layout.slots - 1) * layout.slot();
  if (layout.slots > 1 && with_one <= free)
    fits += fmt::format("; with 1 slot it needs {}", bytes_text(with_one));
  throw UserError({fmt::format("program {} on {}", program.name(), device.info().name.value_or("the device")),
                   "needs more memory than is free", bytes_text(needed) + ": " + parts, fits});
}

}  // namespace espalier::run
