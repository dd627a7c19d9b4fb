#pragma once
// GPUs for every program of this build, simulated: ESPALIER_PLUGIN_PATH selects the plugin of tests/device/fakes/sim_plugin.cpp, which is
// what libespalier_cuda.so is on a machine with GPUs, but over src/target/cuda/sim. ESPALIER_FAKE_GPU says how many there are and what is
// wrong with them; the settings stand in that file.
//
//   by hand:              ESPALIER_PLUGIN_PATH=build/release/sim_plugin build/release/bin/espalier devices
//   the tool in a test:   call_tool("devices", on_sim_gpu("gpus=2"))
//   in a test itself:     use_sim_gpu() first; a process opens one plugin, so every test that asks for a GPU in its own process does so
#include <filesystem>
#include <stdexcept>
#include <string>

#include "run/open_device.h"
#include "run/targets.h"
#include "support/environment.h"
#include "support/recorded_device.h"
#include "target/cuda/plugin.h"

namespace espalier::test {

/// The folder with the plugin.
inline std::filesystem::path sim_plugin() {
  return std::filesystem::path(ESPALIER_TOOL).parent_path().parent_path() / "sim_plugin";
}

/// Text of a shell before a command: that command sees simulated GPUs.
inline std::string on_sim_gpu(const std::string& settings = "") {
  return "export ESPALIER_PLUGIN_PATH='" + sim_plugin().string() + "' ESPALIER_FAKE_GPU='" + settings + "';";
}

/// This process sees simulated GPUs from here on; commands that it starts do not.
inline bool use_sim_gpu() {
  const Variable path("ESPALIER_PLUGIN_PATH", sim_plugin().string());
  const target::cuda::Plugin& p = target::cuda::plugin();
  if (p.path.parent_path() == sim_plugin()) return true;
  throw std::runtime_error("another plugin serves this process: " + p.path.string() + p.reason);
}

/// A simulated GPU of this process, held open, that notes what it is given. While it lives, "cuda" is this one: nobody may have opened
/// another before.
class RecordedGpu {
 public:
  RecordedGpu() : place_(run::find_location("cuda")) {
    recorded_ = dynamic_cast<RecordedDevice*>(&place_.device->device());
    if (!recorded_) throw std::runtime_error("another GPU is open");
  }
  RecordedDevice* operator->() const { return recorded_; }
  RecordedDevice& operator*() const { return *recorded_; }

 private:
  const Variable setting_{"ESPALIER_FAKE_GPU", "recorded=1"};
  run::Location place_;
  RecordedDevice* recorded_ = nullptr;
};

}  // namespace espalier::test
