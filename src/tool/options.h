#pragma once
// Options that several commands share, checked where they are read: a wrong one is a wrong call.
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/devices.h"

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace espalier::tool {

/// "NAME=REST" of an option, taken apart; UserError where there is no '='.
struct NamedText {
  std::string name, text;
};
NamedText named_text(std::string_view option, const std::string& value, const std::string& form);

/// --precision f32, bf16 or f16; `help` says of what.
void add_precision_option(CLI::App& command, std::string& precision, const std::string& help);
/// --tf32, which --exact excludes where the command has had that added before.
void add_tf32_option(CLI::App& command, bool& allowed);
/// --threads N; 0 stands for all available.
void add_threads_option(CLI::App& command, int& threads);
/// --device NAME (or --target): of a target of the host, or cuda, cuda:N, auto.
void add_device_option(CLI::App& command, std::string& device);
/// How a GPU runs it: --sync and --no-graphs.
struct GpuSwitches {
  bool sync = false, no_graphs = false;
};
void add_gpu_switches(CLI::App& command, GpuSwitches& switches);
/// The device of that name; what auto stands for is said on standard error. UserError: switches of a GPU for another device.
ChosenDevice device_of(const std::string& name, const GpuSwitches& switches = {});
/// --batch N.
void add_batch_option(CLI::App& command, int64_t& batch, const std::string& help);
/// The same, and whether it was given.
void add_batch_option(CLI::App& command, int64_t& batch, bool& given, const std::string& help);
/// Checks of an option's number, which is finite as f32: > 0, or >= 0 as well; and of digits alone, below 2^64.
CLI::Validator positive_number();
CLI::Validator number_from_zero();
CLI::Validator whole_number();
/// --exact.
void add_exact_option(CLI::App& command, bool& exact);
/// --disable PASS, any number of times.
void add_disable_option(CLI::App& command, std::vector<std::string>& passes);
/// --dims NAME=N,H,W,C, once for each input.
void add_dims_option(CLI::App& command, std::vector<std::string>& dims);
/// The numbers of --dims options, by input.
std::map<std::string, std::vector<int64_t>> dims_of(const std::vector<std::string>& options);

}  // namespace espalier::tool
