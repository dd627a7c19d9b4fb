#pragma once
// This test program once more, as a process of its own: for tests of signals, environment variables and crashes. The other
// process runs one test named DISABLED_..., which does nothing in the usual run.
#include "support/process.h"

namespace espalier::test {

/// Run test `name` ("Suite.DISABLED_Name") in a new process with these environment variables ("A=1 B=2").
inline Outcome run_again(const std::string& name, const std::string& environment) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  return run_command("unset GTEST_TOTAL_SHARDS GTEST_SHARD_INDEX GTEST_OUTPUT; " + environment + " exec '" +
                     self + "' --gtest_also_run_disabled_tests --gtest_filter=" + name);
}

}  // namespace espalier::test
