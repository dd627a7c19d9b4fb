#include "tool/cuda_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace espalier::tool {

namespace {

using target::DeviceInfo;
using target::cuda::CudaReport;
using target::cuda::LibraryReport;
using target::cuda::Plugin;

template <class T>
nlohmann::json or_null(const std::optional<T>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json(nullptr);
}

nlohmann::json device_json(const DeviceInfo& d) {
  return {{"device", fmt::format("cuda:{}", d.index)},
          {"name", or_null(d.name)},
          {"uuid", or_null(d.uuid)},
          {"bus_id", or_null(d.bus_id)},
          {"capability", or_null(d.capability)},
          {"multiprocessors", or_null(d.multiprocessors)},
          {"clock_mhz", or_null(d.clock_mhz)},
          {"clock_now_mhz", or_null(d.clock_now_mhz)},
          {"threads_per_multiprocessor", or_null(d.threads_per_multiprocessor)},
          {"registers_per_multiprocessor", or_null(d.registers_per_multiprocessor)},
          {"memory_bytes", or_null(d.memory_bytes)},
          {"memory_free_bytes", or_null(d.memory_free_bytes)},
          {"memory_clock_mhz", or_null(d.memory_clock_mhz)},
          {"memory_clock_now_mhz", or_null(d.memory_clock_now_mhz)},
          {"memory_bus_bits", or_null(d.memory_bus_bits)},
          {"peak_gbps", or_null(d.peak_gbps())},
          {"l2_bytes", or_null(d.l2_bytes)},
          {"shared_per_block", or_null(d.shared_per_block)},
          {"shared_per_block_opt_in", or_null(d.shared_per_block_opt_in)},
          {"shared_per_multiprocessor", or_null(d.shared_per_multiprocessor)},
          {"ecc", or_null(d.ecc)},
          {"mig", or_null(d.mig)},
          {"integrated", or_null(d.integrated)},
          {"compute_mode", or_null(d.compute_mode)},
          {"peers", or_null(d.peers)},
          {"utilisation_percent", or_null(d.utilisation_percent)},
          {"memory_utilisation_percent", or_null(d.memory_utilisation_percent)},
          {"power_watts", or_null(d.power_watts)},
          {"power_limit_watts", or_null(d.power_limit_watts)},
          {"temperature_celsius", or_null(d.temperature_celsius)},
          {"notes", d.notes}};
}

nlohmann::json attempts_json(const std::vector<LibraryAttempt>& attempts) {
  nlohmann::json out = nlohmann::json::array();
  for (const LibraryAttempt& a : attempts) out.push_back({{"file", a.file.string()}, {"reason", a.reason}});
  return out;
}

/// What is known in its words, what is not as "unavailable".
template <class T>
std::string known(const std::optional<T>& value, fmt::string_view words = "{}") {
  return value ? fmt::format(fmt::runtime(words), *value) : "unavailable";
}

std::string bytes(const std::optional<int64_t>& value) { return value ? bytes_text(*value) : "unavailable"; }

std::string on(const std::optional<bool>& value) { return !value ? "unavailable" : *value ? "on" : "off"; }

std::string peers(const std::optional<std::vector<int>>& value) {
  return !value           ? "unavailable"
         : value->empty() ? "with none"
                          : fmt::format("with {}", fmt::join(*value, " "));
}

std::string device_text(const DeviceInfo& d) {
  std::string out =
      fmt::format("{:8} {}, capability {}, {} multiprocessors at {} MHz\n", fmt::format("cuda:{}", d.index),
                  known(d.name), d.capability ? fmt::format("{:.1f}", 0.1 * *d.capability) : "unavailable",
                  known(d.multiprocessors), known(d.clock_mhz));
  const auto line = [&](const std::string& text) { out += "         " + text + "\n"; };
  line(fmt::format("memory {}, free {}, peak {} ({} bits at {} MHz), L2 {}", bytes(d.memory_bytes),
                   bytes(d.memory_free_bytes), known(d.peak_gbps(), "{:.0f} GB/s"), known(d.memory_bus_bits),
                   known(d.memory_clock_mhz), bytes(d.l2_bytes)));
  line(fmt::format("shared memory of a block {}, by opt-in {}, of a multiprocessor {}",
                   bytes(d.shared_per_block), bytes(d.shared_per_block_opt_in),
                   bytes(d.shared_per_multiprocessor)));
  line(fmt::format("ECC {}, MIG {}, P2P {}, compute mode {}", on(d.ecc), on(d.mig), peers(d.peers),
                   known(d.compute_mode)));
  line(fmt::format("now: busy {}, memory busy {}, power {} of {}, temperature {}, clock {}",
                   known(d.utilisation_percent, "{} %"), known(d.memory_utilisation_percent, "{} %"),
                   known(d.power_watts, "{:.1f} W"), known(d.power_limit_watts, "{:.1f} W"),
                   known(d.temperature_celsius, "{} C"), known(d.clock_now_mhz, "{} MHz")));
  line(fmt::format("UUID {}, bus {}", known(d.uuid), known(d.bus_id)));
  for (const std::string& note : d.notes) line("unavailable: " + note);
  return out;
}

/// The places of failed attempts, those with one reason together.
std::string attempts_text(const std::vector<LibraryAttempt>& attempts) {
  std::string out;
  std::vector<std::pair<std::string, std::string>> by_reason;
  for (const LibraryAttempt& a : attempts) {
    const std::string file = a.file.string() + (a.file.has_parent_path() ? "" : " by the loader");
    const auto same = std::find_if(by_reason.begin(), by_reason.end(),
                                   [&](const auto& entry) { return entry.first == a.reason; });
    if (same == by_reason.end()) by_reason.emplace_back(a.reason, file);
    else same->second += ", " + file;
  }
  for (const auto& [reason, files] : by_reason) out += fmt::format("         {}: {}\n", reason, files);
  return out;
}

/// Those that were there and did not serve: what is worth a line beside one that did.
std::vector<LibraryAttempt> refused(const std::vector<LibraryAttempt>& attempts) {
  std::vector<LibraryAttempt> out;
  for (const LibraryAttempt& a : attempts)
    if (a.reason != not_there) out.push_back(a);
  return out;
}

std::string library_text(const LibraryReport& l) {
  if (l.found)
    return fmt::format("library  {:10} {} at {}\n{}", l.name,
                       l.version.empty() ? "unknown version" : l.version, l.path.string(),
                       attempts_text(refused(l.attempts)));
  return fmt::format("library  {:10} missing (for {}): {}\n{}", l.name, l.purpose, l.reason,
                     attempts_text(l.attempts));
}

}  // namespace

nlohmann::json cuda_json(const CudaReport& report, const Plugin& plugin) {
  nlohmann::json gpus = nlohmann::json::array(), libraries = nlohmann::json::array();
  for (const DeviceInfo& d : report.devices) gpus.push_back(device_json(d));
  for (const LibraryReport& l : report.libraries)
    libraries.push_back({{"name", l.name},
                         {"purpose", l.purpose},
                         {"found", l.found},
                         {"version", l.version},
                         {"path", l.path.string()},
                         {"reason", l.reason},
                         {"attempts", attempts_json(l.attempts)}});
  return {{"gpus", gpus},
          {"cuda",
           {{"problem", report.problem},
            {"driver_release", report.driver_release},
            {"plugin",
             {{"found", plugin.interface != nullptr},
              {"path", plugin.path.string()},
              {"reason", plugin.reason},
              {"attempts", attempts_json(plugin.attempts)}}},
            {"libraries", libraries}}}};
}

std::string cuda_text(const CudaReport& report, const Plugin& plugin) {
  std::string out;
  for (const DeviceInfo& d : report.devices) out += device_text(d);
  if (report.devices.empty()) out += fmt::format("gpu      none: {}\n", report.problem);
  if (!report.driver_release.empty()) out += fmt::format("driver   release {}\n", report.driver_release);
  if (plugin.interface)
    out += fmt::format("plugin   {}\n{}", plugin.path.string(), attempts_text(refused(plugin.attempts)));
  else out += fmt::format("plugin   none\n{}", attempts_text(plugin.attempts));
  for (const LibraryReport& l : report.libraries) out += library_text(l);
  return out;
}

}  // namespace espalier::tool
