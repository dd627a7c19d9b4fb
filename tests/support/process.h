#pragma once
// Other programs in tests: run one, get its exit code and all it prints.
#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "support/folder.h"

namespace espalier::test {

struct Outcome {
  int code = -1;       ///< exit code; 128 + signal when a signal ended it
  std::string output;  ///< stdout and stderr
};

/// Run a shell command line.
inline Outcome run_command(const std::string& command) {
  Outcome out;
  std::FILE* pipe = ::popen(("(" + command + ") 2>&1").c_str(), "r");
  if (!pipe) return out;
  char buffer[4096];
  for (size_t n = 0; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) out.output.append(buffer, n);
  const int status = ::pclose(pipe);
  out.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return out;
}

}  // namespace espalier::test
