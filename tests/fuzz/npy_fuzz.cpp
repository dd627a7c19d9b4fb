// A .npy file from outside: an array or a UserError, never a crash.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "format/numpy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    espalier::format::parse_npy({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const espalier::UserError&) {
  }
  return 0;
}
