#include "run/targets.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>

#include "base/text.h"
#include "run/open_device.h"
#include "target/cpu/cpu_target.h"
#include "target/cuda/plugin.h"
#include "target/null/null_target.h"
#include "target/reference/reference_target.h"

namespace espalier::run {

namespace {

namespace cuda = target::cuda;

constexpr NamedTarget table[] = {
    {"cpu", "this processor: emitted loops, oneDNN, the reference last", target::cpu::cpu_target},
    {"reference", "the interpreter, op by op: what every op means, slowly",
     target::reference::reference_target},
    {"null", "plans like a real target and computes nothing: for tests and for measuring overhead",
     target::null::null_target},
};

const NamedTarget* find_in_table(std::string_view name) {
  for (const NamedTarget& t : table)
    if (t.name == name) return &t;
  return nullptr;
}

std::string gpu_name(int number) { return fmt::format("cuda:{}", number); }

[[noreturn]] void fail_unknown(std::string_view name) {
  std::vector<std::string> names;
  for (const NamedTarget& t : table) names.emplace_back(t.name);
  throw UserError({"device " + std::string(name), "there is none of that name", "",
                   join(names, ", ") + ", cuda, cuda:N"});
}

void add_attempts(std::vector<std::string>& places, const std::vector<LibraryAttempt>& attempts) {
  for (const LibraryAttempt& a : attempts) places.push_back(a.file.string() + " (" + a.reason + ")");
}

/// What was looked at for a GPU, in vain.
std::string places_looked_at() {
  std::vector<std::string> places;
  add_attempts(places, cuda::plugin().attempts);
  if (cuda::plugin().interface) {
    places.push_back(cuda::plugin().path.string() + " (the plugin)");
    for (const cuda::LibraryReport& library : cuda::report(cuda::Ask::everything).libraries)
      if (library.name == "driver") {
        add_attempts(places, library.attempts);
        if (library.found) places.push_back(library.path.string() + " (the driver " + library.version + ")");
      }
  }
  return join(places, ", ");
}

/// UserError where the machine has no such GPU.
void check_gpu(int number) {
  const cuda::CudaReport report = cuda::report(cuda::Ask::devices);
  std::vector<std::string> names;
  for (const target::DeviceInfo& info : report.devices) {
    if (info.index == number) return;
    names.push_back(gpu_name(info.index));
  }
  if (!names.empty())
    throw UserError(
        {"device " + gpu_name(number), "there is no GPU of this number", "", join(names, ", ") + ", cpu"});
  throw UserError({"device " + gpu_name(number), "there is no GPU: " + report.problem,
                   "looked at " + places_looked_at(),
                   "a machine with a GPU (`espalier devices` shows what is found), or cpu by its name"});
}

/// The GPUs that are in use, and what was said of the others. Never destroyed: devices may be looked for while the process ends.
struct Gpus {
  std::mutex one;
  std::map<int, std::weak_ptr<OpenDevice>> in_use;
  std::map<int, int64_t> limits;
};
Gpus& gpus() {
  static auto* const all = new Gpus;
  return *all;
}

std::shared_ptr<OpenDevice> open(int number) {
  Gpus& all = gpus();
  const std::lock_guard lock(all.one);
  if (std::shared_ptr<OpenDevice> device = all.in_use[number].lock()) return device;
  check_gpu(number);
  auto device = std::make_shared<OpenDevice>(gpu_name(number), cuda::open_device(number));
  device->device().account().set_limit(all.limits[number]);
  all.in_use[number] = device;
  return device;
}

}  // namespace

std::span<const NamedTarget> targets() { return table; }
const target::Target& default_target() { return table[0].get(); }

int gpu_number(std::string_view name) {
  if (name == "cuda") return 0;
  if (!name.starts_with("cuda:")) return -1;
  name.remove_prefix(5);
  return number_of<int>(name).value_or(-1);
}

const target::Target& find_target(std::string_view name) {
  if (const NamedTarget* t = find_in_table(name)) return t->get();
  fail_unknown(name);
}

Location find_location(std::string_view name) {
  const int number = gpu_number(name);
  if (number < 0) return {&find_target(name), nullptr};
  std::shared_ptr<OpenDevice> device = open(number);
  return {&device->target(), device};
}

target::MemoryStatistics memory_of_gpu(int number) {
  Gpus& all = gpus();
  const std::lock_guard lock(all.one);
  const auto device = all.in_use[number].lock();
  if (!device) return {.limit = all.limits[number]};
  target::MemoryStatistics now = device->device().account().statistics();
  now.overhead = std::max<int64_t>(device->device().taken_bytes() - now.in_use, 0);
  return now;
}

void set_gpu_memory_limit(int number, int64_t bytes) {
  if (bytes < 0)
    throw UserError(
        {"memory limit of " + gpu_name(number), "is negative", std::to_string(bytes), "0 (none) or more"});
  Gpus& all = gpus();
  const std::lock_guard lock(all.one);
  all.limits[number] = bytes;
  if (const auto device = all.in_use[number].lock()) device->device().account().set_limit(bytes);
}

}  // namespace espalier::run
