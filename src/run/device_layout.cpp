#include "run/device_layout.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "run/device_executor.h"

namespace espalier::run {

bool shares_arena(const Program& program, const DeviceExecutorOptions& options) {
  return options.scratch && !program.apart() && program.red_zones().empty();
}

DeviceLayout device_layout(const Program& p, const DeviceExecutorOptions& options) {
  const auto reserve = [](int64_t& end, int64_t bytes) {
    return std::exchange(end, end + round_up(std::max<int64_t>(bytes, 1), device_piece));
  };
  DeviceLayout out;
  out.slots = options.slots;
  out.arena = round_up(p.memory().arena, device_piece);
  if (shares_arena(p, options)) out.growth = options.scratch->growth(out.arena);
  else out.own_arena = out.arena;
  out.state_at.assign(p.inputs().size(), -1);
  out.input_at.assign(p.inputs().size(), -1);
  out.output_at.assign(p.outputs().size(), -1);
  for (size_t i = 0; i < p.inputs().size(); ++i) {
    const int64_t bytes = p.inputs()[i].bytes();
    if (std::ranges::find(options.external, i) != options.external.end()) continue;
    if (!p.is_state_input(i)) out.input_at[i] = reserve(out.slot_inputs, bytes);
    else if (options.own_state) out.state_at[i] = out.own_arena + reserve(out.state, bytes);
  }
  for (size_t o = 0; o < p.outputs().size(); ++o)
    if (!p.is_state_output(o)) out.output_at[o] = reserve(out.slot_outputs, p.outputs()[o].bytes());
  return out;
}

namespace {

/// What a program needs of a device, and what there is, in words.
struct Room {
  int64_t needed, free;
  std::string where, parts, fits;
};

Room room_of(const Program& program, const DeviceLayout& layout, const target::Device& device,
             const BesideExecutor& beside) {
  Room out;
  out.free = device.account().usable(device.free_bytes());
  out.needed = layout.bytes() + layout.growth + beside.constants + beside.cells;
  out.where = fmt::format("program {} on {}", program.name(), device.info().name.value_or("the device"));
  const int64_t there = layout.arena - layout.own_arena - layout.growth;  // of other programs
  out.parts = fmt::format("{}: arena {}{}, state {}, {} slots of {}", bytes_text(out.needed),
                          bytes_text(layout.arena - there),
                          there > 0 ? fmt::format(" beside {} that are there", bytes_text(there)) : "",
                          bytes_text(layout.state), layout.slots, bytes_text(layout.slot()));
  if (beside.constants > 0) out.parts += ", constants " + bytes_text(beside.constants);
  if (beside.cells > 0) out.parts += ", parameters " + bytes_text(beside.cells);
  out.fits = fmt::format("at most {}, which are free now", bytes_text(out.free));
  if (const int64_t limit = device.account().statistics().limit; limit > 0)
    out.fits += fmt::format(" within the limit of {}", bytes_text(limit));
  const int64_t with_one = out.needed - (layout.slots - 1) * layout.slot();
  if (layout.slots > 1 && with_one <= out.free)
    out.fits += fmt::format("; with 1 slot it needs {}", bytes_text(with_one));
  return out;
}

}  // namespace

void check_room(const Program& program, const DeviceLayout& layout, const target::Device& device,
                const BesideExecutor& beside) {
  const int64_t free = device.account().usable(device.free_bytes()),
                needed = layout.bytes() + layout.growth + beside.constants + beside.cells;
  if (needed <= free) return;
  const Room room = room_of(program, layout, device, beside);
  throw UserError({room.where, "needs more memory than is free", room.parts, room.fits});
}

void fail_room(const Program& program, const DeviceLayout& layout, const target::Device& device,
               const BesideExecutor& beside, const target::OutOfMemory& failed) {
  const Room room = room_of(program, layout, device, beside);
  const ErrorFields& why = failed.fields();
  throw target::OutOfMemory(
      {room.where,
       fmt::format(
           "memory ran out while it was allocated, though there was enough before; another process may "
           "have taken it ({}: {}, {})",
           why.where, why.problem, why.got),
       fmt::format("{}; {} of the host pinned", room.parts, bytes_text(layout.slots * layout.slot())),
       room.fits});
}

}  // namespace espalier::run
