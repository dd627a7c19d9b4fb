#include "tool/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <limits>

#include "base/error.h"
#include "base/text.h"
#include "pass/pass.h"
#include "run/targets.h"

namespace espalier::tool {

namespace {

std::vector<std::string> pass_names() {
  std::vector<std::string> names;
  for (const pass::Pass& p : pass::pipeline()) names.emplace_back(p.name);
  return names;
}

/// A name that choose_device() takes.
CLI::Validator device_name() {
  return {[](std::string& text) {
            if (text == "auto" || run::gpu_number(text) >= 0) return std::string();
            std::string names;
            for (const run::NamedTarget& t : run::targets()) {
              if (t.name == text) return std::string();
              names += std::string(t.name) + ", ";
            }
            return text + " not in {" + names + "cuda, cuda:N, auto}";
          },
          "NAME"};
}

CLI::Validator number_in(bool zero, const char* allowed) {
  return {[zero, allowed](std::string& text) {
            const auto value = number_of<double>(std::string_view(text).substr(text.starts_with('+')));
            const bool good = value && (zero ? *value >= 0 : *value > 0) &&
                              *value <= static_cast<double>(std::numeric_limits<float>::max());
            return good ? std::string() : fmt::format("{} is out of range (allowed: {})", text, allowed);
          },
          "NUMBER"};
}

}  // namespace

NamedText named_text(std::string_view option, const std::string& value, const std::string& form) {
  const size_t equals = value.find('=');
  if (equals == std::string::npos) throw UserError({std::string(option), "has no '='", value, form});
  return {value.substr(0, equals), value.substr(equals + 1)};
}

void add_precision_option(CLI::App& command, std::string& precision, const std::string& help) {
  command.add_option("--precision", precision, help)
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16", "f16"}));
}

void add_tf32_option(CLI::App& command, bool& allowed) {
  CLI::Option* const flag = command.add_flag(
      "--tf32", allowed,
      "of a GPU: products and convolutions of f32 may round their operands to TF32 (10 bits of fraction)");
  if (CLI::Option* const exact = command.get_option_no_throw("--exact")) flag->excludes(exact);
}

void add_threads_option(CLI::App& command, int& threads) {
  command.add_option("--threads", threads, "threads to use (default: all available)")
      ->check(CLI::Range(1, 1024));
}

void add_device_option(CLI::App& command, std::string& device) {
  command
      .add_option(
          "--device,--target", device,
          "what runs it: cpu, a GPU as cuda or cuda:N, auto (the first GPU that can be had, else cpu), "
          "reference or null")
      ->capture_default_str()
      ->check(device_name());
}

void add_gpu_switches(CLI::App& command, GpuSwitches& switches) {
  command.add_flag("--sync", switches.sync,
                   "of a GPU: wait after every record, so that an error names the one that failed");
  command.add_flag("--no-graphs", switches.no_graphs,
                   "of a GPU: launch every record by itself instead of whole runs");
}

ChosenDevice device_of(const std::string& name, const GpuSwitches& switches) {
  ChosenDevice chosen = choose_device(name);
  if (!chosen.why.empty())
    fmt::print(stderr, "espalier: --device {} is {}: {}\n", name, chosen.device.name(), chosen.why);
  if ((switches.sync || switches.no_graphs) && !chosen.device.is_gpu())
    throw UserError({switches.sync ? "--sync" : "--no-graphs", "is of a GPU alone",
                     "--device " + chosen.device.name(), "--device cuda"});
  return chosen;
}

void add_batch_option(CLI::App& command, int64_t& batch, const std::string& help) {
  command.add_option("--batch", batch, help)->capture_default_str()->check(CLI::Range(1, 1 << 24));
}

void add_batch_option(CLI::App& command, int64_t& batch, bool& given, const std::string& help) {
  add_batch_option(command, batch, help);
  command.get_option("--batch")->each([&given](const std::string&) { given = true; });
}

CLI::Validator positive_number() { return number_in(false, "a finite number > 0"); }
CLI::Validator number_from_zero() { return number_in(true, "a finite number >= 0"); }

CLI::Validator whole_number() {
  return {[](std::string& text) {
            return number_of<uint64_t>(text) ? std::string()
                                             : fmt::format("{} is out of range (allowed: 0 to {})", text,
                                                           std::numeric_limits<uint64_t>::max());
          },
          "WHOLE"};
}

void add_exact_option(CLI::App& command, bool& exact) {
  command.add_flag("--exact", exact, "no kernel or rewrite that rounds otherwise than the graph says");
}

void add_disable_option(CLI::App& command, std::vector<std::string>& passes) {
  command.add_option("--disable", passes, "a pass to leave out, any number of times")
      ->type_name("PASS")
      ->allow_extra_args(false)
      ->check(CLI::IsMember(pass_names()));
}

void add_dims_option(CLI::App& command, std::vector<std::string>& dims) {
  command.add_option("--dims", dims, "numbers for an input's symbolic dims, once for each input")
      ->type_name("NAME=N,N,...")
      ->allow_extra_args(false);
}

std::map<std::string, std::vector<int64_t>> dims_of(const std::vector<std::string>& options) {
  const std::string form = "NAME=N,N,... with the input's dims";
  std::map<std::string, std::vector<int64_t>> out;
  for (const std::string& o : options) {
    const NamedText n = named_text("--dims", o, form);
    if (out.contains(n.name)) throw UserError({"--dims", "names an input twice", o, "each input once"});
    std::vector<int64_t>& dims = out[n.name];
    const char *at = n.text.data(), *end = at + n.text.size();
    while (at < end) {
      int64_t d = 0;
      const auto [next, error] = std::from_chars(at, end, d);
      const bool separated = next == end || (*next == ',' && next + 1 < end);
      if (error != std::errc() || d < 0 || !separated)
        throw UserError({"--dims", "is no list of numbers", o, form});
      dims.push_back(d);
      at = next == end ? end : next + 1;
    }
  }
  return out;
}

}  // namespace espalier::tool
