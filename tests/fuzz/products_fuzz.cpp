// A recorded table of products: any bytes either are one, whose text reads back as the same, or are refused with a UserError.
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "target/cuda/match/product_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace espalier;
  target::cuda::ProductTable table;
  try {
    table = target::cuda::parse_product_table({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const UserError&) {
    return 0;
  }
  const std::string text = target::cuda::text(table);
  ESPALIER_CHECK(target::cuda::parse_product_table(text, "text") == table,
                 "the text reads back as another table:\n" + text);
  return 0;
}
