#include "tensor/devices.h"

#include <fmt/format.h>

#include "base/text.h"
#include "base/threads.h"
#include "run/targets.h"
#include "target/cpu/cpu_features.h"
#include "target/cuda/plugin.h"

namespace espalier {

namespace {

DeviceDescription describe(target::DeviceInfo info) {
  std::string what = info.name.value_or("a GPU that does not tell its name");
  if (info.capability)
    what += fmt::format(", capability {}.{}", *info.capability / 10, *info.capability % 10);
  if (info.multiprocessors) what += fmt::format(", {} multiprocessors", *info.multiprocessors);
  if (info.memory_bytes) what += ", " + bytes_text(*info.memory_bytes);
  if (info.memory_free_bytes) what += fmt::format(" ({} free)", bytes_text(*info.memory_free_bytes));
  return {.device = Device::cuda(info.index),
          .what = std::move(what),
          .threads = 0,
          .fastest = info.capability.value_or(0) >= 80 ? ir::Dtype::bf16 : ir::Dtype::f32,
          .gpu = std::move(info)};
}

}  // namespace

std::vector<DeviceDescription> devices() {
  std::vector<DeviceDescription> out;
  for (const run::NamedTarget& t : run::targets()) {
    const std::string processor = t.name == "cpu" ? target::cpu::cpu_name() + "; " : "";
    out.push_back({.device = Device::named(t.name),
                   .what = processor + std::string(t.doc),
                   .threads = pool_threads(),
                   .fastest = t.get().spec().fast_dtype(),
                   .gpu = std::nullopt});
  }
  for (target::DeviceInfo& info : target::cuda::report(target::cuda::Ask::devices).devices)
    out.push_back(describe(std::move(info)));
  return out;
}

ChosenDevice choose_device(std::string_view name) {
  if (name != "auto") return {.device = Device::named(name), .why = "", .open = nullptr};
  std::vector<std::string> refusals;
  const target::cuda::CudaReport report = target::cuda::report(target::cuda::Ask::devices);
  for (const target::DeviceInfo& info : report.devices) {
    const Device device = Device::cuda(info.index);
    try {
      run::Location place = run::find_location(device.name());
      std::string why =
          "the first GPU that can be had, " + info.name.value_or("which does not tell its name");
      if (!refusals.empty()) why += "; " + join(refusals, "; ");
      return {.device = device, .why = std::move(why), .open = std::move(place.device)};
    } catch (const UserError& e) {
      refusals.emplace_back(e.what());
    }
  }
  if (report.devices.empty()) refusals.push_back(report.problem);
  return {.device = Device::cpu(), .why = "no GPU can be had: " + join(refusals, "; "), .open = nullptr};
}

std::string why_no_gpu() { return target::cuda::report(target::cuda::Ask::devices).problem; }

}  // namespace espalier
