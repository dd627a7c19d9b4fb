#include "target/device.h"

#include <fmt/format.h>

namespace espalier::target {

std::string text(const LoadReport& r) {
  return fmt::format("{} kernels compiled, {} from the cache{}, {:.2f} s", r.compiled, r.found,
                     r.prebuilt > 0 ? fmt::format(", {} prebuilt", r.prebuilt) : "", r.seconds);
}

}  // namespace espalier::target
