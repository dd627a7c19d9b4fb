#pragma once
// Where a program's time goes: per step (on a device: per call record) the time, bytes, operations and fraction of what the machine
// could do at most; as a table, as JSON and as a trace.
#include <optional>
#include <string>
#include <vector>

#include "run/ceilings.h"
#include "run/executor.h"

namespace espalier::run {

/// A step of a program, or one of the records that a device does for it.
struct StepProfile {
  size_t step = 0;     ///< number in the program
  std::string op;      ///< with the label that people gave it
  std::string kernel;  ///< the entry of the target's list that serves the step
  std::string what;    ///< the types, or the record
  int64_t bytes = 0;
  double flops = 0;
  double median_ns = 0;
  double limit_ns =
      0;  ///< at the machine's ceilings: the slower of its operations and its bytes; 0 where those are unknown
  double share = 0;  ///< of the run's time
  double bytes_per_second() const { return static_cast<double>(bytes) / seconds(); }
  double flops_per_second() const { return flops / seconds(); }
  double fraction() const { return median_ns > 0 ? limit_ns / median_ns : 0; }

 private:
  double seconds() const { return 1e-9 * (median_ns > 1 ? median_ns : 1); }
};

/// A stretch of time of a run.
struct Span {
  int row = -1;      ///< of Profile::steps; -1: what `name` says
  std::string name;  ///< where there is no row
  int scene = 0;     ///< which of Profile::scenes
  int lane = 0;      ///< lanes go beside each other
  double begin_us = 0, us = 0;
};

/// Copies of one run between host and device, and whole runs one behind the other.
struct DeviceTimes {
  int64_t in_bytes = 0, out_bytes = 0;
  double in_ns = 0, out_ns = 0;  ///< medians
  double run_ns =
      0;  ///< of a run where several are under way: from the end of one to the end of the next, the median
  double copied_ns = 0;  ///< of copies in and out in all these runs,
  double hidden_ns = 0;  ///< of which so much went on beside the computing of another run
};

struct Profile {
  std::vector<StepProfile> steps;  ///< in the program's order
  double total_ns = 0;             ///< sum of the medians
  double limit_ns = 0;             ///< sum of the limits
  Ceilings ceilings;
  std::optional<DeviceTimes> device;
  std::vector<Span> spans;                      ///< of the last run, for the trace
  std::vector<std::string> scenes, lane_names;  ///< what the spans' numbers mean
};

/// Nanoseconds the machine needs at its ceilings for work of that cost: operations at the peak of their dtype (matrix work) or bytes at
/// memory's bandwidth, whichever takes longer; ceilings that are not known do not count.
double limit_ns(const target::Cost& cost, const Ceilings& ceilings);
/// Nanoseconds of the program's matrix work at the ceilings: divided by the time of a run it is the fraction of the ceiling.
double matrix_limit_ns(const Program& program, const Ceilings& ceilings);

/// Run `runs` times (at least 1) after one that is not counted. Inputs are what lies in the executor's slots.
Profile profile(Executor& executor, int runs, const Ceilings& ceilings);

/// Totals and shares from the rows, which have their medians.
void sum_up(Profile& profile);
/// The median; `values` change places. Not of none.
double median(std::vector<double>& values);

/// The rows that take longest, at most `rows` of them, and the total: a table.
std::string table_text(const Profile& profile, size_t rows = 30);
/// The same as one JSON object: {"total_us", "fraction_of_ceiling", "steps": [...]}, of a device with its copies.
std::string json_text(const Profile& profile);
/// The spans in Chrome's trace format (chrome://tracing, Perfetto).
std::string chrome_trace(const Profile& profile);

}  // namespace espalier::run
