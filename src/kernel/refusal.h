#pragma once
// Why something declines: a kernel, a lowering, a rewrite. The fallback is always there and always visible.
#include <string>

namespace espalier::kernel {

struct Refusal {
  std::string reason;
};

}  // namespace espalier::kernel
