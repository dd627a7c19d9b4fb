#pragma once
// The command line as its users call it: a process with its exit code and what it wrote to each stream.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "support/process.h"

namespace espalier::test {

struct ToolCall {
  int code = -1;
  std::string out, err;
  /// Standard output as the one JSON object it must be.
  nlohmann::json json() const {
    nlohmann::json j = nlohmann::json::parse(out, nullptr, false);
    EXPECT_TRUE(j.is_object()) << out << err;
    return j;
  }
};

/// One process of it.
inline ToolCall call_tool_once(const std::string& arguments, const std::string& before) {
  const TemporaryFolder folder;
  const std::string out = (folder / "out").string(), err = (folder / "err").string();
  // The streams go through pipes, so that a limit on file sizes does not meet them.
  const Outcome o = run_command("{ { (" + before + " exec '" ESPALIER_TOOL "' " + arguments +
                                ") 3>&-; echo $? >'" + (folder / "code").string() +
                                "'; } 2>&1 1>&3 3>&- | cat >'" + err + "'; } 3>&1 | cat >'" + out + "'");
  EXPECT_EQ(o.code, 0) << o.output;
  return {std::stoi(read_file(folder / "code")), read_file(out), read_file(err)};
}

/// Call the built command line with these arguments, words of a shell; `before` is shell text that prepares (limits, environment). Once
/// more where LeakSanitizer itself crashed at its end, as tools/second_try.sh does for the tests' own programs.
inline ToolCall call_tool(const std::string& arguments, const std::string& before = "") {
  ToolCall call = call_tool_once(arguments, before);
  if (call.code == 0 || call.err.find("LeakSanitizer has encountered a fatal error") == std::string::npos)
    return call;
  std::printf("second_try: LeakSanitizer crashed in espalier %s; once more\n", arguments.c_str());
  return call_tool_once(arguments, before);
}

}  // namespace espalier::test
