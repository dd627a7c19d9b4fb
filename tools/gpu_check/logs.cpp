#include "gpu_check/logs.h"

#include <fmt/format.h>

#include <gpu_logs.h>
#include <sstream>

#include "base/error.h"
#include "base/file.h"

namespace espalier::gpu_check {

namespace {

constexpr char bits_head[] =
    "# Of every op: a hash of the bits that its f32 and integer samples give by kernels of our own, the same "
    "on any device;\n"
    "# or \"-\" and why another device may give others. Written by gpu_check --part 1 --small --record "
    "docs/gpu.\n";
constexpr char losses_head[] =
    "# Of every network of gpu_check's part 2: the losses of its first steps of training in f32 on a CPU.\n"
    "# Written by gpu_check --part 2 --record docs/gpu.\n";

/// The lines of a log that are no comments: the first word, and the rest.
std::vector<std::pair<std::string, std::string>> lines_of(const char* text) {
  std::vector<std::pair<std::string, std::string>> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t blank = line.find(' ');
    if (blank == std::string::npos) throw UserError({"a committed log", "has a line that is none", line, ""});
    out.emplace_back(line.substr(0, blank), line.substr(blank + 1));
  }
  return out;
}

}  // namespace

CommittedLogs::CommittedLogs() {
  for (auto& [op, bits] : lines_of(kernel_bits_text)) bits_[op] = std::move(bits);
  for (const auto& [network, numbers] : lines_of(cpu_losses_text)) {
    std::istringstream in(numbers);
    for (double loss = 0; in >> loss;) losses_[network].push_back(loss);
  }
}

std::string CommittedLogs::compare_bits(const std::string& op, const std::string& bits_or_reason) {
  const bool may_differ = bits_or_reason.starts_with("- ");
  const std::string why = may_differ ? "bits may differ: " + bits_or_reason.substr(2) : "";
  if (records_) {
    bits_[op] = bits_or_reason;
    has_bits_ = true;
    return may_differ ? why : "bits written down";
  }
  const auto it = bits_.find(op);
  if (it == bits_.end())
    throw UserError({"op " + op, "is not in docs/gpu/kernel_bits.txt", "", "gpu_check --part 1 --record"});
  if (may_differ) return why;
  if (it->second.starts_with("- ")) return "bits were not written down: " + it->second.substr(2);
  if (it->second != bits_or_reason)
    throw UserError({"op " + op, "has other bits than on the simulator", bits_or_reason, it->second});
  return "the simulator's bits";
}

std::vector<double> CommittedLogs::losses(const std::string& network, size_t steps) const {
  const auto it = losses_.find(network);
  if (it == losses_.end() || it->second.size() < steps)
    throw UserError({"network " + network, fmt::format("has not {} losses in docs/gpu/cpu_losses.txt", steps),
                     "", "gpu_check --part 2 --record"});
  return {it->second.begin(), it->second.begin() + static_cast<std::ptrdiff_t>(steps)};
}

void CommittedLogs::set_losses(const std::string& network, std::vector<double> losses) {
  losses_[network] = std::move(losses);
  has_losses_ = true;
}

void CommittedLogs::write(const std::filesystem::path& folder) const {
  std::string bits = bits_head, losses = losses_head;
  for (const auto& [op, text] : bits_) bits += fmt::format("{} {}\n", op, text);
  for (const auto& [network, numbers] : losses_) {
    losses += network;
    for (const double loss : numbers) losses += fmt::format(" {:.9g}", loss);
    losses += "\n";
  }
  make_folder(folder);
  if (has_bits_) write_file(folder / "kernel_bits.txt", bits);
  if (has_losses_) write_file(folder / "cpu_losses.txt", losses);
}

}  // namespace espalier::gpu_check
