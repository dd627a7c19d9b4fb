#pragma once
// Where an executor's memory on a device has what, and whether there is room for it: known before anything is allocated.
#include <vector>

#include "run/program.h"
#include "target/device.h"

namespace espalier::run {

/// What device memory is cut in.
inline constexpr int64_t device_piece = 256;

struct DeviceExecutorOptions;

/// One allocation: the arena, where it is the program's own, then states, then the slots, each with inputs and outputs.
struct DeviceLayout {
  std::vector<int64_t> state_at;             ///< of each input: in the allocation, or -1
  std::vector<int64_t> input_at, output_at;  ///< in a slot's inputs or outputs, or -1
  int64_t arena = 0, state = 0;              ///< bytes
  int64_t own_arena = 0;                     ///< of it in the allocation: all or, where it is shared, none
  int64_t growth = 0;                        ///< bytes that a shared one grows by
  int64_t slot_inputs = 0, slot_outputs = 0;
  int slots = 1;
  int64_t slot() const { return slot_inputs + slot_outputs; }
  int64_t slot_at(int number) const { return own_arena + state + number * slot(); }
  int64_t bytes() const { return slot_at(slots); }
};
/// Does the program compute in memory that is shared (DeviceExecutorOptions::scratch)? One that is made to find errors has its own.
bool shares_arena(const Program& program, const DeviceExecutorOptions& options);
DeviceLayout device_layout(const Program& program, const DeviceExecutorOptions& options);

/// What is allocated beside an executor's own memory.
struct BesideExecutor {
  int64_t constants = 0, cells = 0;
};
/// UserError where the device has less free, with every figure and what would fit.
void check_room(const Program& program, const DeviceLayout& layout, const target::Device& device,
                const BesideExecutor& beside = {});
/// OutOfMemory where an allocation failed after all, as another process has taken memory since it was looked: the plan's figures, what the
/// allocation was, what is free now and what would fit. To be called when what was allocated before has been given back.
[[noreturn]] void fail_room(const Program& program, const DeviceLayout& layout, const target::Device& device,
                            const BesideExecutor& beside, const target::OutOfMemory& failed);

}  // namespace espalier::run
