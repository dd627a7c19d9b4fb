#pragma once
// Another process of this program.
#include <filesystem>
#include <string>
#include <vector>

namespace espalier::imaging {

/// Run `program` with these arguments to its end; its standard output goes to `log`, errors to ours. Returns its exit code, 128 + the
/// signal where one ended it. UserError when it cannot be started.
int run_process(const std::filesystem::path& program, const std::vector<std::string>& arguments,
                const std::filesystem::path& log);

}  // namespace espalier::imaging
