// An ONNX file from outside: a graph or a UserError, never a crash.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "format/onnx.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    static_cast<void>(espalier::format::parse_onnx({reinterpret_cast<const char*>(data), size}, "input"));
  } catch (const espalier::UserError&) {
  }
  return 0;
}
