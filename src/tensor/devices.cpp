#include "tensor/devices.h"

#include "base/threads.h"
#include "run/targets.h"
#include "target/cpu/cpu_features.h"

namespace espalier {

std::vector<Device> devices() {
  std::vector<Device> out;
  for (const run::NamedTarget& t : run::targets()) {
    const std::string processor = t.name == "cpu" ? target::cpu::cpu_name() + "; " : "";
    out.push_back(
        {std::string(t.name), processor + std::string(t.doc), pool_threads(), t.get().spec().fast_dtype()});
  }
  return out;
}

}  // namespace espalier
