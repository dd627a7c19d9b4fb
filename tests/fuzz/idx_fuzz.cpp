// An IDX file from outside: an array or a UserError, never a crash.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "data/idx.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    espalier::data::ByteReader reader(std::as_bytes(std::span(data, size)), "input");
    espalier::data::read_idx(reader);
  } catch (const espalier::UserError&) {
  }
  return 0;
}
