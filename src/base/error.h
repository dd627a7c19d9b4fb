#pragma once
// Whose fault an error is lives in its type: UserError (bad input, bad call) or InternalError (a bug of ours).
#include <stdexcept>
#include <string>

#include "base/export.h"

namespace espalier {

/// What a UserError says, as fields; the text is made from them in one place.
struct ErrorFields {
  std::string where;    ///< op, node, file, field or argument, e.g. "op conv, input 1 (weights)"
  std::string problem;  ///< what is wrong, e.g. "channels differ"
  std::string got;      ///< what came (may be empty)
  std::string allowed;  ///< what would be right (may be empty)
};

/// The caller or the input is wrong: a bad shape, file, flag or value.
class ESPALIER_API UserError : public std::runtime_error {
 public:
  explicit UserError(ErrorFields fields);
  const ErrorFields& fields() const { return fields_; }

 private:
  ErrorFields fields_;
};

/// A promise inside Espalier did not hold: a bug, never the caller's fault.
class ESPALIER_API InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// The text of an error: "where: problem (got ...; allowed: ...)".
std::string to_text(const ErrorFields& fields);

namespace detail {
[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& message);
}

}  // namespace espalier

/// Throw InternalError when `condition` is false; the optional second argument is a std::string that says more.
#define ESPALIER_CHECK(condition, ...)                                                              \
  do {                                                                                              \
    if (!(condition)) [[unlikely]]                                                                  \
      ::espalier::detail::check_failed(#condition, __FILE__, __LINE__, ::std::string{__VA_ARGS__}); \
  } while (false)
