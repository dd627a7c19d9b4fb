// A plugin of this build whose GPUs are simulated (src/target/cuda/sim). What stands in ESPALIER_FAKE_GPU when a GPU is first asked for,
// one driver for each such text:
//   gpus=2            how many                        capability=80      of each
//   memory=1048576    bytes of each                   taken=1000         bytes of each that other processes have
//   default_stream=1  the default stream may be used
//   held=1            exclusive mode: another process has them
//   driver=12000      version of the driver          lacks=cuA,cuB      functions that it has not
//   plans=1           plans of cuDNN are kept in the object cache
//   fail=100:700      the driver's call 100 fails with error 700, as Fault says
//   compiler=none     kernels come from folders of images (ESPALIER_KERNEL_IMAGES) alone
//   kernel=100:719    kernel 100 ends with error 719, which is found when something waits for it
//   take=100:5000     other processes have 5000 bytes of each from call 100 on
//   without=cublaslt,cudnn   libraries that are not there
//   calls_to=FILE     how many calls were made in all, written when the process ends
//   ways_to=FILE      how often each way of a library was taken, a line for each ("cublaslt 0: 12"), written when the process ends
//   wrong=0           the way of each library that computes wrong values
//   recorded=1        devices are a test's RecordedDevice over the simulated ones
#include <fstream>
#include <map>
#include <mutex>

#include "base/export.h"
#include "base/object_cache.h"
#include "settings.h"
#include "support/recorded_device.h"
#include "target/cuda/driver/device_list.h"
#include "target/cuda/driver/image_compiler.h"
#include "target/cuda/plugin.h"
#include "target/cuda/plugin_build.h"
#include "target/cuda/port.h"
#include "target/cuda/sim/sim_compiler.h"
#include "target/cuda/sim/sim_driver.h"

namespace {

using namespace espalier::target;
using cuda::sim::SimDriver;

int64_t number(const std::string& key, int64_t fallback) {
  return std::stoll(fake::setting(key, std::to_string(fallback)));
}

/// Images are looked for as the product does.
std::shared_ptr<cuda::driver::KernelCompiler> make_compiler() {
  std::shared_ptr<cuda::driver::KernelCompiler> otherwise = std::make_shared<cuda::sim::SimCompiler>();
  if (fake::setting("compiler", "") == "none") otherwise = std::make_shared<cuda::sim::NoSimCompiler>();
  return std::make_shared<cuda::driver::ImageCompiler>(cuda::driver::ImageCompiler::Parts{
      .device = cuda::driver::simulator_images,
      .texts = {cuda::port_text(), {std::begin(cuda::nvrtc_options), std::end(cuda::nvrtc_options)}},
      .folders = cuda::driver::image_folders(),
      .otherwise = std::move(otherwise)});
}

std::string missing(const char* library) {
  return fake::setting("without", "").find(library) == std::string::npos ? "" : "not there";
}

std::set<std::string> lacking() {
  std::set<std::string> out;
  const auto look = [&](const char* name) {
    if (fake::lacks(name)) out.insert(name);
  };
  std::apply([&](const auto&... entry) { (look(entry.name), ...); }, cuda::driver::cu_entries);
  return out;
}

std::shared_ptr<SimDriver> make_driver() {
  auto driver = std::make_shared<SimDriver>(cuda::sim::SimOptions{
      .devices = static_cast<int>(number("gpus", 1)),
      .driver_version = static_cast<int>(number("driver", cuda::driver::cu_oldest_driver)),
      .lacks = lacking(),
      .capability = static_cast<int>(number("capability", 90)),
      .memory_bytes = number("memory", int64_t{1} << 30),
      .taken_bytes = number("taken", 0),
      .default_stream = number("default_stream", 0) != 0,
      .held_by_another = number("held", 0) != 0,
      .others = cuda::sim::Others::late,
      .order = cuda::sim::Order::forward,
      .seed = 1,
      .lt_missing = missing("cublaslt"),
      .dnn_missing = missing("cudnn"),
      .plans = number("plans", 0) != 0 ? &espalier::object_cache() : nullptr,
      .ways = {.wrong = static_cast<int>(number("wrong", -1))},
      .nvtx = &cuda::driver::nvtx(),
      .compiler = make_compiler()});
  const auto pair = [](const char* key, const auto& set) {
    if (const std::string text = fake::setting(key, ""); !text.empty())
      set(std::stoll(text), std::stoll(text.substr(text.find(':') + 1)));
  };
  pair("fail",
       [&](int64_t call, int64_t error) { driver->fail({.call = call, .error = static_cast<int>(error)}); });
  pair("kernel", [&](int64_t n, int64_t error) { driver->fail_kernel(n, static_cast<int>(error)); });
  pair("take", [&](int64_t call, int64_t bytes) { driver->take({.device = bytes}, call); });
  return driver;
}

/// Those of the process, which count their calls until its end.
class Drivers {
 public:
  std::shared_ptr<SimDriver> get() {
    const std::lock_guard lock(one_);
    const char* all = std::getenv("ESPALIER_FAKE_GPU");
    Entry& e = drivers_[all ? all : ""];
    if (!e.driver) e = {make_driver(), fake::setting("calls_to", ""), fake::setting("ways_to", "")};
    return e.driver;
  }
  ~Drivers() {
    for (const auto& [settings, e] : drivers_) {
      if (!e.calls_to.empty()) std::ofstream(e.calls_to) << e.driver->calls();
      if (e.ways_to.empty()) continue;
      std::ofstream out(e.ways_to);
      for (const auto& [way, times] : e.driver->ways_taken()) out << way << ": " << times << "\n";
    }
  }

 private:
  struct Entry {
    std::shared_ptr<SimDriver> driver;
    std::string calls_to, ways_to;
  };
  std::mutex one_;
  std::map<std::string, Entry> drivers_;
};

std::shared_ptr<SimDriver> driver() {
  static Drivers drivers;
  return drivers.get();
}

cuda::LibraryReport simulated(const char* name, const char* purpose) {
  return {.name = name,
          .purpose = purpose,
          .found = true,
          .version = "simulated",
          .path = "(simulated)",
          .reason = "",
          .attempts = {}};
}

cuda::CudaReport report(cuda::Ask what) {
  const std::shared_ptr<SimDriver> sim = driver();
  cuda::driver::CuApi api{};
  const std::string refusal = cuda::driver::fill_driver(api, sim->options().driver_version,
                                                        [&](const char* name) { return sim->find(name); });
  cuda::driver::DeviceList list;
  if (refusal.empty()) list = cuda::driver::list_devices(api, nullptr);
  else list.problem = "no driver: " + refusal;
  cuda::CudaReport out{.problem = std::move(list.problem),
                       .driver_release = "simulated",
                       .devices = std::move(list.devices),
                       .libraries = {}};
  if (what == cuda::Ask::everything)
    out.libraries = {simulated("driver", "all"), simulated("nvrtc", "compiling kernels"),
                     simulated("cublaslt", "matrix products"), simulated("cudnn", "convolutions")};
  return out;
}

constexpr cuda::PluginInterface interface {
  .version = ESPALIER_VERSION, .build = cuda::plugin_build(), .report = report,
  .open = [](int index, const cuda::KernelTexts&) -> std::shared_ptr<Device> {
    std::unique_ptr<Device> device = cuda::sim::make_sim_device(driver(), index);
    if (number("recorded", 0) == 0) return device;
    return std::make_shared<espalier::test::RecordedDevice>(std::move(device));
  },
  .make_images = [](const cuda::ImageRequest& request, const cuda::KernelTexts& texts) {
    return cuda::driver::write_images(
        request, {.device = cuda::driver::simulator_images, .texts = texts, .make = cuda::sim::sim_images});
  },
};

}  // namespace

extern "C" ESPALIER_API const cuda::PluginInterface* espalier_plugin() { return &interface; }
