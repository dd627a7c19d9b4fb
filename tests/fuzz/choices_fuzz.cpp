// A plan of `espalier tune`: any bytes either are a plan, whose text reads back as the same, or are refused with a UserError.
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "target/choices.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace espalier;
  target::Choices choices;
  try {
    choices = target::parse_choices({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const UserError&) {
    return 0;
  }
  const std::string text = target::text(choices);
  const target::Choices again = target::parse_choices(text, "text");
  ESPALIER_CHECK(target::text(again) == text, "the text is not stable:\n" + text);
  ESPALIER_CHECK(again.records.size() == choices.records.size() && again.device == choices.device &&
                     again.libraries == choices.libraries,
                 "the text reads back as another plan:\n" + text);
  return 0;
}
