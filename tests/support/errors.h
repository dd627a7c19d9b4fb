#pragma once
// What a call says of bad input.
#include <string>

#include "base/error.h"

namespace espalier::test {

/// The text of the UserError that `f` throws; "no error" where it throws none.
template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const UserError& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace espalier::test
