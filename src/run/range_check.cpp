#include "run/range_check.h"

#include <fmt/format.h>

namespace espalier::run {

namespace {

/// The number in the type it is compared in: f32 for the narrow floats, i64 for integers.
template <class T>
auto wide(T value) {
  if constexpr (std::is_integral_v<T>) return static_cast<int64_t>(value);
  else if constexpr (std::is_same_v<T, double>) return value;
  else return static_cast<float>(value);
}

template <class T>
bool is_inside(T value, int64_t low, int64_t high) {
  const auto x = wide(value);
  if constexpr (std::is_integral_v<T>) return (x >= low) & (x < high);
  else return (x >= static_cast<decltype(x)>(low)) & (x <= static_cast<decltype(x)>(high));
}

template <class T>
int64_t first_outside(const T* values, int64_t count, int64_t low, int64_t high) {
  bool inside = true;
  for (int64_t i = 0; i < count; ++i) inside &= is_inside(values[i], low, high);
  if (inside) return -1;
  int64_t i = 0;
  while (is_inside(values[i], low, high)) ++i;
  return i;
}

}  // namespace

void RangeCheck::operator()(const void* data, const std::string& name) const {
  ir::dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (!std::is_same_v<T, bool>) {
      const T* values = static_cast<const T*>(data);
      if (const int64_t i = first_outside(values, count, low, high); i >= 0)
        throw UserError(
            {"input " + name + ", element " + std::to_string(i), "value out of range",
             fmt::format("{}", wide(values[i])),
             std::to_string(low) + " to " + std::to_string(high - (std::is_integral_v<T> ? 1 : 0))});
    }
  });
}

std::vector<RangeCheck> range_checks(const Program& program) {
  std::vector<RangeCheck> checks;
  for (const InputRange& r : program.ranges())
    for (size_t i = 0; i < program.inputs().size(); ++i)
      if (const Port& p = program.inputs()[i]; p.name == r.input)
        checks.push_back({i, p.type.elements(), r.low, r.high, p.type.dtype});
  return checks;
}

}  // namespace espalier::run
