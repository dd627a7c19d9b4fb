#pragma once
// Where a program's time goes: per step the time, bytes, operations and fraction of what the machine could do at most.
#include <string>
#include <vector>

#include "run/ceilings.h"
#include "run/executor.h"

namespace espalier::run {

struct StepProfile {
  size_t step = 0;  ///< number in the program
  double median_ns = 0;
  double share = 0;  ///< of the run's time
  double bytes_per_second = 0, flops_per_second = 0;
  double limit_ns = 0;  ///< at the machine's ceilings: the slower of its operations and its bytes
  double fraction() const { return median_ns > 0 ? limit_ns / median_ns : 0; }
};

struct Profile {
  std::vector<StepProfile> steps;  ///< in the program's order
  double total_ns = 0;             ///< sum of the medians
  double limit_ns = 0;             ///< sum of the limits
  std::vector<int64_t> last_run;   ///< nanoseconds of each step of the last run, for the trace
  Ceilings ceilings;
};

/// Nanoseconds the machine needs at its ceilings for one step: operations at the peak of their dtype (matrix work) or bytes at
/// memory's bandwidth, whichever takes longer.
double limit_ns(const Step& step, const Ceilings& ceilings);
/// Nanoseconds of the program's matrix work at the ceilings: divided by the time of a run it is the fraction of the ceiling.
double matrix_limit_ns(const Program& program, const Ceilings& ceilings);

/// Run `runs` times (at least 1) after one that is not counted. Inputs are what lies in the executor's slots.
Profile profile(Executor& executor, int runs, const Ceilings& ceilings);

/// The steps that take longest, at most `rows` of them, and the total: a table.
std::string table_text(const Profile& profile, const Program& program, size_t rows = 30);
/// The same as one JSON object: {"total_us", "fraction_of_ceiling", "steps": [...]}.
std::string json_text(const Profile& profile, const Program& program);
/// The last run in Chrome's trace format (chrome://tracing, Perfetto).
std::string chrome_trace(const Profile& profile, const Program& program);

}  // namespace espalier::run
