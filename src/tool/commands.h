#pragma once
// The commands of the tool: each file of src/tool/ adds one subcommand, whose callback runs it.
namespace CLI {
class App;
}

namespace espalier::tool {

// Exit codes, which say whose fault a failure was; 0 is done.
inline constexpr int exit_internal = 1,  ///< a bug of ours
    exit_usage = 2,                      ///< the call: an unknown command, option or value of one
    exit_input =
        3,  ///< what it names: a file that is missing or broken, data that does not fit, a diverging loss
    exit_machine = 4,        ///< the machine: a file cannot be written, no memory is left
    exit_interrupted = 130;  ///< Ctrl-C or SIGTERM

/// Each adds its subcommand to `app`; the callback sets `exit_code` where it is not 0.
void add_demo(CLI::App& app, int& exit_code);
void add_devices(CLI::App& app, int& exit_code);
void add_bench(CLI::App& app, int& exit_code);
void add_run(CLI::App& app, int& exit_code);
void add_inspect(CLI::App& app, int& exit_code);
void add_profile(CLI::App& app, int& exit_code);
void add_tune(CLI::App& app, int& exit_code);
void add_compile(CLI::App& app, int& exit_code);
void add_optimise(CLI::App& app, int& exit_code);
void add_train(CLI::App& app, int& exit_code);

}  // namespace espalier::tool
