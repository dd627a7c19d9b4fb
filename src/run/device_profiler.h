#pragma once
// Where the time of a program on a device goes, by events of the device.
#include <functional>

#include "run/device_executor.h"
#include "run/profiler.h"

namespace espalier::run {

/// Run `runs` times (at least 1) record by record, every record and copy timed, and then as often one behind the other as they
/// normally go (graphs, several under way), each run's copies and computing timed as a whole; after some that are not counted. `feed`
/// writes the inputs of the next run. The profile has a row for each record, a loop's summed over its turns; scenes of the trace are
/// the last run record by record, and the runs behind each other. No one else may run programs on the device meanwhile. A record shorter than the host takes to launch it is timed with that.
Profile profile(DeviceExecutor& executor, int runs, const std::function<void(DeviceExecutor&)>& feed);

}  // namespace espalier::run
