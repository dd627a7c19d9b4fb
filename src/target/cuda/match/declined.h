#pragma once
// How a matcher says no: from wherever it finds that out.
#include <string>
#include <utility>
#include <variant>

#include "kernel/target_spec.h"
#include "target/cuda/call_kernel.h"

namespace espalier::target::cuda {

/// Thrown inside a matcher, turned into the Refusal that it returns.
struct Declined {
  std::string reason;
};
[[noreturn]] inline void decline(std::string reason) { throw Declined{std::move(reason)}; }

/// The answer of a reader, or decline with its reason.
template <class T>
T taken(std::variant<T, std::string> answer) {
  if (auto* reason = std::get_if<std::string>(&answer)) decline(std::move(*reason));
  return std::get<T>(std::move(answer));
}

/// What `match` gives, or the refusal of `library` where it declines.
template <class Match>
std::variant<CallList, kernel::Refusal> matched(const char* library, const Match& match) {
  try {
    return match();
  } catch (Declined& d) {
    return kernel::Refusal{library, std::move(d.reason)};
  }
}

}  // namespace espalier::target::cuda
