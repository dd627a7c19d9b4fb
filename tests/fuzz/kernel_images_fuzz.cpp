// The list of a folder of kernel images: any bytes either are one, whose text reads back as the same, or are refused with a UserError.
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "target/cuda/driver/kernel_images.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace espalier;
  namespace driver = target::cuda::driver;
  std::vector<driver::ImageEntry> images;
  try {
    images = driver::parse_image_list({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const UserError&) {
    return 0;
  }
  const std::string text = driver::image_list_text(images);
  ESPALIER_CHECK(driver::parse_image_list(text, "text") == images,
                 "the text reads back as another list:\n" + text);
  return 0;
}
