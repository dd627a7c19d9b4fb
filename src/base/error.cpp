#include "base/error.h"

#include <fmt/format.h>

namespace espalier {

std::string to_text(const ErrorFields& f) {
  std::string text = f.where.empty() ? f.problem : f.where + ": " + f.problem;
  if (!f.got.empty() && !f.allowed.empty()) return text + " (got " + f.got + "; allowed: " + f.allowed + ")";
  if (!f.got.empty()) return text + " (got " + f.got + ")";
  if (!f.allowed.empty()) return text + " (allowed: " + f.allowed + ")";
  return text;
}

UserError::UserError(ErrorFields fields) : std::runtime_error(to_text(fields)), fields_(std::move(fields)) {}

namespace detail {
void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  throw InternalError(fmt::format("internal error at {}:{}: {} does not hold{}{}", file, line, condition,
                                  message.empty() ? "" : ": ", message));
}
}  // namespace detail

}  // namespace espalier
