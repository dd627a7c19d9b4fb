#pragma once
// What other machines computed, as it is committed beside this program (docs/gpu/): what a GPU's results are held against.
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace espalier::gpu_check {

/// docs/gpu/kernel_bits.txt: by op, a hash of the bits of what its samples give on the simulator, or why another device may give others.
/// docs/gpu/cpu_losses.txt: by network, the losses of the first steps of its training on a CPU.
class CommittedLogs {
 public:
  /// Those of this build. UserError: a line that is none.
  CommittedLogs();

  /// From here on what is said is written down in place of being compared.
  void record() { records_ = true; }
  bool records() const { return records_; }

  /// "the same bits as on the simulator", or why they need not be. Throws where they should be and are not, and where there is no such op in
  /// the log.
  std::string compare_bits(const std::string& op, const std::string& bits_or_reason);
  /// The losses on a CPU. Throws where the log has no such network, or fewer steps.
  std::vector<double> losses(const std::string& network, size_t steps) const;
  void set_losses(const std::string& network, std::vector<double> losses);

  /// What was written down since record(), into that folder: a file or both.
  void write(const std::filesystem::path& folder) const;

 private:
  bool records_ = false, has_bits_ = false, has_losses_ = false;
  std::map<std::string, std::string> bits_;
  std::map<std::string, std::vector<double>> losses_;
};

}  // namespace espalier::gpu_check
