#include "tensor/device.h"

#include "run/targets.h"

namespace espalier {

Device Device::cuda(int number) { return named("cuda:" + std::to_string(number)); }

Device Device::named(std::string_view name) {
  Device out;
  const int number = run::gpu_number(name);
  if (number < 0) (void)run::find_target(name);  // which says what names there are
  out.name_ = number < 0 ? std::string(name) : "cuda:" + std::to_string(number);
  return out;
}

bool Device::is_gpu() const { return run::gpu_number(name_) >= 0; }

int Device::gpu() const {
  const int number = run::gpu_number(name_);
  if (number < 0) throw UserError({"device " + name_, "has no memory of its own", "", "a GPU"});
  return number;
}

target::MemoryStatistics Device::memory() const { return run::memory_of_gpu(gpu()); }
void Device::set_memory_limit(int64_t bytes) const { run::set_gpu_memory_limit(gpu(), bytes); }

}  // namespace espalier
