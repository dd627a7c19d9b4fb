#include "ir/dtype.h"

#include <array>
#include <string>

#include "base/error.h"

namespace espalier::ir {

namespace {
constexpr std::array<std::string_view, dtype_count> names{"f64", "f32", "bf16", "f16", "i64",
                                                          "i32", "i8",  "u8",   "bool"};
}

std::string_view dtype_name(Dtype dtype) { return names[static_cast<size_t>(dtype)]; }

Dtype dtype_of_name(std::string_view name) {
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<Dtype>(i);
  throw UserError({"dtype", "unknown", std::string(name), "f64 f32 bf16 f16 i64 i32 i8 u8 bool"});
}

}  // namespace espalier::ir
