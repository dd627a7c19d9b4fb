#pragma once
#include <string>

#include "base/export.h"

namespace espalier {

/// What decides how matrix work rounds, for people: CompileOptions::precision, and whether TF32 is allowed beside it.
ESPALIER_API std::string precision_text(const std::string& precision, bool allow_tf32);

}  // namespace espalier
