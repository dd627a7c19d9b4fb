#include "tensor/precision_text.h"

namespace espalier {

std::string precision_text(const std::string& precision, bool allow_tf32) {
  return precision + (allow_tf32 ? " with TF32 allowed" : "");
}

}  // namespace espalier
