#pragma once
// The commands of the tool: each file of src/tool/ adds one subcommand, whose callback runs it.
namespace CLI {
class App;
}

namespace espalier::tool {

// Exit codes: 0 done; 1 an internal error (a bug); 2 the call or its input is wrong; 130 interrupted.
inline constexpr int exit_internal = 1, exit_user = 2, exit_interrupted = 130;

/// Each adds its subcommand to `app`; the callback sets `exit_code` where it is not 0.
void add_demo(CLI::App& app, int& exit_code);
void add_devices(CLI::App& app, int& exit_code);
void add_bench(CLI::App& app, int& exit_code);
void add_run(CLI::App& app, int& exit_code);
void add_inspect(CLI::App& app, int& exit_code);
void add_profile(CLI::App& app, int& exit_code);
void add_optimise(CLI::App& app, int& exit_code);
void add_train(CLI::App& app, int& exit_code);

}  // namespace espalier::tool
