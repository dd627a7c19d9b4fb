// A safetensors file from outside: tensors inside the bytes or a UserError, never a crash.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "format/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    for (const auto& t :
         espalier::format::parse_safetensors(std::as_bytes(std::span(data, size)), nullptr, "input").tensors)
      static_cast<void>(t.value.hash());  // reads every byte
  } catch (const espalier::UserError&) {
  }
  return 0;
}
