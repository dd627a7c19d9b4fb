// A PNG file from outside: pixels or a UserError, never a crash.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "data/png.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  for (const auto palette : {espalier::data::Palette::colours, espalier::data::Palette::indices}) {
    try {
      espalier::data::parse_png(std::as_bytes(std::span(data, size)), "input", palette).values();
    } catch (const espalier::UserError&) {
    }
  }
  return 0;
}
